"""ABACUS: INPUT, STRU, KPT and the files of each element for each frame; its label from OUT.<suffix>."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any

import ase
from pydantic import Field, NonNegativeInt

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.dispatch.task import Batch, Task
from activelearn.errors import Problem, about_files
from activelearn.files import write_if_different
from activelearn.label import abacus_input, upf, values
from activelearn.label.abacus_input import PPORB
from activelearn.label.values import Picked

INPUT, STRU, KPT, OUTPUT = "INPUT", "STRU", "KPT", "output"
GAMMA = (1, 1, 1, 0, 0, 0)


class AbacusSettings(Settings):
    """Keys of param.json that concern ABACUS."""

    fp_pp_path: str
    """Folder of pseudopotentials, orbitals, descriptor and DeePKS model."""
    fp_pp_files: list[str]
    """One pseudopotential per element of type_map, in its order."""
    fp_orb_files: list[str] | None = None
    """One numerical orbital file per element of type_map, for basis_type lcao."""
    fp_incar: str | None = None
    """INPUT file; used where user_fp_params is not given."""
    user_fp_params: dict[str, Any] | None = None
    """Parameters of INPUT by name."""
    k_points: Annotated[list[NonNegativeInt], Field(min_length=6, max_length=6)] | None = None
    """Three numbers of k points and three shifts; not used with kspacing or gamma_only in INPUT."""
    fp_kpt_file: str | None = None
    """KPT file; used where neither INPUT nor k_points says which k points."""
    fp_dpks_descriptor: str | None = None
    """Descriptor file of DeePKS, in fp_pp_path."""


class Abacus:
    """Labels from ABACUS."""

    Settings = AbacusSettings

    def __init__(self, settings: AbacusSettings, param: Param, root: Path) -> None:
        self.settings = settings
        self.root = root
        self.type_map = list(param.type_map)
        self.masses = values.masses(param)
        self.folder = self._path(settings.fp_pp_path)
        self.key = "user_fp_params" if settings.user_fp_params is not None else "fp_incar"

    def _path(self, given: str) -> Path:
        return self.root / os.path.expanduser(given)  # noqa: PTH111

    def _given(self) -> Mapping[str, Any]:
        """Return the parameters of INPUT."""
        if self.settings.user_fp_params is not None:
            return self.settings.user_fp_params
        if self.settings.fp_incar is None:
            return {}
        return abacus_input.parsed(self._path(self.settings.fp_incar).read_text(errors="replace"))

    def check(self, file: str, structures: Sequence[ase.Atoms]) -> list[Problem]:
        """Return what is wrong with the parameters and the files."""
        settings = self.settings
        problems = []
        if settings.user_fp_params is None and settings.fp_incar is None:
            message = "is required but missing: the parameters of INPUT"
            problems.append(Problem(file, "user_fp_params", message, "or give fp_incar, an INPUT file"))
        incar = settings.fp_incar
        if settings.user_fp_params is None and incar is not None and not self._path(incar).is_file():
            message = f"{self._path(incar)} does not exist"
            missing = Problem(file, "fp_incar", message, "write INPUT there")
            return [*about_files([missing]), *self._pseudos(file, structures)]
        given = self._given()
        problems += abacus_input.problems(file, self.key, given)
        problems += self._pseudos(file, structures)
        if given.get("basis_type") == "lcao":
            if settings.fp_orb_files is None:
                message = "is required but missing: basis_type is lcao"
                problems.append(Problem(file, "fp_orb_files", message, "one orbital file per element of type_map"))
            else:
                problems += self._listed(file, "fp_orb_files", settings.fp_orb_files)
        if abacus_input.on(given, "deepks_out_labels") or abacus_input.on(given, "deepks_scf"):
            name = settings.fp_dpks_descriptor
            if name is None:
                problems.append(Problem(file, "fp_dpks_descriptor", "is required but missing: INPUT asks for DeePKS"))
            elif not (self.folder / name).is_file():
                missing = Problem(file, "fp_dpks_descriptor", f"{self.folder / name} does not exist")
                problems += about_files([missing])
        model = given.get("deepks_model")
        if model is not None and not (self.folder / PurePath(str(model)).name).is_file():
            message = f"{self.folder / PurePath(str(model)).name} does not exist"
            missing = Problem(file, f"{self.key}.deepks_model", message, "put the model into fp_pp_path")
            problems += about_files([missing])
        return [*problems, *self._mesh_problems(file, given)]

    def _mesh_problems(self, file: str, given: Mapping[str, Any]) -> Iterator[Problem]:
        settings = self.settings
        if "kspacing" in given or abacus_input.on(given, "gamma_only") or settings.k_points is not None:
            return
        if settings.fp_kpt_file is None:
            hint = "give kspacing in INPUT, k_points or fp_kpt_file"
            if "gamma_only" in given:
                yield Problem(file, "k_points", "is missing: nothing says which k points to use", hint)
            else:
                yield Problem(file, "k_points", "nothing says which k points to use: Gamma alone", hint, "warning")
        elif not self._path(settings.fp_kpt_file).is_file():
            missing = Problem(file, "fp_kpt_file", f"{self._path(settings.fp_kpt_file)} does not exist")
            yield from about_files([missing])

    def _listed(self, file: str, key: str, names: Sequence[str]) -> list[Problem]:
        if len(names) != len(self.type_map):
            message = f"{len(names)} files for {len(self.type_map)} elements of type_map"
            return [Problem(file, key, message, "list one file per element, in the order of type_map")]
        return about_files(
            Problem(file, f"{key}[{n}]", f"{self.folder / name} does not exist", f"put the file of {element} there")
            for n, (name, element) in enumerate(zip(names, self.type_map, strict=True))
            if not (self.folder / name).is_file()
        )

    def _pseudos(self, file: str, structures: Sequence[ase.Atoms]) -> list[Problem]:
        problems = self._listed(file, "fp_pp_files", self.settings.fp_pp_files)
        if problems:
            return problems
        present = {name for atoms in structures for name in atoms.get_chemical_symbols()}
        for n, (name, element) in enumerate(zip(self.settings.fp_pp_files, self.type_map, strict=True)):
            found = upf.element(self.folder / name) if element in present else None
            if found not in (None, element):
                message = f"{self.folder / name} is for {found}, but element {n} of type_map is {element}"
                problems.append(Problem(file, f"fp_pp_files[{n}]", message, "list the files in the order of type_map"))
        return about_files(problems)

    def _kpt(self, given: Mapping[str, Any]) -> str | None:
        """Return the text of KPT, None where ABACUS takes the mesh from kspacing."""
        if "kspacing" in given:
            return None
        if abacus_input.on(given, "gamma_only"):
            return abacus_input.kpt(GAMMA)
        if self.settings.k_points is not None:
            return abacus_input.kpt(self.settings.k_points)
        if self.settings.fp_kpt_file is not None:
            return self._path(self.settings.fp_kpt_file).read_text()
        return abacus_input.kpt(GAMMA)

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write the input files of each frame."""
        given = self._given()
        deck, mesh = abacus_input.text(given), self._kpt(given)
        out = f"OUT.{given.get('suffix', 'ABACUS')}"
        tasks = []
        compositions: dict[str, dict[str, int]] = {}
        for frame in frames:
            atoms = values.in_type_map_order(frame.atoms, self.type_map)
            compositions[frame.task] = values.composition(atoms)
            task = folder / frame.task
            write_if_different(task / INPUT, deck)
            if mesh is not None:
                write_if_different(task / KPT, mesh)
            files = self._write_stru(task / STRU, atoms, given)
            names = values.share(folder, frame.task, files, PPORB)
            inputs = (INPUT, STRU, *((KPT,) if mesh is not None else ()), *names)
            result = (f"{out}/running_scf.log",)
            tasks.append(Task(frame.task, forward=inputs, outputs=(OUTPUT, out), result=result))
        return values.single_points(
            folder, tasks, compositions, self.read, OUTPUT, errors="fp.log", before=f"rm -rf {out}"
        )

    def _write_stru(self, file: Path, atoms: ase.Atoms, given: Mapping[str, Any]) -> list[Path]:
        """Write STRU and return the files it and INPUT name."""
        settings = self.settings
        numbers = [self.type_map.index(name) for name in values.species(atoms, self.type_map)]
        pseudos = [settings.fp_pp_files[n] for n in numbers]
        lcao = given.get("basis_type") == "lcao" and settings.fp_orb_files is not None
        orbitals = [settings.fp_orb_files[n] for n in numbers] if lcao and settings.fp_orb_files else []
        deepks = abacus_input.on(given, "deepks_out_labels") or abacus_input.on(given, "deepks_scf")
        descriptor = settings.fp_dpks_descriptor if deepks else None
        temporary = file.with_name(f".{file.name}.new")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        values.to_dpdata(atoms, self.type_map).to(
            "abacus/stru",
            str(temporary),
            frame_idx=0,
            pp_file=[f"{PPORB}/{PurePath(name).name}" for name in pseudos],
            numerical_orbital=[f"{PPORB}/{PurePath(name).name}" for name in orbitals] or None,
            numerical_descriptor=f"{PPORB}/{PurePath(descriptor).name}" if descriptor else None,
            mass=[self.masses[n] for n in numbers],
        )
        write_if_different(file, temporary.read_text())
        temporary.unlink()
        model = given.get("deepks_model")
        named = [*pseudos, *orbitals, *([descriptor] if descriptor else [])]
        named += [PurePath(str(model)).name] if model is not None else []
        return [self.folder / name for name in dict.fromkeys(named)]

    def read(self, folder: Path) -> Any:
        """Read one labelled frame.

        Raises
        ------
        NotConvergedError, ValueError
            There is no converged label.
        """
        given = abacus_input.parsed((folder / INPUT).read_text(errors="replace"))
        log = folder / f"OUT.{given.get('suffix', 'ABACUS')}" / "running_scf.log"
        printed = values.printed(log).lower()
        if "convergence has not been achieved" in printed:
            raise values.NotConvergedError("not converged: ABACUS reached scf_nmax")
        return values.parse(str(folder), "abacus/scf")
