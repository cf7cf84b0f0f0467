"""VASP: POSCAR, INCAR, KPOINTS and POTCAR of each frame; OUTCAR, else vasprun.xml, of each label."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ase
from ase.io.vasp import write_vasp

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.dispatch.task import Batch, Task, Verdict
from activelearn.errors import Problem
from activelearn.files import relative_link, write_if_different
from activelearn.label import incar, potcar, values
from activelearn.label.values import Picked

LOG = "fp.log"


class VaspSettings(Settings):
    """Keys of param.json that concern VASP."""

    fp_pp_path: str
    """Folder of the POTCAR files."""
    fp_pp_files: list[str]
    """One POTCAR per element of type_map, in its order."""
    fp_incar: str
    """INCAR, used as it is; must have KSPACING and KGAMMA."""


class Vasp:
    """Labels from VASP."""

    Settings = VaspSettings

    def __init__(self, settings: VaspSettings, param: Param, root: Path) -> None:
        self.settings = settings
        self.type_map = list(param.type_map)
        self.potcars = root / os.path.expanduser(settings.fp_pp_path)  # noqa: PTH111
        self.incar = root / os.path.expanduser(settings.fp_incar)  # noqa: PTH111

    def check(self, file: str, structures: Sequence[ase.Atoms]) -> list[Problem]:
        """Return what is wrong with INCAR and POTCAR files."""
        elements = {name for atoms in structures for name in atoms.get_chemical_symbols()}
        problems = potcar.check(file, self.type_map, self.potcars, self.settings.fp_pp_files, "POTCAR", elements)
        if not self.incar.is_file():
            return [*problems, Problem(file, "fp_incar", f"{self.incar} does not exist", "write the INCAR there")]
        text = self.incar.read_text(errors="replace")
        return [*problems, *incar.check(file, "fp_incar", text, self.type_map)]

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write the four input files of each frame; frames of one composition share a POTCAR."""
        text = self.incar.read_text()
        tags = incar.tags(text)
        tasks = []
        compositions: dict[str, dict[str, int]] = {}
        for frame in frames:
            atoms = values.in_type_map_order(frame.atoms, self.type_map)
            counts = values.composition(atoms)
            compositions[frame.task] = counts
            task = folder / frame.task
            task.mkdir(parents=True, exist_ok=True)
            _write_poscar(task / "POSCAR", atoms)
            write_if_different(task / "INCAR", incar.with_magmom(text, counts, self.type_map))
            mesh = values.kpoints(atoms.cell.array, incar.spacing(tags) or 0.5)
            write_if_different(task / "KPOINTS", _kpoints(mesh, incar.gamma(tags) is not False))
            present = values.species(atoms, self.type_map)
            shared = folder / f"POTCAR.{'-'.join(present)}"
            write_if_different(shared, "".join(self._potcar(name) for name in present))
            relative_link(task / "POTCAR", shared)
            tasks.append(
                Task(
                    frame.task,
                    forward=("POSCAR", "INCAR", "KPOINTS", "POTCAR"),
                    outputs=("OUTCAR", "vasprun.xml"),
                    result=("OUTCAR", "vasprun.xml"),
                )
            )
        return Batch(
            folder=folder,
            tasks=tuple(tasks),
            script=lambda command, _: f"rm -f OUTCAR vasprun.xml\n{command}",
            verify=lambda task, code: self._verify(folder / task.name, compositions[task.name], code),
            log=LOG,
            what="label",
        )

    def _potcar(self, element: str) -> str:
        text = (self.potcars / self.settings.fp_pp_files[self.type_map.index(element)]).read_text(errors="replace")
        return text if text.endswith("\n") else text + "\n"

    def _verify(self, folder: Path, counts: dict[str, int], code: int | None) -> Verdict:
        return values.verdict(self.read, folder, counts, code, LOG)

    def read(self, folder: Path) -> Any:
        """Read OUTCAR, or vasprun.xml where OUTCAR cannot be read, as one labelled frame.

        Raises
        ------
        NotConvergedError, ValueError
            There is no converged label.
        """
        reasons = []
        for name, fmt in (("OUTCAR", "vasp/outcar"), ("vasprun.xml", "vasp/xml")):
            file = folder / name
            if not file.is_file() or file.stat().st_size == 0:
                reasons.append(f"{name} was not written")
                continue
            try:
                return values.parse(str(file), fmt)
            except values.NotConvergedError:
                raise values.NotConvergedError(f"not converged: {name} reached NELM electronic steps") from None
            except ValueError as error:
                if fmt == "vasp/xml" and _ended(file):  # dpdata leaves out what did not converge, without a word
                    raise values.NotConvergedError(f"not converged: {name} reached NELM electronic steps") from None
                reasons.append(f"{name}: {error}")
        raise ValueError("; ".join(reasons))


def _ended(xml: Path) -> bool:
    """Return whether VASP wrote a calculation and came to its end."""
    text = xml.read_text(errors="replace")
    return "<calculation>" in text and text.rstrip().endswith("</modeling>")


def _write_poscar(file: Path, atoms: ase.Atoms) -> None:
    """Write Cartesian coordinates of atoms that are sorted by element."""
    temporary = file.with_suffix(".new")
    write_vasp(str(temporary), atoms, direct=False, sort=False, vasp5=True)
    write_if_different(file, temporary.read_text())
    temporary.unlink()


def _kpoints(mesh: Sequence[int], gamma: bool) -> str:
    scheme = "Gamma" if gamma else "Monkhorst-Pack"
    return f"Automatic mesh\n0\n{scheme}\n{mesh[0]} {mesh[1]} {mesh[2]}\n0 0 0\n"
