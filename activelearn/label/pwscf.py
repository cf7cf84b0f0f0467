"""Quantum ESPRESSO (pw.x): one input file per frame, energy, forces and stress from its output."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import ase
from pydantic import Field, PositiveFloat, field_validator

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.dispatch.task import Batch, Task
from activelearn.errors import Problem
from activelearn.files import write_if_different
from activelearn.label import potcar, values
from activelearn.label.values import Picked

INPUT, OUTPUT = "input", "output"
NAMELISTS = ("control", "system", "electrons", "ions", "cell")


class ShortPwscf(Settings):
    """`fp_params` of Quantum ESPRESSO, the form of old files; everything it does not name has a fixed value."""

    ecut: PositiveFloat
    """Plane-wave cutoff energy (ecutwfc), Ry."""
    ediff: PositiveFloat
    """Convergence of the energy (conv_thr, ts_vdw_econv_thr), Ry."""
    kspacing: PositiveFloat
    """Distance of k points, 1/A."""
    smearing: str | None = None
    """"gauss", "mp" or "fd"."""
    sigma: PositiveFloat | None = None
    """Width of the smearing (degauss), Ry."""

    @field_validator("smearing")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        word = "gauss" if value is None else value.lower()
        if word not in ("gauss", "mp", "fd") and not word.startswith("mp:"):
            raise ValueError('must be "gauss", "mp" or "fd"')
        return value

    def namelists(self) -> dict[str, Any]:
        """Return the same in the form of user_fp_params."""
        control = {"calculation": "scf", "restart_mode": "from_scratch", "outdir": "./OUT", "disk_io": "none"}
        system: dict[str, Any] = {"vdw_corr": "TS", "ecutwfc": self.ecut, "ts_vdw_econv_thr": self.ediff}
        system["nosym"] = True
        if self.sigma is not None:
            system["degauss"] = self.sigma
        if self.smearing is not None:
            system["smearing"] = self.smearing.lower().partition(":")[0]
        electrons = {"conv_thr": self.ediff}
        return {"control": control, "system": system, "electrons": electrons, "kspacing": self.kspacing}


class PwscfSettings(Settings):
    """Keys of param.json that concern Quantum ESPRESSO."""

    fp_pp_path: str
    """Folder of the pseudopotentials."""
    fp_pp_files: list[str]
    """One UPF file per element of type_map, in its order."""
    user_fp_params: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    """Namelists by name (control, system, electrons, ...), and `kspacing`: distance of k points, 1/A."""
    fp_params: ShortPwscf | None = None
    """Old short form; used where user_fp_params is not given."""


class Pwscf:
    """Labels from pw.x."""

    Settings = PwscfSettings

    def __init__(self, settings: PwscfSettings, param: Param, root: Path) -> None:
        self.settings = settings
        self.type_map = list(param.type_map)
        self.masses = values.masses(param)
        old = settings.user_fp_params is None and settings.fp_params is not None
        self.key = "fp_params" if old else "user_fp_params"
        short = settings.fp_params.namelists() if settings.fp_params is not None else {}
        self.given: dict[str, Any] = settings.user_fp_params or short
        self.pseudos = root / os.path.expanduser(settings.fp_pp_path)  # noqa: PTH111

    def check(self, file: str, structures: Sequence[ase.Atoms]) -> list[Problem]:
        """Return what is wrong with namelists and pseudopotentials."""
        elements = {name for atoms in structures for name in atoms.get_chemical_symbols()}
        problems = potcar.check(file, self.type_map, self.pseudos, self.settings.fp_pp_files, "UPF", elements)
        given = self.given
        if not given:
            message = "is required but missing: the namelists of pw.x, and kspacing"
            return [*problems, Problem(file, "user_fp_params", message, "give control, system, electrons, kspacing")]
        for name, value in given.items():
            where = f"{self.key}.{name}"
            if name in NAMELISTS:
                if not isinstance(value, dict):
                    problems.append(Problem(file, where, "must be an object: the namelist's variables and values"))
            elif name != "kspacing":
                message = "is no namelist of pw.x"
                hint = f"one of {', '.join(NAMELISTS)}, or kspacing"
                problems.append(Problem(file, where, f"{message}: it is not used", hint, "warning"))
        for name in ("control", "system"):
            if name not in given:
                problems.append(Problem(file, f"{self.key}.{name}", "is missing: pw.x needs this namelist"))
        if "ecutwfc" not in _namelist(given, "system"):
            problems.append(Problem(file, f"{self.key}.system.ecutwfc", "is missing: the cutoff energy, Ry"))
        if _namelist(given, "control").get("calculation", "scf") != "scf":
            message = "a label is a single point"
            problems.append(Problem(file, f"{self.key}.control.calculation", message, 'write "scf"'))
        spacing = given.get("kspacing")
        if not _positive(spacing):
            message = f"must be a positive number (or three), not {spacing!r}"
            problems.append(Problem(file, f"{self.key}.kspacing", message, "for example 0.3 (1/A)"))
        return problems

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write the input of each frame."""
        tasks = []
        compositions: dict[str, dict[str, int]] = {}
        for frame in frames:
            atoms = values.in_type_map_order(frame.atoms, self.type_map)
            compositions[frame.task] = values.composition(atoms)
            present = values.species(atoms, self.type_map)
            write_if_different(folder / frame.task / INPUT, self.input(atoms))
            names = values.share(folder, frame.task, (self.pseudos / self._pseudo(element) for element in present))
            tasks.append(Task(frame.task, forward=(INPUT, *names), outputs=(OUTPUT,), result=(OUTPUT,)))
        return values.single_points(folder, tasks, compositions, self.read, OUTPUT, errors="fp.log")

    def _pseudo(self, element: str) -> str:
        return self.settings.fp_pp_files[self.type_map.index(element)]

    def _mass(self, element: str) -> float:
        return self.masses[self.type_map.index(element)]

    def input(self, atoms: ase.Atoms) -> str:
        """Return the input of one frame whose atoms are sorted by type_map; lengths in A."""
        given = self.given
        present = values.species(atoms, self.type_map)
        control = {
            "calculation": "scf",
            **_namelist(given, "control"),
            "pseudo_dir": "./",
            "tprnfor": True,
            "tstress": _namelist(given, "control").get("tstress", True),
        }
        fixed = {"ibrav": 0, "nat": len(atoms), "ntyp": len(present)}
        system = {**_namelist(given, "system"), **fixed}
        parts = [
            _render("control", control),
            _render("system", system),
            _render("electrons", _namelist(given, "electrons")),
        ]
        parts += [_render(name, _namelist(given, name)) for name in ("ions", "cell") if name in given]
        parts.append("ATOMIC_SPECIES")
        parts += [f"{name} {self._mass(name):f} {self._pseudo(name)}" for name in present]
        parts += ["", *_k_points(values.kpoints(atoms.cell.array, given["kspacing"])), ""]
        parts += ["CELL_PARAMETERS { angstrom }"]
        parts += [" ".join(f"{x:.12f}" for x in row) for row in atoms.cell.array]
        parts += ["", "ATOMIC_POSITIONS { angstrom }"]
        pairs = zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)
        parts += [f"{name} {x:.12f} {y:.12f} {z:.12f}" for name, (x, y, z) in pairs]
        return "\n".join(parts) + "\n"

    def read(self, folder: Path) -> Any:
        """Read one labelled frame.

        Raises
        ------
        NotConvergedError, ValueError
            There is no converged label.
        """
        output = folder / OUTPUT
        text = values.printed(output)
        if "convergence NOT achieved" in text:
            raise values.NotConvergedError("not converged: pw.x reached electron_maxstep")
        if "!    total energy" not in text:
            raise ValueError("pw.x printed no total energy")
        if "JOB DONE" not in text:
            raise ValueError("pw.x stopped before its end")
        return values.parse([str(folder / INPUT), str(output)], "qe/pw/scf")


def _k_points(mesh: Sequence[int]) -> list[str]:
    """Return the k points: Gamma alone, or a mesh that is shifted by half a step where its number is even."""
    if list(mesh) == [1, 1, 1]:
        return ["K_POINTS { gamma }"]
    return ["K_POINTS { automatic }", " ".join(str(n) for n in (*mesh, *(1 - n % 2 for n in mesh)))]


def _namelist(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = given.get(name, {})
    return dict(value) if isinstance(value, dict) else {}


def _render(name: str, variables: Mapping[str, Any]) -> str:
    """Return a Fortran namelist; every variable on its own line (dpdata reads ibrav only there)."""
    return "\n".join([f"&{name}", *(f"{key}={_value(item)}" for key, item in variables.items()), "/", ""])


def _value(item: Any) -> str:
    if isinstance(item, bool):
        return ".true." if item else ".false."
    if isinstance(item, str) and item.lower() not in (".true.", ".false."):
        return "'" + item.replace("'", "''") + "'"
    return str(item)


def _positive(spacing: Any) -> bool:
    numbers = spacing if isinstance(spacing, list) and len(spacing) == 3 else [spacing]
    return all(isinstance(n, int | float) and not isinstance(n, bool) and n > 0 for n in numbers)
