"""Molecules in periodic boxes, and explorations of them as they lie in a run's folder."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import molecule

from tests import exploration

TYPES = ["C", "H", "O"]


def chain(n):
    """A stretched-out alkane of n carbon atoms; the carbons come first."""
    carbon = np.array([(1.265 * k, 0.43 * (-1) ** k, 0.0) for k in range(n)])
    hydrogen = [c + np.array([0.0, 0.6 * (-1) ** k, z]) for k, c in enumerate(carbon) for z in (0.9, -0.9)]
    hydrogen += [carbon[0] + (-0.9, -0.6, 0.0), carbon[-1] + (0.9, 0.6 * (-1) ** n, 0.0)]
    return Atoms(f"C{n}H{2 * n + 2}", np.array([*carbon, *hydrogen]))


def in_box(atoms, cell, shift=(0.0, 0.0, 0.0)):
    """The atoms in a periodic cell, moved; what leaves the cell comes in again on the other side."""
    found = atoms.copy()
    found.set_cell(cell)
    found.pbc = True
    found.positions += shift
    found.wrap()
    return found


def water_box(n=3, spacing=3.3):
    """n^3 water molecules on a grid."""
    whole = Atoms()
    for place in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.rotate(37.0 * sum(place), (1, 2, 3))
        one.positions += np.array(place) * spacing
        whole += one
    return in_box(whole, [n * spacing] * 3)


@dataclass(frozen=True)
class Frame:
    """One frame of a dump of molecules; the cell is rectangular."""

    atoms: Atoms

    def dump(self, step):
        lines = ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", str(len(self.atoms))]
        lines += ["ITEM: BOX BOUNDS pp pp pp", *(f"0.0 {length!r}" for length in self.atoms.cell.lengths().tolist())]
        lines.append("ITEM: ATOMS id type x y z fx fy fz")
        for number, (name, place) in enumerate(zip(self.atoms.symbols, self.atoms.positions.tolist(), strict=True), 1):
            lines.append(f"{number} {TYPES.index(name) + 1} {' '.join(map(repr, place))} 0 0 0")
        return "\n".join(lines) + "\n"


def settings(**changes):
    """Clusters of molecules, labelled by Gaussian; selection as DP-GEN does it unless told otherwise."""
    param = exploration.settings(
        type_map=TYPES,
        fp_style="gaussian",
        fp_params={"keywords": "force hf/3-21g", "nproc": 1},
        model_devi_f_trust_lo=0.2,
        model_devi_f_trust_hi=0.4,
        use_clusters=True,
        cluster_cutoff=3.5,
    )
    del param["user_fp_params"]
    return {**param, **changes}


def write(folder, frames, deviations, merged=False):
    """Write an exploration: frames and the deviations of their atoms, shape (F, N), every 10 steps."""
    rows = [exploration.row(10 * n, max(each), 0.0, each) for n, each in enumerate(deviations)]
    text = exploration.HEADER + "".join(rows)
    exploration.write_task(folder, text, {10 * n: Frame(atoms) for n, atoms in enumerate(frames)}, merged)
