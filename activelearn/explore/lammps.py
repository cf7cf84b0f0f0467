"""Molecular dynamics with LAMMPS: one task per starting structure x temperature x pressure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import ase
import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray
from pydantic import Field

from activelearn.config.base import Settings
from activelearn.config.param import ExplorationJob, Param
from activelearn.data import deviation, frames, structures
from activelearn.dispatch.task import KILLED, Batch, Failure, Retry, Task, Verdict
from activelearn.errors import Problem
from activelearn.explore import lammps_input
from activelearn.explore.values import Exploration, Run
from activelearn.files import relative_link, write_if_different
from activelearn.log import tail

LOG = "model_devi.log"
DEVIATION = "model_devi.out"

_SCRIPT = """\
mkdir -p traj
step=
for file in dpgen.restart.*; do
    [ -s "$file" ] || continue
    number=${file##*.}
    if [ -z "$step" ] || [ "$number" -gt "$step" ]; then step=$number; fi
done
if [ -n "$step" ] && [ "$step" = "$(cat al.restarted 2>/dev/null)" ]; then
    # this restart file was tried and brought us no further: go back to the one before
    rm -f "dpgen.restart.$step"
    step=
    for file in dpgen.restart.*; do
        [ -s "$file" ] || continue
        number=${file##*.}
        if [ -z "$step" ] || [ "$number" -gt "$step" ]; then step=$number; fi
    done
fi
if [ -n "$step" ]; then
    # rows and frames from this step on will be written again
    echo "$step" > al.restarted
    if [ -f model_devi.out ]; then
        awk -v s="$step" '/^#/ || $1 + 0 < s' model_devi.out > al.new && mv al.new model_devi.out
    fi
    if [ -f all.lammpstrj ]; then
        awk -v s="$step" '/^ITEM: TIMESTEP/ { if ((getline t) <= 0) exit; keep = (t + 0 < s)
            if (keep) { print; print t }; next } keep' all.lammpstrj > al.new && mv al.new all.lammpstrj
    fi
    restart=1
else
    rm -f model_devi.out all.lammpstrj log.lammps traj/*.lammpstrj
    restart=0
fi
"""


class LammpsSettings(Settings):
    """Keys of param.json that concern exploration with LAMMPS."""

    model_devi_dt: Annotated[float, Field(gt=0)]
    """MD time step, ps."""
    model_devi_nopbc: bool = False
    """Isolated systems: no periodic boundaries."""
    model_devi_merge_traj: bool = True
    """One trajectory file per task; false: one file per frame."""
    shuffle_poscar: bool = False
    """Permute the positions of the starting structures, that is, which element sits where."""


class Lammps:
    """Exploration with `lmp`."""

    Settings = LammpsSettings

    def __init__(self, settings: LammpsSettings, param: Param) -> None:
        self.settings = settings
        self.param = param

    def check(self, file: str) -> list[Problem]:
        """Return what is wrong with the settings: unknown elements, npt without a periodic cell."""
        problems = []
        unknown = [name for name in self.param.type_map if name not in atomic_numbers]
        if unknown:
            problems.append(
                Problem(file, "type_map", f"{', '.join(unknown)}: no such element", "write chemical symbols")
            )
        for place, job in enumerate(self.param.model_devi_jobs):
            if self.settings.model_devi_nopbc and "npt" in job.ensemble:
                where = f"model_devi_jobs[{place}].ensemble"
                message = f"{job.ensemble} needs a periodic cell, but model_devi_nopbc is true"
                problems.append(Problem(file, where, message, "use nvt or nve"))
        if not 1e-5 <= self.settings.model_devi_dt <= 0.01:
            message = f"a time step of {self.settings.model_devi_dt} ps is unusual"
            problems.append(Problem(file, "model_devi_dt", message, "the unit is ps: 0.002 is 2 fs", "warning"))
        return problems

    def count(self, job: ExplorationJob, n_structures: int) -> tuple[int, int]:
        """Return how many tasks and frames one system with so many structures will give."""
        tasks = n_structures * len(job.temps) * len(_pressures(job))
        return tasks, tasks * (job.nsteps // job.trj_freq + 1)

    def masses(self) -> list[float]:
        """Return the masses in the order of type_map, u."""
        if self.param.mass_map == "auto":
            return [float(atomic_masses[atomic_numbers[name]]) for name in self.param.type_map]
        return list(self.param.mass_map)

    def batch(
        self, exploration: Exploration, rng: Callable[[str], np.random.Generator]
    ) -> tuple[Batch, dict[str, Run]]:
        """Write structures and decks; return the tasks and, by name, what each will be.

        Tasks of a system are numbered in the order structures, temperatures, pressures.

        Parameters
        ----------
        exploration
            Starting structures, models and job.
        rng
            Gives the generator that belongs to a name.
        """
        folder, job = exploration.folder, exploration.job
        for name, model in zip(exploration.graph_names, exploration.models, strict=True):
            relative_link(folder / name, model)
        tasks: list[Task] = []
        runs: dict[str, Run] = {}
        for start in exploration.starts:
            number = 0
            for structure, file in enumerate(start.files):
                conf = self._conf(folder / "confs" / f"{start.system:03d}.{structure:04d}.lmp", file, rng)
                for temperature in job.temps:
                    for pressure in _pressures(job):
                        name = f"task.{start.system:03d}.{number:06d}"
                        number += 1
                        key = f"{start.system} {file.name} {structure} {temperature} {pressure}"
                        self._deck(exploration, name, temperature, pressure, int(rng(key).integers(1, 10**6)))
                        relative_link(folder / name / "conf.lmp", conf)
                        tasks.append(self._task(name))
                        held = {"temperature": temperature}
                        if pressure is not None:
                            held["pressure"] = pressure
                        path = f"{folder.parent.name}/{folder.name}/{name}"
                        runs[name] = Run(path, start.system, held, 0)
        batch = Batch(
            folder=folder,
            tasks=tuple(tasks),
            script=_script,
            verify=lambda task, code: self.verify(folder / task.name, code),
            salvage=lambda task, code: self.salvage(folder / task.name, code),
            log=LOG,
            common=exploration.graph_names,
            what="MD task",
        )
        return batch, runs

    def _conf(self, target: Path, file: Path, rng: Callable[[str], np.random.Generator]) -> Path:
        """Write one starting structure as LAMMPS data."""
        system = structures.read(file, self.param.sys_format, list(self.param.type_map))
        if self.settings.model_devi_nopbc:
            system.remove_pbc()  # a box with room around the atoms, as in DP-GEN
        if self.settings.shuffle_poscar:
            system.data["coords"] = rng(f"shuffle {target.name}").permutation(system["coords"], axis=1)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".new")
        system.to("lammps/lmp", str(temporary), frame_idx=0)
        write_if_different(target, temporary.read_text())
        temporary.unlink()
        return target

    def _deck(self, exploration: Exploration, name: str, temperature: float, pressure: float | None, seed: int) -> None:
        job = exploration.job
        conditions = lammps_input.Conditions(
            ensemble=job.ensemble,
            nsteps=job.nsteps,
            trj_freq=job.trj_freq,
            timestep=self.settings.model_devi_dt,
            temperature=temperature,
            pressure=pressure,
            seed=seed,
            periodic=not self.settings.model_devi_nopbc,
            merged=self.settings.model_devi_merge_traj,
        )
        graphs = [f"../{graph}" for graph in exploration.graph_names]
        text = lammps_input.render(graphs, self.masses(), self.param.type_map, conditions)
        write_if_different(exploration.folder / name / "input.lammps", text)

    def _task(self, name: str) -> Task:
        trajectory = frames.MERGED if self.settings.model_devi_merge_traj else f"{frames.SINGLE}/*.lammpstrj"
        return Task(
            name=name,
            forward=("input.lammps", "conf.lmp"),
            outputs=(DEVIATION, "log.lammps", trajectory),
            result=(DEVIATION,),
            restart=("dpgen.restart.*", "al.restarted"),
            continued=(DEVIATION, "log.lammps", trajectory),
        )

    def verify(self, folder: Path, code: int | None) -> Verdict:
        """Count the frames; a dynamics that died keeps those it wrote."""
        if code is None or code in KILLED:
            return Failure("killed", Retry.NOW, tail(folder / LOG))
        return self.salvage(folder, code) if code else self._rows(folder, code)

    def salvage(self, folder: Path, code: int | None) -> Verdict:
        """Keep the frames of a dynamics that died or was killed too often."""
        found = self._rows(folder, code)
        how = _error(tail(folder / LOG)) or ("killed" if code is None else f"exit status {code}")
        return found if isinstance(found, Failure) else {**found, "died": how}

    def _rows(self, folder: Path, code: int | None) -> Verdict:
        rows = len(self.deviation(folder))
        if rows == 0:
            message = f"lmp ended with exit status {code} and wrote no model deviation"
            return Failure(message, Retry.LATER, tail(folder / LOG))
        return {"frames": rows}

    def deviation(self, folder: Path) -> deviation.Deviation:
        """Read the deviations of a task."""
        return deviation.read(folder / DEVIATION)

    def volume_ratio(self, folder: Path, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cell volume over that of the start at `steps`, NaN where unknown; shape (F,)."""
        volumes = frames.volumes(folder / "log.lammps")
        start = next(iter(volumes.values()), np.nan)
        return frames.at_steps(volumes, steps) / start

    def frames(self, folder: Path, steps: Iterable[int], elements: Sequence[str]) -> dict[int, ase.Atoms]:
        """Read frames by MD step."""
        return frames.read(folder, steps, elements, periodic=not self.settings.model_devi_nopbc)

    def trajectories(self, folder: Path) -> list[Path]:
        """Return the trajectory files of a task, and restart files left over, for cleaning."""
        trajectories = [file for file in (folder / frames.MERGED, folder / frames.SINGLE) if file.exists()]
        return [*trajectories, *folder.glob("dpgen.restart.*")]


def _pressures(job: ExplorationJob) -> list[float | None]:
    """Return the pressures of a job, bar; nve and nvt ignore them (as in DP-GEN)."""
    return list(job.press or []) if "npt" in job.ensemble else [None]


def _script(command: str, _: Sequence[Task]) -> str:
    return (
        _SCRIPT
        + f"{command} -i input.lammps -v restart $restart -log none\n"
        + 'code=$?\n[ "$code" -eq 0 ] && rm -f dpgen.restart.* al.restarted\nexit "$code"'
    )


def _error(log: str) -> str:
    """Return LAMMPS's error message from the end of its log."""
    lines = [line.strip() for line in log.splitlines() if "ERROR" in line]
    return lines[-1] if lines else ""
