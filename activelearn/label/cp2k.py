"""CP2K: an input file and coordinates of each frame; energy, forces and stress from what it prints."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
from numpy.typing import NDArray

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.dispatch.task import Batch, Task
from activelearn.errors import Problem, about_files
from activelearn.files import write_if_different
from activelearn.label import cp2k_input, values
from activelearn.label.cp2k_input import COORD, INPUT
from activelearn.label.values import Picked

OUTPUT = "output"
SECTIONS: tuple[tuple[str, ...], ...] = (
    ("GLOBAL",),
    ("FORCE_EVAL",),
    ("FORCE_EVAL", "DFT"),
    ("FORCE_EVAL", "SUBSYS"),
    ("FORCE_EVAL", "SUBSYS", "KIND"),
)
GPA = {"pa": 1e-9, "bar": 1e-4, "atm": 1.01325e-4, "kbar": 0.1, "mbar": 100.0, "gpa": 1.0}
"""Pressure units of CP2K in GPa."""
EV_PER_A3 = 160.2176634
"""GPa."""


class Cp2kSettings(Settings):
    """Keys of param.json that concern CP2K."""

    user_fp_params: dict[str, Any] | None = None
    """CP2K's input as nested objects: sections, `_` for the word after a section's name, lists for repeated sections.

    It is laid over defaults; the section KIND must be given.
    """
    external_input_path: str | None = None
    """Input file used as template: its line `ABC ...` becomes the cell, its section COORD includes coord.xyz."""
    fp_params: dict[str, Any] | None = None
    """Old name of user_fp_params."""
    fp_pp_path: str | None = None
    """Folder of fp_pp_files."""
    fp_pp_files: list[str] = []
    """Files each task gets beside its input (basis sets, potentials)."""


class Cp2k:
    """Labels from CP2K."""

    Settings = Cp2kSettings

    def __init__(self, settings: Cp2kSettings, param: Param, root: Path) -> None:
        self.type_map = list(param.type_map)
        self.given = settings.user_fp_params
        self.template: Path | None = None
        self.key = "user_fp_params"
        if self.given is None and settings.external_input_path is not None:
            self.template = root / os.path.expanduser(settings.external_input_path)  # noqa: PTH111
            self.key = "external_input_path"
        elif self.given is None and settings.fp_params is not None:
            self.given, self.key = settings.fp_params, "fp_params"
        self.ignored = settings.user_fp_params is not None and settings.external_input_path is not None
        folder = root / os.path.expanduser(settings.fp_pp_path or ".")  # noqa: PTH111
        self.files = [folder / name for name in settings.fp_pp_files]

    def check(self, file: str, structures: Sequence[ase.Atoms]) -> list[Problem]:
        """Return what is wrong with the sections or the template."""
        problems = about_files(
            Problem(file, f"fp_pp_files[{n}]", f"{path} does not exist", "check fp_pp_path")
            for n, path in enumerate(self.files)
            if not path.is_file()
        )
        if self.ignored:
            message = "is not used: user_fp_params goes first"
            problems.append(Problem(file, "external_input_path", message, "remove one of them", "warning"))
        if self.template is not None:
            return [*problems, *about_files(self._template_problems(file, self.template))]
        if not self.given:
            message = "is required but missing: CP2K's input"
            return [*problems, Problem(file, self.key, message, "or give external_input_path, an input file")]
        return [*problems, *self._section_problems(file, self.given, structures)]

    def _section_problems(
        self, file: str, given: Mapping[str, Any], structures: Sequence[ase.Atoms]
    ) -> Iterator[Problem]:
        key = self.key
        odd = [section for section in SECTIONS if not isinstance(cp2k_input.at(given, *section) or {}, Mapping)]
        if odd:
            for section in odd:
                yield Problem(file, ".".join((key, *section)), "must be an object: a section of CP2K's input")
            return
        for path in cp2k_input.unequal(given, key):
            yield Problem(file, path, "its lists have different lengths", "one value per repeated section")
        config = cp2k_input.completed(given)
        run = str(cp2k_input.at(config, "GLOBAL", "RUN_TYPE") or "ENERGY_FORCE").upper()
        if run != "ENERGY_FORCE":
            yield Problem(
                file, f"{key}.GLOBAL.RUN_TYPE", f"is {run}: a label is energy and forces", "write ENERGY_FORCE"
            )
        where = f"{key}.FORCE_EVAL.SUBSYS.KIND"
        kinds = cp2k_input.at(config, "FORCE_EVAL", "SUBSYS", "KIND")
        names = kinds.get(cp2k_input.TITLE, []) if isinstance(kinds, Mapping) else []
        names = names if isinstance(names, list) else [names]
        present = {name for atoms in structures for name in atoms.get_chemical_symbols()}
        missing = [name for name in self.type_map if name in present and name not in names]
        if missing:
            message = f"has no {', '.join(missing)}"
            yield Problem(file, where, message, 'list every element in "_", with its POTENTIAL and BASIS_SET')
        dft = cp2k_input.at(config, "FORCE_EVAL", "DFT") or {}
        charge = cp2k_input.charge(given)
        polarised = {str(dft.get(name, "F")).strip(".").upper()[:1] for name in ("UKS", "LSD")} & {"T"}
        if not polarised and any(cp2k_input.multiplicity(atoms, charge) == 2 for atoms in structures):
            message = "is off, but some structures have an odd number of electrons: CP2K refuses them"
            yield Problem(file, f"{key}.FORCE_EVAL.DFT.UKS", message, 'write "UKS": "T"', "warning")

    def _template_problems(self, file: str, template: Path) -> Iterator[Problem]:
        if not template.is_file():
            yield Problem(file, self.key, f"{template} does not exist", "write CP2K's input there")
            return
        text = template.read_text(errors="replace")
        if not cp2k_input.ABC.search(text):
            message = f"{template} has no line `ABC ...` in its section CELL"
            yield Problem(file, self.key, message, "add for example ABC 10 10 10: it becomes the cell of each frame")
        if not re.search(rf"^\s*(@include\s+\S*{COORD}|COORD_FILE_NAME\s+\S*{COORD})", text, re.I | re.M):
            message = f"{template} does not include {COORD}"
            yield Problem(file, self.key, message, f"write @include {COORD} into its section COORD")
        if not re.search(r"^\s*&FORCES\b", text, re.I | re.M):
            message = f"{template} does not print the forces"
            yield Problem(file, self.key, message, "add &FORCES ON and &END FORCES to FORCE_EVAL/PRINT")

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write input and coordinates of each frame."""
        template = self.template.read_text(errors="replace") if self.template is not None else ""
        tasks = []
        compositions: dict[str, dict[str, int]] = {}
        for frame in frames:
            atoms = values.in_type_map_order(frame.atoms, self.type_map)
            compositions[frame.task] = values.composition(atoms)
            deck = cp2k_input.from_template(template, atoms) if template else cp2k_input.text(self.given or {}, atoms)
            write_if_different(folder / frame.task / INPUT, deck)
            write_if_different(folder / frame.task / COORD, cp2k_input.coordinates(atoms))
            names = values.share(folder, frame.task, self.files)
            tasks.append(Task(frame.task, forward=(INPUT, COORD, *names), outputs=(OUTPUT,), result=(OUTPUT,)))
        return values.single_points(folder, tasks, compositions, self.read, OUTPUT, errors="fp.log")

    def read(self, folder: Path) -> Any:
        """Read one labelled frame; its virial where CP2K printed the stress tensor.

        Raises
        ------
        NotConvergedError, ValueError
            There is no converged label.
        """
        output = folder / OUTPUT
        text = values.printed(output)
        if "SCF run NOT converged" in text or "outer SCF loop FAILED to converge" in text:
            raise values.NotConvergedError("not converged: CP2K reached MAX_SCF")
        if "ENERGY|" not in text:
            raise ValueError("CP2K printed no energy")
        system = values.parse(str(output), "cp2k/output")
        pressure = stress(text)
        if pressure is not None:
            volume = abs(float(np.linalg.det(system["cells"][0])))
            system.data["virials"] = pressure[None] * volume / EV_PER_A3
        return system


def stress(text: str) -> NDArray[np.float64] | None:
    """Return the last stress tensor in CP2K's output, GPa, positive under compression; shape (3, 3), None without one.

    Both forms are read: lines that start with `STRESS|` (since version 8), and a block under `STRESS TENSOR`.
    """
    heads = list(re.finditer(r"^ *(?:STRESS\|.*stress tensor|STRESS TENSOR) \[(?P<unit>\w+)\] *$", text, re.I | re.M))
    for head in reversed(heads):
        if "eigen" in head.group(0).lower() or head.group("unit").lower() not in GPA:
            continue
        rows: dict[str, list[float]] = {}
        for line in text[head.end() :].splitlines()[1:8]:
            words = line.replace("STRESS|", "").split()
            if len(words) == 4 and words[0].lower() in ("x", "y", "z"):
                rows.setdefault(words[0].lower(), [float(word) for word in words[1:]])
        if len(rows) == 3:
            return np.array([rows[axis] for axis in "xyz"]) * GPA[head.group("unit").lower()]
    return None
