"""Molecular dynamics with LAMMPS: one task per starting structure x temperature x pressure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from activelearn.config.param import ExplorationJob, Param
from activelearn.data import beads, deviation, forces, frames, structures
from activelearn.data.deviation import Deviation
from activelearn.dispatch.task import KILLED, Batch, Failure, Retry, Task, Verdict
from activelearn.errors import EngineError, Problem
from activelearn.explore import lammps_input, restart, template, template_check
from activelearn.explore.lammps_settings import LammpsSettings
from activelearn.explore.values import Exploration, Run
from activelearn.files import relative_link, write_if_different
from activelearn.log import tail

LOG = "model_devi.log"
DEVIATION = "model_devi.out"
DIVIDED = "model_devi_avgf.out"
"""What DP-GEN leaves of model_devi_f_avg_relative when the trajectory is cleaned away."""


@dataclass(frozen=True)
class Deck:
    """The input of one task."""

    files: Mapping[str, str]
    """By their names in the task's folder."""
    job: Mapping[str, Any]
    """What job.json says, for DP-GEN and for people."""
    held: Mapping[str, float | str]
    """What the task is told apart by."""


Decks = Callable[[int, str], Iterator[Deck]]
"""(index in sys_configs, name of a structure) -> its decks, in the order of their tasks."""


class Lammps:
    """Exploration with `lmp`."""

    Settings = LammpsSettings

    def __init__(self, settings: LammpsSettings, param: Param, root: Path) -> None:
        self.settings = settings
        self.param = param
        self.root = root

    def check(self, file: str, graphs: Sequence[str]) -> list[Problem]:
        """Return what is wrong with the settings: unknown elements, npt without a periodic cell, templates."""
        found: list[Problem] = []
        unknown = [name for name in self.param.type_map if name not in atomic_numbers]
        if unknown:
            found.append(Problem(file, "type_map", f"{', '.join(unknown)}: no such element", "write chemical symbols"))
        found += self.settings.problems(file)
        found += self.settings.cluster_problems(file, self.param)
        for place, job in enumerate(self.param.model_devi_jobs):
            where = f"model_devi_jobs[{place}]"
            found += self.settings.job_problems(file, where, job)
            found += template_check.problems(
                file, where, job, self.param, self.settings, self.root, graphs, self._electron
            )
        return found

    @property
    def _electron(self) -> str | None:
        """What pair_style calls the electron temperature."""
        return (None, "fparam", "aparam")[self.param.use_ele_temp]

    def count(self, job: ExplorationJob, system: int, n_structures: int) -> tuple[int, int | None]:
        """Return how many tasks and frames one system with so many structures will give; None: cannot be told."""
        if job.template is None:
            tasks = n_structures * len(job.temps) * len(_pressures(job))
            steps: int | None = job.nsteps
        else:
            combinations = template.combinations(job, system, self.settings.model_devi_plumed)
            tasks = n_structures * len(combinations)
            try:
                text = template_check.read(self.root, job.template.lmp)
            except OSError:
                text = ""
            steps = template.steps(template.replace(text, combinations[0].lammps))
        return tasks, None if steps is None else tasks * (job.nbeads or 1) * (steps // job.trj_freq + 1)

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
        decks = self._native(exploration, rng) if job.template is None else self._template(exploration)
        path = f"{folder.parent.name}/{folder.name}"
        task = self._task(job)
        for start in exploration.starts:
            number = 0
            for place, file in enumerate(start.files):
                conf = self._conf(folder / "confs" / f"{start.system:03d}.{place:04d}.lmp", file, rng)
                for deck in decks(start.system, f"{start.system} {file.name} {place}"):
                    name = f"task.{start.system:03d}.{number:06d}"
                    number += 1
                    for target, text in deck.files.items():
                        write_if_different(folder / name / target, text)
                    write_if_different(folder / name / "job.json", json.dumps(deck.job, indent=4))
                    relative_link(folder / name / "conf.lmp", conf)
                    tasks.append(replace(task, name=name))
                    runs[name] = Run(f"{path}/{name}", start.system, deck.held, 0)
        kind = self._kind(job)
        batch = Batch(
            folder=folder,
            tasks=tuple(tasks),
            script=lambda command, _: restart.script(command, kind),
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
        if self.settings.shuffle_poscar:
            system.data["coords"] = rng(f"shuffle {target.name}").permutation(system["coords"], axis=1)
        if self.settings.model_devi_nopbc:
            system.remove_pbc()  # a box with room around the atoms, as in DP-GEN
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".new")
        system.to("lammps/lmp", str(temporary), frame_idx=0)
        write_if_different(target, temporary.read_text())
        temporary.unlink()
        return target

    def _native(self, exploration: Exploration, rng: Callable[[str], np.random.Generator]) -> Decks:
        """Return what gives the decks of one structure: temperatures, then pressures."""
        job, settings = exploration.job, self.settings
        graphs = [f"../{graph}" for graph in exploration.graph_names]

        def decks(_: int, structure: str) -> Iterator[Deck]:
            for entry in job.temps:
                temperature, electron = self._temperatures(entry)
                held = {"temperature": temperature}
                if electron is not None:
                    held["electron_temperature"] = electron
                for pressure in _pressures(job):
                    key = f"{structure} {temperature}{'' if electron is None else f' {electron}'} {pressure}"
                    conditions = lammps_input.Conditions(
                        ensemble=job.ensemble or "",
                        nsteps=job.nsteps or 0,
                        trj_freq=job.trj_freq,
                        timestep=job.dt or settings.model_devi_dt,
                        tau_t=job.taut or settings.model_devi_taut,
                        tau_p=job.taup or settings.model_devi_taup,
                        neighbour_delay=settings.model_devi_neidelay if job.neidelay is None else job.neidelay,
                        temperature=temperature,
                        electron_temperature=electron,
                        pressure=pressure,
                        seed=int(rng(key).integers(1, 10**6)),
                        n_beads=job.nbeads,
                        recoil=_recoil(job.pka_e, rng(f"{key} recoil")) if job.pka_e else None,
                    )
                    text = lammps_input.render(
                        graphs, self.masses(), self.param.type_map, conditions, settings, self._electron
                    )
                    yield Deck(
                        files={"input.lammps": text},
                        job={
                            "ensemble": job.ensemble,
                            "press": -1 if pressure is None else pressure,
                            "temps": temperature,
                            **({} if electron is None else {"ele_temp": electron}),
                            "model_devi_dt": conditions.timestep,
                        },
                        held=held if pressure is None else {**held, "pressure": pressure},
                    )

        return decks

    def _temperatures(self, entry: float | tuple[float, float]) -> tuple[float, float | None]:
        """Return the temperatures of the ions and, if the models take it, of the electrons, K."""
        ions, electrons = entry if isinstance(entry, tuple) else (entry, entry)
        return ions, electrons if self.param.use_ele_temp else None

    def _template(self, exploration: Exploration) -> Decks:
        """Return what gives the decks of one structure: all combinations of what the templates leave open."""
        job, settings = exploration.job, self.settings
        assert job.template is not None
        names = {"lmp": job.template.lmp}
        if settings.model_devi_plumed:
            names["plm"] = job.template.plm or ""
            if settings.model_devi_plumed_path:
                names["plm_path"] = job.template.plm_path or ""
        texts = {key: template_check.read(self.root, name) for key, name in names.items()}
        graphs = [f"../{graph}" for graph in exploration.graph_names]

        def decks(system: int, _: str) -> Iterator[Deck]:
            for words in template.combinations(job, system, settings.model_devi_plumed):
                lammps = template.lammps(
                    texts["lmp"], graphs, self.param.type_map, job, settings, self._electron, words
                )
                files = {"input.lammps": lammps}
                if "plm" in texts:
                    files["input.plumed"] = template.plumed(texts["plm"], words)
                if "plm_path" in texts:
                    files["plmpath.pdb"] = texts["plm_path"]
                electron = template.electron_temperature(lammps) if self._electron else None
                yield Deck(
                    files=files,
                    job={**words.all, **({} if electron is None else {"ele_temp": electron})},
                    held={**words.all, **({} if electron is None else {"electron_temperature": electron})},
                )

        return decks

    def _kind(self, job: ExplorationJob) -> restart.Deck:
        """Return what the shell must know about the decks of a job."""
        if job.template is None:
            return restart.Deck(beads=beads.names(job.nbeads) if job.nbeads else ())
        return restart.Deck(template.restarts(template_check.read(self.root, job.template.lmp)), own_log=False)

    def _task(self, job: ExplorationJob) -> Task:
        """Return what all tasks of a job have in common."""
        names = beads.names(job.nbeads) if job.nbeads else ("",)
        merged = [f"{frames.MERGED}{name}" for name in names]
        single = [f"{frames.SINGLE}/*.lammpstrj{name}" for name in names]
        trajectories = merged if self.settings.model_devi_merge_traj else single
        logs = [f"log.lammps.{name}" if name else "log.lammps" for name in names]
        deviations = [f"model_devi{name}.out" for name in names]
        inputs, written = ["input.lammps", "conf.lmp"], [*deviations, *logs, *trajectories]
        if self.settings.model_devi_plumed and job.template is not None:
            inputs += ["input.plumed", *(["plmpath.pdb"] if self.settings.model_devi_plumed_path else [])]
            bias = template_check.read(self.root, job.template.plm or "")
            written += ["output.plumed", *template.plumed_files(bias)]
        restartable = self._kind(job).restart is not None
        return Task(
            name="",
            forward=tuple(inputs),
            outputs=tuple(written),
            result=tuple(deviations),
            restart=("dpgen.restart*.*", "al.restarted", "al.log.lammps") if restartable else (),
            continued=tuple(written) if restartable else (),
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
        rows = len(self._deviation(folder))
        if rows == 0:
            message = f"lmp ended with exit status {code} and wrote no model deviation"
            return Failure(message, Retry.LATER, tail(folder / LOG))
        return {"frames": rows}

    def deviation(self, folder: Path) -> Deviation:
        """Read the deviations of a task; the beads of path-integral MD follow one another.

        With model_devi_f_avg_relative they are divided by the root mean square force of the trajectory.

        Those of single atoms are read where candidates are atoms; they are not divided (as in DP-GEN).

        Raises
        ------
        EngineError
            They are to be divided, but no frame with forces is there; or there are none of single atoms.
        """
        found = self._deviation(folder, self.param.by_atom)
        if found.atomic is not None and len(found) and not found.atomic.shape[1]:
            raise EngineError(
                f"{folder / DEVIATION} has no deviations of single atoms, which cluster_cutoff selects by"
                "\n    -> was it run without use_clusters?"
            )
        if not self.settings.model_devi_f_avg_relative or len(found) == 0:
            return found
        typical = forces.rms(folder)
        if np.isnan(typical):
            divided = deviation.read(folder / DIVIDED)
            if len(divided) == len(found):
                return replace(found, force=divided.force)
            raise EngineError(
                f"{folder} has no frame with forces, but model_devi_f_avg_relative divides the deviations by them"
                "\n    -> was the trajectory deleted?"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return replace(found, force=found.force / typical)

    def _deviation(self, folder: Path, atomic: bool = False) -> Deviation:
        joined = beads.joined(folder, atomic)
        return deviation.read(folder / DEVIATION, atomic) if joined is None else joined

    def volume_ratio(self, folder: Path, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cell volume over that of the start at `steps`, NaN where unknown; shape (F,)."""
        several = beads.find(folder)
        if several is None:
            volumes = frames.volumes(folder / "log.lammps")
        else:
            logs = {name: frames.volumes(folder / f"log.lammps.{name}") for name in several.names}
            volumes = {
                joined: logs[name][own]
                for name, own_steps in several.by_bead(int(step) for step in steps).items()
                for own, joined in own_steps.items()
                if own in logs[name]
            }
        start = next(iter(volumes.values()), np.nan)
        return frames.at_steps(volumes, steps) / start

    def frames(self, folder: Path, steps: Iterable[int], elements: Sequence[str]) -> dict[int, ase.Atoms]:
        """Read frames by MD step (of the joined trajectory of all beads)."""
        periodic = not self.settings.model_devi_nopbc
        several = beads.find(folder)
        if several is None:
            return frames.read(folder, steps, elements, periodic)
        wanted = set(steps)
        found = {
            own_steps[own]: atoms
            for name, own_steps in several.by_bead(wanted).items()
            for own, atoms in frames.read(folder, own_steps, elements, periodic, bead=name).items()
        }
        # those that DP-GEN has looked at carry the joined step in their names
        return found | frames.read(folder, wanted - set(found), elements, periodic)

    def trajectories(self, folder: Path) -> list[Path]:
        """Return the trajectory files of a task, and restart files left over, for cleaning."""
        single = folder / frames.SINGLE
        merged = folder.glob(f"{frames.MERGED}*")
        return [*merged, *([single] if single.exists() else []), *folder.glob("dpgen.restart*.*")]


def _pressures(job: ExplorationJob) -> list[float | None]:
    """Return the pressures of a job, bar; nve and nvt ignore them (as in DP-GEN)."""
    return list(job.press or []) if "npt" in (job.ensemble or "") else [None]


def _error(log: str) -> str:
    """Return LAMMPS's error message from the end of its log."""
    lines = [line.strip() for line in log.splitlines() if "ERROR" in line]
    return lines[-1] if lines else ""


def _recoil(energy: float, rng: np.random.Generator) -> lammps_input.Recoil:
    """Return a recoil of some energy (eV) in a direction drawn evenly from the sphere."""
    x, y, z = rng.normal(size=3)
    length = float(np.sqrt(x * x + y * y + z * z))
    return lammps_input.Recoil(energy, (x / length, y / length, z / length))
