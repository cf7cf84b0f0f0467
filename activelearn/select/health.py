"""Is a frame sane? An exploded cell has deviation zero and would pass for accurate."""

from __future__ import annotations

import ase
import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from activelearn.data.deviation import Deviation

VOLUME_FACTOR = 3.0
"""A cell larger or smaller than its start by more than this factor is not the material any more."""
OVERLAP = 0.5
"""Atoms closer than this share of the sum of their covalent radii overlap."""
LONELY_SHARE = 0.5
"""If more than this share of the atoms has no neighbour within the cutoff, the cell is a gas."""


def unhealthy_rows(deviation: Deviation, volume_ratio: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which frames cannot be trusted by their numbers alone, shape (F,).

    Parameters
    ----------
    deviation
        Deviations of one trajectory. Zero means that no atom saw a neighbour (or that the models are one model).
    volume_ratio
        Volume over that of the start, NaN where unknown, shape (F,).
    """
    bad: NDArray[np.bool_] = ~np.isfinite(deviation.force) | (deviation.force == 0.0)
    with np.errstate(invalid="ignore"):
        bad |= (volume_ratio > VOLUME_FACTOR) | (volume_ratio < 1 / VOLUME_FACTOR)
    return bad


def complaint(atoms: ase.Atoms, cutoff: float) -> str | None:
    """Say what is wrong with the geometry of a frame, or None.

    Parameters
    ----------
    atoms
        The frame.
    cutoff
        Cutoff radius of the models, A.
    """
    if not np.all(np.isfinite(atoms.positions)) or not np.all(np.isfinite(atoms.cell.array)):
        return "coordinates are not finite"
    radii = covalent_radii[atoms.numbers]
    first, second, distance = neighbor_list("ijd", atoms, float(2 * radii.max()))
    limit = OVERLAP * (radii[first] + radii[second])
    if np.any(distance < limit):
        worst = int(np.argmin(distance - limit))
        pair = f"{atoms.symbols[first[worst]]}-{atoms.symbols[second[worst]]}"
        return f"atoms overlap: {pair} at {distance[worst]:.2f} A"
    if len(atoms) > 1:
        lonely = len(atoms) - len(np.unique(neighbor_list("i", atoms, cutoff)))
        if lonely > LONELY_SHARE * len(atoms):
            return f"{lonely} of {len(atoms)} atoms have no neighbour within {cutoff:g} A"
    return None
