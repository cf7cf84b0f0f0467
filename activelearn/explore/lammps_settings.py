"""The keys of param.json that concern exploration with LAMMPS, and what contradicts itself in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from activelearn.config.base import Settings
from activelearn.config.param import ExplorationJob, Param
from activelearn.config.selection import OFF
from activelearn.errors import Problem


class Dispersion(Settings):
    """D3 dispersion correction in LAMMPS (pair_style dispersion/d3)."""

    enable: bool
    """Whether to add it."""
    damping_function: Literal["original", "zero", "zerom", "bj", "bjm"]
    """Damping at short distance."""
    functional: str
    """Exchange-correlation functional the correction is made for, as LAMMPS calls it."""
    cutoff: Annotated[float, Field(gt=0)]
    """Cutoff radius, A."""
    cn_cutoff: Annotated[float, Field(gt=0)]
    """Cutoff radius of the coordination numbers, A."""


class LammpsSettings(Settings):
    """Keys of param.json that concern exploration with LAMMPS."""

    model_devi_dt: Annotated[float, Field(gt=0)]
    """MD time step, ps."""
    model_devi_taut: Annotated[float, Field(gt=0)] = 0.1
    """Relaxation time of the thermostat, ps."""
    model_devi_taup: Annotated[float, Field(gt=0)] = 0.5
    """Relaxation time of the barostat, ps."""
    model_devi_neidelay: NonNegativeInt | None = None
    """Steps without a new neighbour list after each new one; without: LAMMPS's default."""
    model_devi_nopbc: bool = False
    """Isolated systems: no periodic boundaries."""
    model_devi_merge_traj: bool = True
    """One trajectory file per task; false: one file per frame."""
    model_devi_plumed: bool = False
    """Bias the MD with PLUMED: templates have `fix dpgen_plm` and `template.plm`."""
    model_devi_plumed_path: bool = False
    """PLUMED reads a reference path too: `template.plm_path`, as plmpath.pdb."""
    model_devi_f_avg_relative: bool = False
    """Divide force deviations by the root mean square force of their trajectory; the trust levels have no unit then."""
    use_clusters: bool = False
    """Write the force deviation of each atom, which cluster_cutoff selects by."""
    use_relative: bool = False
    """Relative force deviation of each atom: divided by its force plus epsilon."""
    epsilon: Annotated[float, Field(gt=0)] | None = None
    """Level parameter of use_relative, eV/A."""
    use_relative_v: bool = False
    """Relative virial deviation: divided by the virial plus epsilon_v."""
    epsilon_v: Annotated[float, Field(gt=0)] | None = None
    """Level parameter of use_relative_v, eV."""
    lmp_d3: Dispersion | None = None
    """Add a D3 dispersion correction to the models."""
    lmp_neigh_modify_one: PositiveInt | None = None
    """Most neighbours of one atom LAMMPS makes room for."""
    shuffle_poscar: bool = False
    """Permute the positions of the starting structures, that is, which element sits where."""

    @property
    def d3(self) -> Dispersion | None:
        """The dispersion correction, None where it is switched off."""
        return self.lmp_d3 if self.lmp_d3 is not None and self.lmp_d3.enable else None

    def problems(self, file: str) -> Iterator[Problem]:
        """Yield what contradicts itself."""
        if not 1e-5 <= self.model_devi_dt <= 0.01:
            message = f"a time step of {self.model_devi_dt} ps is unusual"
            yield Problem(file, "model_devi_dt", message, "the unit is ps: 0.002 is 2 fs", "warning")
        for switch, level in (("use_relative", "epsilon"), ("use_relative_v", "epsilon_v")):
            if getattr(self, switch) and getattr(self, level) is None:
                yield Problem(file, level, f"is required but missing: {switch} is true", f'for example "{level}": 1.0')
        if self.model_devi_f_avg_relative and self.use_relative:
            message = "deviations relative to the atom's own force (use_relative) are divided by the mean force again"
            yield Problem(file, "model_devi_f_avg_relative", message, "use one of the two", "warning")
        if self.model_devi_plumed_path and not self.model_devi_plumed:
            message = "has no effect: model_devi_plumed is false"
            yield Problem(file, "model_devi_plumed_path", message, "set model_devi_plumed", "warning")

    def cluster_problems(self, file: str, param: Param) -> Iterator[Problem]:
        """Yield what does not go with the choice between frames and atoms as candidates."""
        if not param.by_atom:
            if self.use_clusters:
                message = "has no effect without cluster_cutoff: whole frames are labelled"
                yield Problem(file, "use_clusters", message, "give cluster_cutoff, or remove it", "warning")
            return
        if not self.use_clusters:
            message = "is not true, but cluster_cutoff selects by the deviations of single atoms"
            yield Problem(file, "use_clusters", message, "write true, or remove cluster_cutoff")
        if param.model_devi_adapt_trust_lo:
            message = "cannot be used with cluster_cutoff: it ranks frames, not atoms"
            yield Problem(file, "model_devi_adapt_trust_lo", message, "set it to false, or remove cluster_cutoff")
        if self.model_devi_f_avg_relative:
            message = "has no effect with cluster_cutoff: deviations of single atoms are not divided"
            yield Problem(file, "model_devi_f_avg_relative", message, "set it to false", "warning")
        if isinstance(param.model_devi_v_trust_lo, float) and param.model_devi_v_trust_lo < OFF:
            message = "has no effect with cluster_cutoff: atoms have no virial deviation"
            yield Problem(file, "model_devi_v_trust_lo", message, "remove it", "warning")

    def job_problems(self, file: str, where: str, job: ExplorationJob) -> Iterator[Problem]:
        """Yield what is wrong with the job called `where`."""
        ensemble = job.ensemble or ""
        native = job.template is None
        if native and self.model_devi_nopbc and "npt" in ensemble:
            message = f"{ensemble} needs a periodic cell, but model_devi_nopbc is true"
            yield Problem(file, f"{where}.ensemble", message, "use nvt or nve")
        if job.dt is not None and not 1e-5 <= job.dt <= 0.01:
            message = f"a time step of {job.dt} ps is unusual"
            yield Problem(file, f"{where}.dt", message, "the unit is ps: 0.002 is 2 fs", "warning")
        if native and (job.rev_mat != type(job.rev_mat)() or job.sys_rev_mat):
            message = "rev_mat and sys_rev_mat have no effect without a template"
            yield Problem(file, f"{where}.rev_mat", message, "give template.lmp", "warning")
        if native and self.model_devi_plumed:
            message = "model_devi_plumed is true, but this job has no template: it runs without PLUMED"
            yield Problem(file, where, message, "give template.lmp and template.plm", "warning")
        if job.nbeads is None:
            return
        if not native:
            message = "path-integral MD cannot be run from a template: all beads would write into the same files"
            yield Problem(file, f"{where}.nbeads", message, "remove template or nbeads")
        if ensemble in ("npt-t", "npt-tri"):
            message = f"path-integral MD has no ensemble {ensemble}"
            yield Problem(file, f"{where}.ensemble", message, "there are nve, nvt, npt, npt-i, npt-a")
        if self.model_devi_f_avg_relative:
            message = "model_devi_f_avg_relative is not for path-integral MD"
            yield Problem(file, f"{where}.nbeads", message, "set model_devi_f_avg_relative to false")
