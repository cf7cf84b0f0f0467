"""The frames explored from one system, or the atoms in them, as a table: arrays, not one object per frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activelearn.data.deviation import Deviation
from activelearn.data.frames import FrameRef

LINES_AT_ONCE = 100_000
"""So many lines are made into text at a time."""


@dataclass(frozen=True)
class Frames:
    """The frames explored from one system that count, in the order of task and step; F frames.

    Where single atoms are chosen each row is one atom of a frame instead, in the order of task, step and atom.
    """

    tasks: tuple[str, ...]
    """Folders of the tasks, relative to the run, sorted."""
    task: NDArray[np.int32]
    """Index in `tasks`, shape (F,)."""
    step: NDArray[np.int64]
    """MD step, shape (F,)."""
    force: NDArray[np.float64]
    """Largest force deviation (of an atom: its own), eV/A, shape (F,)."""
    virial: NDArray[np.float64]
    """Largest virial deviation (of an atom: 0), eV, shape (F,)."""
    sick: NDArray[np.bool_]
    """Frames the health rules do not believe, shape (F,)."""
    atom: NDArray[np.int32] | None = None
    """Index of the atom in its frame, counted from 0, shape (F,); None: rows are frames."""

    def __len__(self) -> int:
        return len(self.step)

    def ref(self, row: int) -> FrameRef:
        """Return where the frame of one row is."""
        atom = None if self.atom is None else int(self.atom[row])
        return FrameRef(self.tasks[self.task[row]], int(self.step[row]), atom)

    def lines(self, rows: NDArray[np.int64]) -> Iterator[str]:
        """Yield text with one line `task step` or `task step atom` for each of the rows, many lines at a time."""
        for start in range(0, len(rows), LINES_AT_ONCE):
            some = rows[start : start + LINES_AT_ONCE]
            pairs = zip(self.task[some].tolist(), self.step[some].tolist(), strict=True)
            if self.atom is None:
                yield "".join(f"{self.tasks[task]} {step}\n" for task, step in pairs)
            else:
                atoms = self.atom[some].tolist()
                yield "".join(
                    f"{self.tasks[task]} {step} {atom}\n" for (task, step), atom in zip(pairs, atoms, strict=True)
                )


def gather(trajectories: Iterable[tuple[str, Deviation, NDArray[np.bool_] | None]], skip: int = 0) -> Frames:
    """Put the trajectories of one system into one table, sorted by task; they may come one at a time.

    Parameters
    ----------
    trajectories
        Folder of the task, its deviations, and which frames the health rules do not believe (None: they
        believe all). Where there are deviations of single atoms the atoms are the rows.
    skip
        Frames of MD steps below this number are left out.
    """
    parts: list[tuple[str, Deviation, NDArray[np.bool_]]] = []
    atoms: dict[str, NDArray[np.int32]] = {}
    for folder, deviation, sick in trajectories:
        use = deviation.steps >= skip
        rows = Deviation(deviation.steps[use], deviation.force[use], deviation.virial[use])
        bad = np.zeros(len(rows), dtype=bool) if sick is None else sick[use]
        if deviation.atomic is not None:
            n_atoms = deviation.atomic.shape[1]
            atoms[folder] = np.tile(np.arange(n_atoms, dtype=np.int32), len(rows))
            bad = np.repeat(bad, n_atoms)
            rows = Deviation(np.repeat(rows.steps, n_atoms), deviation.atomic[use].ravel(), np.zeros(len(bad)))
        parts.append((folder, rows, bad))
    parts.sort(key=lambda part: part[0])
    lengths = [len(deviation) for _, deviation, _ in parts]
    return Frames(
        tasks=tuple(folder for folder, _, _ in parts),
        task=np.repeat(np.arange(len(parts), dtype=np.int32), lengths),
        step=np.concatenate([np.empty(0, dtype=np.int64), *(deviation.steps for _, deviation, _ in parts)]),
        force=np.concatenate([np.empty(0), *(deviation.force for _, deviation, _ in parts)]),
        virial=np.concatenate([np.empty(0), *(deviation.virial for _, deviation, _ in parts)]),
        sick=np.concatenate([np.empty(0, dtype=bool), *(sick for _, _, sick in parts)]),
        atom=np.concatenate([atoms[folder] for folder, _, _ in parts]) if atoms else None,
    )
