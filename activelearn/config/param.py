"""The keys of param.json that all engines share; an engine declares its own in its own file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt

from activelearn.config.base import Settings
from activelearn.config.clusters import Clusters
from activelearn.config.selection import JobSelection, Selection
from activelearn.errors import Problem

BatchSize = PositiveInt | Literal["auto"]
"""A number of frames, or "auto"."""


def _number_as_list(value: object) -> object:
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _word_as_list(value: object) -> object:
    return [value] if isinstance(value, str | int | float) else value


Value = int | float | str | bool
"""What a word of a template is replaced by."""

Temperature = Annotated[float, Field(gt=0)]
ElectronTemperature = tuple[Temperature, Temperature]
"""Temperature of the ions and of the electrons, K."""


class Template(Settings):
    """Input files that the user wrote."""

    lmp: str
    """LAMMPS input with a line `pair_style deepmd` and a line `dump dpgen_dump`, which are filled in."""
    plm: str | None = None
    """PLUMED input, for model_devi_plumed."""
    plm_path: str | None = None
    """Reference path (PDB), for model_devi_plumed_path; the task finds it as plmpath.pdb."""


class Revision(Settings):
    """Words of template files and their values."""

    lmp: dict[str, Annotated[list[Value], BeforeValidator(_word_as_list), Field(min_length=1)]] = {}
    """Words of the LAMMPS template; the PLUMED template may use them too."""
    plm: dict[str, Annotated[list[Value], BeforeValidator(_word_as_list), Field(min_length=1)]] = {}
    """Words of the PLUMED template."""


def _all_auto(value: object) -> object:
    return None if value == "auto" else value


BatchSizes = Annotated[list[BatchSize] | None, BeforeValidator(_all_auto)]
"""A batch size for each system, or "auto" for all."""


class ExplorationJob(JobSelection):
    """One entry of model_devi_jobs: what one iteration explores."""

    sys_idx: Annotated[list[NonNegativeInt], BeforeValidator(_number_as_list), Field(min_length=1)]
    """Which entries of sys_configs to start from."""
    temps: Annotated[list[Temperature | ElectronTemperature], BeforeValidator(_number_as_list)] = []
    """Temperatures, K; with use_ele_temp an entry may be [temperature, electron temperature]."""
    press: Annotated[list[float], BeforeValidator(_number_as_list)] | None = None
    """Pressures, bar; only the npt ensembles use them."""
    trj_freq: PositiveInt
    """Steps between two frames of trajectory and model deviation."""
    nsteps: PositiveInt | None = None
    """MD steps."""
    ensemble: Literal["nve", "nvt", "npt", "npt-i", "npt-iso", "npt-a", "npt-aniso", "npt-t", "npt-tri"] | None = None
    """Thermodynamic ensemble; npt-i(so): one box length, npt-a(niso): three, npt-t(ri): three and the angles."""
    dt: Annotated[float, Field(gt=0)] | None = None
    """MD time step of this iteration, ps; else model_devi_dt."""
    taut: Annotated[float, Field(gt=0)] | None = None
    """Relaxation time of the thermostat, ps; else model_devi_taut."""
    taup: Annotated[float, Field(gt=0)] | None = None
    """Relaxation time of the barostat, ps; else model_devi_taup."""
    neidelay: NonNegativeInt | None = None
    """Steps without a new neighbour list after each new one; else model_devi_neidelay."""
    nbeads: PositiveInt | None = None
    """Beads of path-integral MD, each on a process of its own; without: classical MD."""
    pka_e: Annotated[float, Field(gt=0)] | None = None
    """Kinetic energy of a recoil, eV: the first atom starts with it in a random direction, all others at rest."""
    template: Template | None = None
    """The user's own input files, in place of temps, press, nsteps and ensemble."""
    rev_mat: Revision = Revision()
    """Words of the template files and the values they are replaced by: one task for each combination."""
    sys_rev_mat: dict[str, Revision] = {}
    """The same for single entries of sys_configs, {"sys_idx": ...}; combined with rev_mat."""
    skip_training: bool = False
    """Do not train on what this iteration labels: the next one goes on with its models."""


class Own(Settings):
    """The object `_activelearn`: settings DP-GEN does not have (it drops keys that start with `_`)."""

    seed: NonNegativeInt = 1
    """All randomness of the run follows from this number."""
    validation_data_sys: list[str] = []
    """Labelled systems the models are tested on and never trained on (relative to init_data_prefix)."""
    health: bool = True
    """Reject frames of exploded or overlapping cells; false is DP-GEN's classification."""
    max_jobs: PositiveInt | None = None
    """Most jobs of one stage in a queue at the same time; on a shell machine the cores are the limit."""


class Param(Selection, Clusters):
    """The keys of param.json that all engines share."""

    type_map: Annotated[list[str], Field(min_length=1)]
    """Elements, in the order that all data and input files use."""
    use_ele_temp: Literal[0, 1, 2] = 0
    """Electron temperature as a parameter of the models: 0 none, 1 of the frame (fparam), 2 of each atom (aparam)."""
    mass_map: list[Annotated[float, Field(gt=0)]] | Literal["auto"] = "auto"
    """Atomic masses in the order of type_map, u; "auto": standard atomic weights."""
    init_data_prefix: str = ""
    """Folder that init_data_sys is relative to."""
    init_data_sys: Annotated[list[str], Field(min_length=1)]
    """Initial labelled data: folders (deepmd/npy, also mixed) or HDF5 files (`FILE` or `FILE#/GROUP`), searched for
    nested systems."""
    init_batch_size: BatchSizes = None
    """Training batch size of each entry of init_data_sys; "auto": at least 32 atoms."""
    sys_configs_prefix: str = ""
    """Folder that sys_configs is relative to."""
    sys_configs: Annotated[list[Annotated[list[str], Field(min_length=1)]], Field(min_length=1)]
    """Starting structures: for each system a list of file patterns."""
    sys_format: str = "vasp/poscar"
    """Format of the starting structures, as dpdata calls it."""
    sys_batch_size: BatchSizes = None
    """Training batch size of the new data of each entry of sys_configs."""
    model_devi_jobs: list[ExplorationJob]
    """One entry per iteration."""
    model_devi_engine: str = "lammps"
    """Explorer."""
    model_devi_clean_traj: bool | NonNegativeInt = True
    """Delete the trajectories of an iteration when it is recorded; a number keeps those of the last N iterations."""
    fp_style: str
    """Labeler."""
    ratio_failed: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of failed labels above which the run stops (for you to look at them)."""
    activelearn: Own = Field(default=Own(), alias="_activelearn")
    """Settings DP-GEN does not have."""

    def batch_size(self, key: str, place: int) -> int | str:
        """Return the training batch size of one entry of init_data_sys or sys_configs."""
        sizes = getattr(self, key)
        return sizes[place] if sizes is not None and place < len(sizes) else "auto"

    def problems(self, file: str) -> Iterator[Problem]:
        """Yield what contradicts itself, without looking at any file."""
        n_systems = len(self.sys_configs)
        for name in {n for n in self.type_map if self.type_map.count(n) > 1}:
            yield Problem(file, "type_map", f"{name} is listed twice", "list each element once")
        if isinstance(self.mass_map, list) and len(self.mass_map) != len(self.type_map):
            yield Problem(
                file,
                "mass_map",
                f"{len(self.mass_map)} masses for {len(self.type_map)} elements of type_map",
                'write one mass per element, or "auto"',
            )
        for key, sizes, owner, n in (
            ("init_batch_size", self.init_batch_size, "init_data_sys", len(self.init_data_sys)),
            ("sys_batch_size", self.sys_batch_size, "sys_configs", n_systems),
        ):
            if sizes is not None and len(sizes) != n:
                what = "those that are missing are auto" if len(sizes) < n else "the last ones are not used"
                message = f"{len(sizes)} entries for {n} of {owner}: {what}"
                yield Problem(file, key, message, f"write one per entry of {owner}, or leave it out", "warning")
        if self.use_ele_temp and self.fp_style != "vasp":
            message = f"fp_style {self.fp_style} has no electron temperature"
            yield Problem(file, "use_ele_temp", message, 'write 0, or "fp_style": "vasp"')
        yield from self.selection_problems(file, n_systems)
        yield from self.cluster_problems(file, self.fp_style, self.type_map)
        seen: set[str] = set()
        for place, job in enumerate(self.model_devi_jobs):
            for problem in self._job_problems(file, f"model_devi_jobs[{place}]", job, n_systems):
                told = problem.message.replace(f"model_devi_jobs[{place}]", "")
                if told not in seen:
                    seen.add(told)
                    yield problem

    def _job_problems(self, file: str, where: str, job: ExplorationJob, n_systems: int) -> Iterator[Problem]:
        for system in job.sys_idx:
            if system >= n_systems:
                yield Problem(
                    file,
                    f"{where}.sys_idx",
                    f"there is no system {system}: sys_configs has {n_systems}",
                    f"count from 0: the last is {n_systems - 1}",
                )
        for system in {s for s in job.sys_idx if job.sys_idx.count(s) > 1}:
            yield Problem(file, f"{where}.sys_idx", f"system {system} is listed twice", "list each system once")
        for key in ("temps", "ensemble", "nsteps") if job.template is None else ():
            if not getattr(job, key):
                yield Problem(file, f"{where}.{key}", "is required but missing", "or give a template")
        for entry in job.temps if not self.use_ele_temp else ():
            if isinstance(entry, tuple):
                message = f"{list(entry)} is a temperature and an electron temperature, but use_ele_temp is 0"
                yield Problem(file, f"{where}.temps", message, "set use_ele_temp, or give numbers")
        if "npt" in (job.ensemble or "") and not job.press and job.template is None:
            yield Problem(
                file, f"{where}.press", f"ensemble {job.ensemble} needs pressures", 'for example "press": [1.0]'
            )
        if job.nsteps is not None and job.nsteps < job.trj_freq and job.template is None:
            yield Problem(
                file, f"{where}.nsteps", f"{job.nsteps} steps, but a frame only every {job.trj_freq}", "lower trj_freq"
            )
        explored = [system for system in job.sys_idx if system < n_systems]
        yield from self.job_problems(file, where, job, explored, n_systems)
