"""Path-integral MD: one deviation file and one trajectory per bead, read as if it were one trajectory.

The beads follow one another, as in DP-GEN: the step of bead b (from 0) is its own plus b * (last step of all + 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activelearn.data import deviation
from activelearn.data.deviation import Deviation

_DEVIATION = re.compile(r"model_devi(\d+)\.out")


def names(n_beads: int) -> tuple[str, ...]:
    """Return what LAMMPS's variable `ibead` is in each bead: numbers from 1, all as long as the last."""
    return tuple(f"{number:0{len(str(n_beads))}d}" for number in range(1, n_beads + 1))


@dataclass(frozen=True)
class Beads:
    """The beads of one task, by what their files say."""

    folder: Path
    names: tuple[str, ...]
    """What stands in the names of their files, in order."""
    stride: int
    """Steps from one bead to the next."""

    def own_step(self, step: int) -> tuple[str, int]:
        """Return the bead and its own MD step of a step of the joined trajectory."""
        bead, own = divmod(step, self.stride)
        return self.names[bead] if bead < len(self.names) else "", own

    def by_bead(self, steps: Iterable[int]) -> dict[str, dict[int, int]]:
        """Sort steps of the joined trajectory by bead: own step -> joined step."""
        found: dict[str, dict[int, int]] = {}
        for step in steps:
            name, own = self.own_step(step)
            if name:
                found.setdefault(name, {})[own] = step
        return found


def find(folder: Path) -> Beads | None:
    """Return the beads of a task, None where it is no path-integral MD."""
    read = _deviations(folder)
    return Beads(folder, tuple(read), _stride(read)) if read else None


def joined(folder: Path, atomic: bool = False) -> Deviation | None:
    """Return the deviations of all beads one after the other, None where it is no path-integral MD.

    Parameters
    ----------
    folder
        Folder of the task.
    atomic
        Whether to keep the deviations of single atoms, too.
    """
    read = _deviations(folder, atomic)
    if not read:
        return None
    stride = _stride(read)
    each = [rows.atomic for rows in read.values() if rows.atomic is not None and len(rows)]
    return Deviation(
        steps=np.concatenate([rows.steps + bead * stride for bead, rows in enumerate(read.values())]),
        force=np.concatenate([rows.force for rows in read.values()]),
        virial=np.concatenate([rows.virial for rows in read.values()]),
        atomic=np.concatenate(each) if each else None,
    )


def _deviations(folder: Path, atomic: bool = False) -> dict[str, Deviation]:
    """Read the deviation file of each bead; a file DP-GEN has joined them in is none of them."""
    found = {match[1]: file for file in folder.glob("model_devi*.out") if (match := _DEVIATION.fullmatch(file.name))}
    return {name: deviation.read(found[name], atomic) for name in sorted(found, key=int)}


def _stride(read: dict[str, Deviation]) -> int:
    return 1 + max((int(rows.steps[-1]) for rows in read.values() if len(rows)), default=0)
