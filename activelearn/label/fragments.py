"""Molecules in a frame, and the spin each of them has in its ground state."""

from __future__ import annotations

from collections.abc import Sequence

import ase
import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

SLACK = 0.45
"""Two atoms are bonded up to the sum of their covalent radii and this, A (as Open Babel has it)."""
CLOSEST = 0.40
"""Atoms nearer than this, A, are no bond but an accident."""


def fragments(atoms: ase.Atoms) -> NDArray[np.int64]:
    """Return the number of the molecule each atom belongs to, counted from 0; shape (N,).

    An atom of hydrogen keeps only its shortest bond.
    """
    distance = np.linalg.norm(atoms.positions[:, None] - atoms.positions[None], axis=2)
    radius = covalent_radii[atoms.numbers]
    bonded = (distance < radius[:, None] + radius[None] + SLACK) & (distance > CLOSEST)
    for hydrogen in np.flatnonzero((atoms.numbers == 1) & (bonded.sum(axis=1) > 1)):
        mine = np.flatnonzero(bonded[hydrogen])
        nearest = mine[np.argmin(distance[hydrogen, mine])]
        lost = mine[mine != nearest]
        bonded[hydrogen, lost] = bonded[lost, hydrogen] = False
    owner = np.full(len(atoms), -1)
    for first in range(len(atoms)):
        front = np.array([first]) if owner[first] < 0 else np.array([], dtype=int)
        number = owner.max() + 1
        while front.size:
            owner[front] = number
            front = np.flatnonzero(bonded[front].any(axis=0) & (owner < 0))
    return owner


def multiplicity(numbers: Sequence[int]) -> int:
    """Return the spin multiplicity of one neutral molecule: 3 for O2, else 1 or 2 as its electrons pair or not."""
    if sorted(numbers) == [8, 8]:
        return 3
    return sum(numbers) % 2 + 1


def multiplicities(atoms: ase.Atoms, owner: NDArray[np.int64]) -> list[int]:
    """Return the multiplicity of each molecule."""
    return [multiplicity([int(n) for n in atoms.numbers[owner == one]]) for one in range(int(owner.max()) + 1)]
