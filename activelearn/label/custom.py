"""Any program whose input and output dpdata knows: one file in, one file out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ase
from pydantic import Field

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.dispatch.task import Batch, Task
from activelearn.errors import Problem
from activelearn.files import write_if_different
from activelearn.label import values
from activelearn.label.values import Picked
from activelearn.plugins import suggest

LOG = "output"


class Formats(Settings):
    """Input and output of the program."""

    input_fmt: str
    """Format of the input, as dpdata calls it; it must need no more than a file name."""
    input_fn: str = Field(pattern=r"^[^/]+$")
    """Name of the input file."""
    output_fmt: str
    """Format of the output, as dpdata calls it; it must need no more than a file name."""
    output_fn: str = Field(pattern=r"^[^/]+$")
    """Name of the output file."""


class CustomSettings(Settings):
    """Keys of param.json that concern a program of the user's own."""

    fp_params: Formats
    """Input and output of the program; machine.json says how to run it."""


class Custom:
    """Labels from a program of the user's own."""

    Settings = CustomSettings

    def __init__(self, settings: CustomSettings, param: Param, _root: Path) -> None:
        self.formats = settings.fp_params
        self.type_map = list(param.type_map)

    def check(self, file: str, _structures: Sequence[ase.Atoms]) -> list[Problem]:
        """Return which formats dpdata does not know, or cannot write or read."""
        from dpdata.format import Format

        known = Format.get_formats()
        problems = []
        for key, name, method, does in (
            ("input_fmt", self.formats.input_fmt, "to_system", "write"),
            ("output_fmt", self.formats.output_fmt, "from_labeled_system", "read labels of"),
        ):
            where = f"fp_params.{key}"
            if name not in known:
                hint = suggest(name, sorted(known)) or "see the formats of dpdata"
                problems.append(Problem(file, where, f"dpdata has no format {name!r}", hint))
            elif getattr(known[name], method) is getattr(Format, method):
                message = f"dpdata cannot {does} {name!r}"
                problems.append(Problem(file, where, message, "choose another format"))
        return problems

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write the input of each frame."""
        given = self.formats
        tasks = []
        compositions: dict[str, dict[str, int]] = {}
        for frame in frames:
            atoms = values.in_type_map_order(frame.atoms, self.type_map)
            compositions[frame.task] = values.composition(atoms)
            task = folder / frame.task
            task.mkdir(parents=True, exist_ok=True)
            temporary = task / f".new.{given.input_fn}"
            values.to_dpdata(atoms, self.type_map).to(given.input_fmt, str(temporary))
            write_if_different(task / given.input_fn, temporary.read_text())
            temporary.unlink()
            outputs = (given.output_fn,)
            tasks.append(Task(frame.task, forward=(given.input_fn,), outputs=outputs, result=outputs))
        return values.single_points(
            folder, tasks, compositions, self.read, LOG, errors="fp.log" if given.output_fn == LOG else None
        )

    def read(self, folder: Path) -> Any:
        """Read one labelled frame.

        Raises
        ------
        NotConvergedError, ValueError
            There is no label.
        """
        output = folder / self.formats.output_fn
        if not output.exists():
            raise ValueError(f"{output.name} was not written")
        return values.parse(str(output), self.formats.output_fmt)
