"""Clusters: the surroundings of one atom, cut out of a frame as a molecule in empty space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ase
import numpy as np
from ase.geometry import find_mic
from numpy.typing import NDArray

from activelearn.config.clusters import Clusters
from activelearn.data.bonds import Bonds, bonds
from activelearn.data.frames import FrameRef

CAP = 1.09
"""Length of the bond between an atom and the hydrogen that ends it where a neighbour was cut off, A."""
WEIGHT = "atom_pref"
"""The array of a cluster's weights: 1 for the atom it was cut around, 0 for all others."""


@dataclass(frozen=True)
class _Parts:
    """What a cluster is made of."""

    taken: NDArray[np.bool_]
    """Atoms of the frame, shape (N,)."""
    caps: tuple[tuple[int, NDArray[np.float64]], ...]
    """Atoms that get a hydrogen, and the vector of the bond it stands in for, A."""


def around(refs: Iterable[FrameRef], frames: Mapping[FrameRef, ase.Atoms], rule: Clusters) -> dict[FrameRef, ase.Atoms]:
    """Return the clusters around atoms of frames; atoms whose frame is not among `frames` are left out."""
    bonded: dict[FrameRef, Bonds] = {}
    found = {}
    for ref in refs:
        frame = ref.frame
        if frame in frames and ref.atom is not None:
            if frame not in bonded:
                bonded[frame] = bonds(frames[frame])
            found[ref] = cut(frames[frame], bonded[frame], ref.atom, rule)
    return found


def cut(atoms: ase.Atoms, bonds: Bonds, centre: int, rule: Clusters) -> ase.Atoms:
    """Cut out the cluster around one atom.

    It has all molecules with an atom nearer than cluster_cutoff. With cluster_minify only these atoms are taken, the
    hydrogens bonded to them, and another hydrogen for each other atom beyond that a single bond leads to; a molecule in
    which a multiple bond leads out is taken whole. Nothing beyond cluster_cutoff_hard is taken.

    Atoms within cluster_cutoff are placed at their image nearest to the centre, the others along their bonds.

    Parameters
    ----------
    atoms
        The frame.
    bonds
        Its bonds.
    centre
        Index of the atom.
    rule
        The radii.

    Returns
    -------
    ase.Atoms
        The cluster, without a cell; its array `atom_pref` is 1 for the atom in the centre, else 0.
    """
    soft = rule.cluster_cutoff or 0.0
    nearest, distance = find_mic(atoms.positions - atoms.positions[centre], atoms.cell, atoms.pbc)
    within = distance < soft
    allowed = distance < (np.inf if rule.cluster_cutoff_hard is None else rule.cluster_cutoff_hard)
    parts = _minified(atoms, bonds, within, allowed) if rule.cluster_minify else _whole(bonds, within, allowed)
    places = atoms.positions[centre] + _unwrapped(bonds, nearest, within, parts.taken)
    chosen = np.flatnonzero(parts.taken)
    ends = [places[atom] + vector / np.linalg.norm(vector) * CAP for atom, vector in parts.caps]
    symbols = [atoms.symbols[atom] for atom in chosen] + ["H"] * len(ends)
    cluster = ase.Atoms(symbols, np.array([*places[chosen], *ends]))
    cluster.set_array(WEIGHT, np.array([*(chosen == centre), *(False for _ in ends)], dtype=float))
    return cluster


def _whole(bonds: Bonds, within: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> _Parts:
    """Take molecules as they are."""
    molecule = bonds.molecules()
    return _Parts(np.isin(molecule, molecule[within & allowed]) & allowed, ())


def _minified(atoms: ase.Atoms, bonds: Bonds, within: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> _Parts:
    """Cut molecules where single bonds lead out."""
    molecule = bonds.molecules()
    first = np.concatenate([bonds.first, bonds.second])
    second = np.concatenate([bonds.second, bonds.first])
    vector = np.concatenate([bonds.vector, -bonds.vector])
    multiple = np.concatenate([bonds.multiple, bonds.multiple])
    leads_out = within[first] & ~within[second] & allowed[second]
    single, double = np.zeros(len(atoms), dtype=bool), np.zeros(len(atoms), dtype=bool)
    single[second[leads_out & ~multiple]] = True
    double[second[leads_out & multiple]] = True
    uncut = np.isin(molecule, molecule[double & ~single])
    taken = (within | uncut | (single & (atoms.numbers == 1))) & allowed
    taken &= np.isin(molecule, molecule[within & allowed])
    caps = []
    for outer in np.flatnonzero(single & ~taken):
        bond = np.flatnonzero(leads_out & (second == outer))
        inner = bond[np.argmin(first[bond])]
        caps.append((int(first[inner]), vector[inner]))
    return _Parts(taken, tuple(caps))


def _unwrapped(
    bonds: Bonds, nearest: NDArray[np.float64], within: NDArray[np.bool_], taken: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the places of the taken atoms relative to the centre, A, shape (N, 3); molecules stay whole.

    Atoms whose bonds lead nowhere (beyond the hard cutoff) are placed at their nearest image.
    """
    first = np.concatenate([bonds.first, bonds.second])
    second = np.concatenate([bonds.second, bonds.first])
    vector = np.concatenate([bonds.vector, -bonds.vector])
    places, placed = nearest.copy(), within.copy()
    while True:
        step = np.flatnonzero(placed[first] & ~placed[second] & taken[second])
        if not step.size:
            return places
        reached, which = np.unique(second[step], return_index=True)
        places[reached] = places[first[step[which]]] + vector[step[which]]
        placed[reached] = True
