"""The user's own demands on a frame: fp_skip_bad_box and fp_cluster_vacuum."""

from __future__ import annotations

from collections.abc import Sequence

import ase
import numpy as np
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

BOX = "bad box"
CLUSTER = "bad cluster"


def bad_box(atoms: ase.Atoms, limits: Sequence[tuple[str, float]]) -> str | None:
    """Say which limit the cell of a frame goes beyond, or None.

    Parameters
    ----------
    atoms
        The frame; its cell is lower triangular, as LAMMPS has it.
    limits
        Criteria and their limits: ratios, and the smallest distance between atoms or their images, A.
    """
    cell = np.asarray(atoms.cell.array)
    if not (np.all(np.isfinite(cell)) and np.all(np.isfinite(atoms.positions))):
        return f"{BOX}: coordinates are not finite"
    for name, limit in limits:
        if name == "min_distance":
            periodic = ase.Atoms(positions=atoms.positions, cell=cell, pbc=True)
            distances = neighbor_list("d", periodic, limit)
            if len(distances):
                return f"{BOX}: two atoms are {distances.min():.3f} A apart"
        elif (ratio := _ratio(name, cell)) > limit:
            return f"{BOX}: {name} is {ratio:.3f}"
    return None


def _ratio(name: str, cell: NDArray[np.float64]) -> float:
    """Return one of DP-GEN's measures of how far a cell is from a cube; they need no unit."""
    lengths = np.linalg.norm(cell, axis=1)
    if name == "length_ratio":
        return float(lengths.max() / lengths.min())
    if name == "height_ratio":
        volume = abs(np.linalg.det(cell))
        faces = np.linalg.norm(np.cross(cell[[0, 1, 2]], cell[[1, 2, 0]]), axis=1)
        return float(lengths.max() / (volume / faces).min())
    (ax, _, _), (bx, by, _), (cx, cy, cz) = cell
    tilts = np.array([bx, cy, cx])
    along = np.array([ax, by, ax]) if name == "wrap_ratio" else np.array([by, cz, cz])
    return float(np.abs(tilts / along).max())


def bad_cluster(atoms: ase.Atoms, vacuum: float) -> str | None:
    """Say how little vacuum a cluster has, or None.

    Parameters
    ----------
    atoms
        The frame; atoms outside the cell are put back into it.
    vacuum
        The edges of the cell must be longer than the cluster by this, A.
    """
    inside = atoms.cell.cartesian_positions(atoms.cell.scaled_positions(atoms.positions) % 1.0)
    least = float((atoms.cell.lengths() - np.ptp(inside, axis=0)).min())
    return f"{CLUSTER}: {least:.3f} A of vacuum" if least < vacuum else None
