"""Chemical bonds in a frame, found from distances."""

from __future__ import annotations

from dataclasses import dataclass

import ase
import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

SLACK = 0.45
"""Two atoms are bonded up to the sum of their covalent radii and this, A (as Open Babel has it)."""
CLOSEST = 0.40
"""Atoms nearer than this, A, are no bond but an accident."""
MOST = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1, 14: 4, 15: 5, 16: 6, 17: 1, 35: 1, 53: 1}
"""An atom with so many neighbours has no bond to spare for a second one to any of them (by atomic number)."""
SHORT = {6: 0.725, 7: 0.685, 8: 0.665, 14: 1.08, 15: 1.06, 16: 1.01}
"""A bond shorter than the sum of these, A, can be multiple (by atomic number); aromatic and conjugated ones are."""


@dataclass(frozen=True)
class Bonds:
    """The bonds of a frame of N atoms, each once: B bonds."""

    n_atoms: int
    first: NDArray[np.int64]
    """One end, shape (B,)."""
    second: NDArray[np.int64]
    """The other end, shape (B,)."""
    vector: NDArray[np.float64]
    """From the first to (the image of) the second, A, shape (B, 3)."""
    multiple: NDArray[np.bool_]
    """Double, triple or aromatic, shape (B,)."""

    def molecules(self) -> NDArray[np.int64]:
        """Return the number of the molecule each atom belongs to, counted from 0; shape (N,)."""
        lowest = np.arange(self.n_atoms)
        while True:  # every atom learns of the lowest index in its molecule
            before = lowest.copy()
            np.minimum.at(lowest, self.first, before[self.second])
            np.minimum.at(lowest, self.second, before[self.first])
            lowest = lowest[lowest]
            if np.array_equal(lowest, before):
                return np.unique(lowest, return_inverse=True)[1]


def bonds(atoms: ase.Atoms) -> Bonds:
    """Find the bonds, across the faces of the cell where it is periodic.

    An atom of hydrogen keeps only its shortest bond. A bond is multiple if both of its atoms have fewer neighbours than
    they can bind, and it is shorter than a single bond.
    """
    radius = covalent_radii[atoms.numbers]
    first, second, length, vector = neighbor_list("ijdD", atoms, float(2 * radius.max() + SLACK))
    near = (first < second) & (length < radius[first] + radius[second] + SLACK) & (length > CLOSEST)
    order = np.flatnonzero(near)[np.argsort(length[near], kind="stable")]
    keep = order[_one_each_for_hydrogen(atoms.numbers, first[order], second[order])]
    keep = keep[np.lexsort((second[keep], first[keep]))]
    first, second, length, vector = first[keep], second[keep], length[keep], vector[keep]
    neighbours = np.bincount(np.concatenate([first, second]), minlength=len(atoms))
    open_ended = neighbours < np.array([MOST.get(int(n), 0) for n in atoms.numbers])
    for one, other in ((first, second), (second, first)):  # nitrogen that oxygen is bound to, as in a nitro group
        oxide = (atoms.numbers[one] == 7) & (atoms.numbers[other] == 8) & (neighbours[other] == 1)
        open_ended[one[oxide]] = True
    limit = np.array([SHORT.get(int(n), -np.inf) for n in atoms.numbers])
    multiple = open_ended[first] & open_ended[second] & (length < limit[first] + limit[second])
    return Bonds(len(atoms), first, second, vector, multiple)


def _one_each_for_hydrogen(
    numbers: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which of the bonds, sorted by length, stay when each hydrogen takes the first it can."""
    hydrogen = numbers == 1
    count = np.bincount(np.concatenate([first, second]), minlength=len(numbers))
    stay = np.ones(len(first), dtype=bool)
    bound = np.zeros(len(numbers), dtype=bool)
    greedy = hydrogen & (count > 1)
    for place in np.flatnonzero(greedy[first] | greedy[second]):
        ends = [end for end in (first[place], second[place]) if hydrogen[end]]
        stay[place] = not any(bound[end] for end in ends)
        if stay[place]:
            bound[ends] = True
    return stay
