"""Any ASE calculator by name and keyword arguments (EMT, tblite, ...): many labels in one process."""

from __future__ import annotations

import importlib.util
import io
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ase
import ase.io
from pydantic import Field

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.dispatch.task import Batch, Failure, Retry, Task, Verdict
from activelearn.errors import Problem
from activelearn.files import write_if_different
from activelearn.label import ase_worker, values
from activelearn.label.values import Picked
from activelearn.log import tail

WORKER = "ase_worker.py"
SETTINGS = "calculator.json"


class Calculator(Settings):
    """The calculator and its arguments."""

    calculator: str
    """A name ASE knows (`emt`), `tblite`, or `module:Class`."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of the calculator, such as {"method": "GFN2-xTB"}."""


class AseSettings(Settings):
    """Keys of param.json that concern ASE."""

    user_fp_params: Calculator = Field()
    """The calculator and its arguments."""


class AseLabeler:
    """Labels from an ASE calculator, in a process of `command` (a Python that has ase and the calculator)."""

    Settings = AseSettings

    def __init__(self, settings: AseSettings, param: Param, _root: Path) -> None:
        self.calculator = settings.user_fp_params
        self.type_map = list(param.type_map)

    def check(self, file: str, _structures: Sequence[ase.Atoms]) -> list[Problem]:
        """Return what is wrong with the calculator's name; only the machine that labels must be able to import it."""
        where = "user_fp_params.calculator"
        target = ase_worker.target(self.calculator.calculator)
        if target is None:
            message = f"{self.calculator.calculator!r} is no calculator of ASE"
            return [Problem(file, where, message, 'write its ASE name ("emt"), "tblite" or "module:Class"')]
        if importlib.util.find_spec(target.partition(":")[0].partition(".")[0]) is None:
            message = f"{target.partition(':')[0]} cannot be imported here"
            return [Problem(file, where, message, "make sure that the Python of fp.command has it", "warning")]
        return []

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write each frame; the labels are made by a worker that is forwarded with them."""
        tasks = []
        compositions: dict[str, dict[str, int]] = {}
        for frame in frames:
            atoms = values.in_type_map_order(frame.atoms, self.type_map)
            compositions[frame.task] = values.composition(atoms)
            text = io.StringIO()
            bare = ase.Atoms(atoms.get_chemical_symbols(), atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            ase.io.write(text, bare, format="extxyz")
            write_if_different(folder / frame.task / ase_worker.FRAME, text.getvalue())
            tasks.append(
                Task(
                    frame.task,
                    forward=(ase_worker.FRAME,),
                    outputs=(ase_worker.LABEL, ase_worker.ERROR),
                    result=(ase_worker.LABEL,),
                )
            )
        write_if_different(folder / WORKER, Path(ase_worker.__file__).read_text())
        given = {"calculator": self.calculator.calculator, "kwargs": self.calculator.kwargs}
        write_if_different(folder / SETTINGS, json.dumps(given, indent=1) + "\n")
        return Batch(
            folder=folder,
            tasks=tuple(tasks),
            script=_script,
            verify=lambda task, code: self._verify(folder / task.name, compositions[task.name], code),
            log="fp.log",
            common=(WORKER, SETTINGS),
            grouped=True,
            what="label",
        )

    def _verify(self, folder: Path, counts: dict[str, int], code: int | None) -> Verdict:
        error = folder / ase_worker.ERROR
        if error.exists() and error.stat().st_size:
            lines = error.read_text().strip().splitlines()
            retry = Retry.NEVER if "converge" in lines[-1].lower() else Retry.LATER
            return Failure(f"the calculator failed: {lines[-1]}", retry, tail(error))
        if not (folder / ase_worker.LABEL).exists():
            logs = sorted(folder.parent.glob("chunk.*.fp.log"))
            detail = tail(logs[-1]) if logs else ""
            return Failure(f"no label was written (exit status {code})", Retry.LATER, detail)
        return values.verdict(self.read, folder, counts, code, ase_worker.ERROR)

    def read(self, folder: Path) -> Any:
        """Read one labelled frame (virial from the calculator's stress; none without).

        Raises
        ------
        ValueError
            There is no label.
        """
        try:
            return ase_worker.labelled(json.loads((folder / ase_worker.LABEL).read_text()))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{ase_worker.LABEL} is not complete: {error}") from error


def _script(command: str, tasks: Sequence[Task]) -> str:
    names = " ".join(shlex.quote(task.name) for task in tasks)
    return f"{command} {WORKER} {SETTINGS} {names}"
