"""How large the forces along a trajectory are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from activelearn.data import frames


def rms(folder: Path) -> float:
    """Return the root mean square of the forces on the atoms over all frames of a task, eV/A.

    A step that was written twice counts once, a torn frame not at all; NaN where no frame has forces.
    """
    merged = folder / frames.MERGED
    files = [merged] if merged.exists() else sorted((folder / frames.SINGLE).glob("*.lammpstrj"))
    squares: dict[int, tuple[float, int]] = {}
    for file in files:
        for step, text in frames.blocks(file):
            found = _squares(text)
            if found is not None:
                squares[step] = found
    atoms = sum(number for _, number in squares.values())
    return float(np.sqrt(sum(square for square, _ in squares.values()) / atoms)) if atoms else float("nan")


def _squares(text: bytes) -> tuple[float, int] | None:
    """Return the sum of all squared forces of one whole frame, (eV/A)^2, and the number of its atoms."""
    _, _, table = text.partition(b"ITEM: ATOMS")
    line, _, rows = table.partition(b"\n")
    names = line.split()
    if not {b"fx", b"fy", b"fz"} <= set(names):
        return None
    try:
        values = np.array([float(word) for word in rows.split()]).reshape(-1, len(names))
    except ValueError:
        return None
    forces = values[:, [names.index(name) for name in (b"fx", b"fy", b"fz")]]
    return float(np.square(forces).sum()), len(forces)
