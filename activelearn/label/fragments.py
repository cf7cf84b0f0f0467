"""Molecules in a frame, and the spin each of them has in its ground state."""

from __future__ import annotations

from collections.abc import Sequence

import ase
import numpy as np
from numpy.typing import NDArray

from activelearn.data.bonds import bonds


def fragments(atoms: ase.Atoms) -> NDArray[np.int64]:
    """Return the number of the molecule each atom belongs to, counted from 0, in empty space; shape (N,)."""
    return bonds(ase.Atoms(atoms.numbers, atoms.positions)).molecules()


def multiplicity(numbers: Sequence[int]) -> int:
    """Return the spin multiplicity of one neutral molecule: 3 for O2, else 1 or 2 as its electrons pair or not."""
    if sorted(numbers) == [8, 8]:
        return 3
    return sum(numbers) % 2 + 1


def multiplicities(atoms: ase.Atoms, owner: NDArray[np.int64]) -> list[int]:
    """Return the multiplicity of each molecule."""
    return [multiplicity([int(n) for n in atoms.numbers[owner == one]]) for one in range(int(owner.max()) + 1)]
