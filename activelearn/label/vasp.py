"""VASP: POSCAR, INCAR, KPOINTS and POTCAR of each frame; OUTCAR, else vasprun.xml, of each label."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import ase
from ase.io.vasp import write_vasp
from pydantic import Field, PositiveFloat

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.dispatch.task import Batch, Task
from activelearn.errors import Problem, about_files
from activelearn.files import relative_link, write_if_different
from activelearn.label import cvasp, ele_temp, incar, params, potcar, values
from activelearn.label.params import ShortVasp
from activelearn.label.values import Picked

LOG = "fp.log"


class VaspSettings(Settings):
    """Keys of param.json that concern VASP."""

    fp_pp_path: str
    """Folder of the POTCAR files."""
    fp_pp_files: list[str]
    """One POTCAR per element of type_map, in its order."""
    fp_incar: str | None = None
    """INCAR, used as it is; must have KSPACING and KGAMMA."""
    user_fp_params: dict[str, Any] | None = None
    """INCAR tags by name; used where fp_incar is not given."""
    fp_params: ShortVasp | None = None
    """Old short form of the INCAR; used where neither of the others is given."""
    fp_aniso_kspacing: Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)] | None = None
    """Distance of k points along each reciprocal vector, 1/A; instead of KSPACING of the INCAR."""
    cvasp: bool = False
    """Give each task cvasp.py, which runs VASP under Custodian; `fp.command` of machine.json must call it."""
    fp_nbands_esti_data: str | list[str] | None = None
    """With electron temperatures, what NBANDS is estimated from: folders of VASP runs, or a file with two numbers."""


class Vasp:
    """Labels from VASP."""

    Settings = VaspSettings

    def __init__(self, settings: VaspSettings, param: Param, root: Path) -> None:
        self.settings = settings
        self.type_map = list(param.type_map)
        self.potcars = root / os.path.expanduser(settings.fp_pp_path)  # noqa: PTH111
        self.root = root
        self.incar = root / os.path.expanduser(settings.fp_incar) if settings.fp_incar else None  # noqa: PTH111
        names = {"fp_incar": self.incar, "user_fp_params": settings.user_fp_params, "fp_params": settings.fp_params}
        self.key = next((key for key, value in names.items() if value is not None), "fp_incar")
        self.hot = param.use_ele_temp > 0

    def check(self, file: str, structures: Sequence[ase.Atoms]) -> list[Problem]:
        """Return what is wrong with INCAR and POTCAR files."""
        elements = {name for atoms in structures for name in atoms.get_chemical_symbols()}
        problems = potcar.check(file, self.type_map, self.potcars, self.settings.fp_pp_files, "POTCAR", elements)
        if self.incar is not None and not self.incar.is_file():
            missing = Problem(file, "fp_incar", f"{self.incar} does not exist", "write the INCAR there")
            return [*problems, *about_files([missing])]
        text = self._incar()
        if not text:
            message = "is required but missing: the INCAR"
            return [*problems, Problem(file, self.key, message, "give an INCAR file (or its tags as user_fp_params)")]
        aniso = self.settings.fp_aniso_kspacing is not None
        found = incar.check(file, self.key, text, self.type_map, needs_spacing=not aniso)
        problems += about_files(found) if self.incar is not None else found
        if self.hot and self.settings.fp_nbands_esti_data is not None:
            try:
                self._bands()
            except (OSError, ValueError, IndexError) as error:
                problems += about_files([Problem(file, "fp_nbands_esti_data", f"cannot be used: {error}")])
        return problems

    def _incar(self) -> str:
        """Return the INCAR all frames share."""
        if self.incar is not None:
            return self.incar.read_text(errors="replace")
        if self.settings.user_fp_params is not None:
            return params.text(self.settings.user_fp_params)
        return params.text(self.settings.fp_params.tags()) if self.settings.fp_params is not None else ""

    def _bands(self) -> ele_temp.Bands | None:
        given = self.settings.fp_nbands_esti_data
        if given is None:
            return None
        paths = [self.root / os.path.expanduser(one) for one in ([given] if isinstance(given, str) else given)]  # noqa: PTH111
        return ele_temp.bands(paths[0] if isinstance(given, str) else paths)

    def _hot(self, text: str, temperature: float, atoms: ase.Atoms, bands: ele_temp.Bands | None) -> str:
        """Return the INCAR for an electron temperature (K)."""
        new = ele_temp.smearing(temperature)
        if bands is not None:
            present = values.species(atoms, self.type_map)
            counts = values.composition(atoms)
            electrons = [z for name in present for z in ele_temp.valence(self._potcar(name))]
            default = ele_temp.default_bands([counts[name] for name in present], electrons)
            new["NBANDS"] = str(bands.estimate(temperature, float(atoms.cell.volume), default))
        return incar.with_tags(text, new)

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write the four input files of each frame; frames of one composition share a POTCAR."""
        text = self._incar()
        tags = incar.tags(text)
        spacing = self.settings.fp_aniso_kspacing or incar.spacing(tags) or 0.5
        bands = self._bands() if self.hot else None
        extra = ("cvasp.py",) if self.settings.cvasp else ()
        tasks = []
        compositions: dict[str, dict[str, int]] = {}
        for frame in frames:
            atoms = values.in_type_map_order(frame.atoms, self.type_map)
            counts = values.composition(atoms)
            compositions[frame.task] = counts
            task = folder / frame.task
            task.mkdir(parents=True, exist_ok=True)
            _write_poscar(task / "POSCAR", atoms)
            own = incar.with_magmom(text, counts, self.type_map)
            if self.hot and ele_temp.CONDITION in frame.conditions:
                own = self._hot(own, frame.conditions[ele_temp.CONDITION], atoms, bands)
            write_if_different(task / "INCAR", own)
            mesh = values.kpoints(atoms.cell.array, spacing)
            write_if_different(task / "KPOINTS", _kpoints(mesh, incar.gamma(tags) is not False))
            present = values.species(atoms, self.type_map)
            shared = folder / f"POTCAR.{'-'.join(present)}"
            write_if_different(shared, "".join(self._potcar(name) for name in present))
            relative_link(task / "POTCAR", shared)
            for name in extra:
                write_if_different(task / name, Path(cvasp.__file__).read_text())
            tasks.append(
                Task(
                    frame.task,
                    forward=("POSCAR", "INCAR", "KPOINTS", "POTCAR", *extra),
                    outputs=("OUTCAR", "vasprun.xml"),
                    result=("OUTCAR", "vasprun.xml"),
                )
            )
        return values.single_points(folder, tasks, compositions, self.read, LOG, before="rm -f OUTCAR vasprun.xml")

    def _potcar(self, element: str) -> str:
        parts = [part for name in self.settings.fp_pp_files for part in potcar.datasets(self.potcars / name)]
        return parts[self.type_map.index(element)]

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
                empty = isinstance(error, values.NoFrameError)
                if empty and fmt == "vasp/xml" and _ended(file):  # dpdata leaves out what did not converge in silence
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
