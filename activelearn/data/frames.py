"""Frames of LAMMPS trajectories: which ones a file holds, and reading exactly the ones wanted."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
from ase.io.lammpsrun import read_lammps_dump_text
from numpy.typing import NDArray

MERGED = "all.lammpstrj"
SINGLE = "traj"
MARK = b"ITEM: TIMESTEP"


@dataclass(frozen=True, order=True)
class FrameRef:
    """One frame of one exploration task, or one atom in it."""

    task: str
    """Folder of the task, relative to the run."""
    step: int
    """MD step."""
    atom: int | None = None
    """Index of the atom, counted from 0; None: the frame as a whole."""

    def __str__(self) -> str:
        return f"{self.task} step {self.step}" + ("" if self.atom is None else f" atom {self.atom}")

    @property
    def frame(self) -> FrameRef:
        """The frame as a whole."""
        return FrameRef(self.task, self.step)


def read(
    folder: Path, steps: Iterable[int], elements: Sequence[str], periodic: bool = True, bead: str = ""
) -> dict[int, ase.Atoms]:
    """Read the frames at `steps` from the trajectory of the task in `folder`, merged or one file per frame.

    Frames are found by the step written in them, never by their place; of a step that was written twice the last
    complete frame counts. Steps that are not there are left out.

    Parameters
    ----------
    folder
        Folder of the task.
    steps
        MD steps.
    elements
        Element of each LAMMPS atom type, in order.
    periodic
        Whether the cell is periodic.
    bead
        What the names of the files of one bead end with; empty for classical MD.

    Returns
    -------
    dict
        Atoms by step: positions (N, 3) A, cell (3, 3) A, and the exploring model's forces (N, 3) eV/A as array
        `model_forces`; atoms ordered by their id.
    """
    wanted = set(steps)
    merged = folder / f"{MERGED}{bead}"
    single = (folder / SINGLE / f"{step}.lammpstrj{bead}" for step in sorted(wanted))
    found: dict[int, ase.Atoms] = {}
    # one that DP-GEN began and we went on with may have both forms
    for file in [*(file for file in single if file.exists()), *([merged] if merged.exists() else [])]:
        for step, text in blocks(file, wanted):
            atoms = _parse(text, elements)
            if atoms is not None:
                atoms.pbc = periodic
                found[step] = atoms
    return found


def blocks(file: Path, wanted: set[int] | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield step and text of the whole frames of a file, all or only those wanted, reading it once."""
    keep: list[bytes] | None = None
    step = -1
    with file.open("rb") as stream:
        for line in stream:
            if line.startswith(MARK):
                if keep is not None and (text := _whole(keep)):
                    yield step, text
                keep = None
                number = stream.readline()
                if number.strip().isdigit() and (wanted is None or int(number) in wanted):
                    step = int(number)
                    keep = [line, number]
            elif keep is not None:
                keep.append(line)
    if keep is not None and (text := _whole(keep)):
        yield step, text


def _whole(lines: list[bytes]) -> bytes | None:
    """Return the text of a frame if it is complete: a dump that was killed ends in the middle of a line."""
    natoms = int(lines[3]) if len(lines) > 3 and lines[3].strip().isdigit() else -1
    header = next((place for place, line in enumerate(lines) if line.startswith(b"ITEM: ATOMS")), None)
    if header is None or natoms < 1 or len(lines) <= header + natoms or not lines[header + natoms].endswith(b"\n"):
        return None
    return b"".join(lines[: header + 1 + natoms])


def _parse(text: bytes, elements: Sequence[str]) -> ase.Atoms | None:
    try:
        atoms = read_lammps_dump_text(io.StringIO(text.decode()), specorder=list(elements))
    except (ValueError, IndexError, KeyError, UnicodeDecodeError):
        return None
    if atoms.calc is not None and "forces" in atoms.calc.results:
        atoms.set_array("model_forces", np.asarray(atoms.calc.results["forces"]))
    atoms.calc = None
    atoms.positions -= atoms.get_celldisp().ravel()
    atoms.set_celldisp(np.zeros(3))
    return atoms


def volumes(log: Path) -> Mapping[int, float]:
    """Return the cell volume (A^3) at each step printed in log.lammps; empty when there is no such column."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return {}
    found: dict[int, float] = {}
    for table in re.finditer(r"^\s*Step\b.*$", text, flags=re.MULTILINE):
        names = table.group().split()
        if "Volume" not in names:
            continue
        column = names.index("Volume")
        for line in text[table.end() + 1 :].splitlines():
            words = line.split()
            if words[:1] == ["Step"] or words[:2] == ["Loop", "time"]:
                break
            if len(words) == len(names) and words[0].isdigit():  # warnings stand between the rows
                with contextlib.suppress(ValueError):
                    found[int(words[0])] = float(words[column])
    return found


def at_steps(values: Mapping[int, float], steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values at `steps`, NaN where there is none; shape (F,)."""
    return np.array([values.get(int(step), np.nan) for step in steps])
