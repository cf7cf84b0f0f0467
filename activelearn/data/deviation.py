"""Model deviations of one MD task, read from the file LAMMPS writes."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLUMNS = 7
"""step, max/min/avg of the virial deviation, max/min/avg of the force deviation; then one per atom, if asked for."""


@dataclass(frozen=True)
class Deviation:
    """Deviation of the ensemble along one trajectory, one row per frame.

    The steps are strictly increasing; of a step that was written twice (restart) the last row counts.
    """

    steps: NDArray[np.int64]
    """MD steps, shape (F,)."""
    force: NDArray[np.float64]
    """Largest force deviation of any atom (max_devi_f), eV/A, shape (F,)."""
    virial: NDArray[np.float64]
    """Largest virial deviation (max_devi_v), eV, shape (F,)."""
    atomic: NDArray[np.float64] | None = None
    """Force deviation of each atom, by its number in LAMMPS, eV/A, shape (F, N); None: not read."""

    def __len__(self) -> int:
        return len(self.steps)


def read(file: Path, atomic: bool = False) -> Deviation:
    """Read model_devi.out; rows that are torn or not numbers are left out, NaN is kept.

    A missing file is an MD that wrote nothing: zero rows.

    Parameters
    ----------
    file
        The file.
    atomic
        Whether to keep the deviations of single atoms, too; there are 0 of them where MD was not asked for any.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    table = _table(text)
    steps = table[:, 0].astype(np.int64)
    _, last = np.unique(steps[::-1], return_index=True)
    rows = len(steps) - 1 - last
    each = table[rows, COLUMNS:] if atomic else None
    return Deviation(steps=steps[rows], force=table[rows, 4], virial=table[rows, 1], atomic=each)


def _table(text: str) -> NDArray[np.float64]:
    """Return all complete rows, shape (rows, >= 7)."""
    whole = text if text.endswith("\n") else text[: text.rfind("\n") + 1]
    lines = [line for line in whole.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        return np.empty((0, COLUMNS))
    width = len(lines[0].split())
    if width >= COLUMNS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                values = np.fromstring("\n".join(lines), sep=" ")
            if values.size == width * len(lines) and np.all(np.isfinite(values[::width])):
                return values.reshape(len(lines), width)
        except (ValueError, DeprecationWarning):
            pass
    return _table_line_by_line(lines)


def _table_line_by_line(lines: list[str]) -> NDArray[np.float64]:
    """Read rows one at a time, leaving out what is broken.

    All rows of a file have one width; a torn row that a restart went on writing behind has another, a larger one.
    """
    rows: list[list[float]] = []
    for line in lines:
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            continue
        if len(row) >= COLUMNS and np.isfinite(row[0]):
            rows.append(row)
    widths = Counter(len(row) for row in rows)
    width = min(widths, key=lambda n: (-widths[n], n), default=COLUMNS)
    return np.array([row for row in rows if len(row) == width]).reshape(-1, width)
