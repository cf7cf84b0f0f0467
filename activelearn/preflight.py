"""`al check`: everything that can be known before the first task, and the plan of the run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
from ase.neighborlist import neighbor_list

from activelearn.config.machine import SECTIONS, without_secrets
from activelearn.data import dataset, structures
from activelearn.data.labelled import VIRTUAL, LabelledSystem
from activelearn.dispatch import hpc
from activelearn.errors import Problem, about_files
from activelearn.project import Project

FRAMES_FOR_NEIGHBOURS = 20
"""Labelled frames per system in which neighbours are counted."""


@dataclass(frozen=True)
class Plan:
    """What one iteration will do."""

    iteration: int
    systems: tuple[int, ...]
    tasks: int
    """MD tasks."""
    frames: int | None
    """Frames explored; None: a template does not say."""
    labels: int
    """Most labels."""


@dataclass(frozen=True)
class Report:
    """The outcome of all checks."""

    problems: tuple[Problem, ...]
    plan: tuple[Plan, ...]
    initial_systems: int
    initial_frames: int
    heldout_frames: int

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that stop a run."""
        return tuple(problem for problem in self.problems if problem.level == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The others."""
        return tuple(problem for problem in self.problems if problem.level == "warning")


def check(project: Project, known: Iterable[Problem] = (), files: bool = True) -> Report:
    """Open everything the project names and compare it; nothing is computed or written.

    Parameters
    ----------
    project
        The decoded files.
    known
        Problems found when they were decoded; they are part of the report.
    files
        False: look at the two input files alone, not at the files they name; there is no plan then.
    """
    file = project.param_file
    problems: list[Problem] = list(known)
    initial: list[LabelledSystem] = []
    heldout: list[LabelledSystem] = []
    counts: dict[int, int] = {}
    starts: list[ase.Atoms] = []
    if files:
        initial, found = _labelled(project, "init_data_sys", project.param.init_data_sys)
        own = project.param.activelearn.validation_data_sys
        heldout, more = _labelled(project, "_activelearn.validation_data_sys", own)
        counts, starts, odd = _structures(project)
        odd += _clusters(project, starts)
        problems += about_files([*found, *more, *_trained_on(project, initial, heldout), *odd])
    problems += project.trainer.check(file, project.machine.deepmd_version)
    problems += project.explorer.check(file, [project.trainer.graph_name(n) for n in range(project.trainer.n_models)])
    problems += project.labeler.check(file, starts)
    problems += _machine(project, {problem.path for problem in problems if problem.file == project.machine_file})
    if not files:
        return Report(tuple(problem for problem in problems if problem.kind == "syntax"), (), 0, 0, 0)
    cutoff = project.trainer.cutoff()
    if cutoff and not any(problem.level == "error" for problem in problems):
        frames = [*starts, *(atoms for system in initial for atoms in _sample(system, project.param.type_map))]
        problems += about_files(project.trainer.check_data(file, [*initial, *heldout]))
        problems += about_files(project.trainer.check_neighbours(file, most_neighbours(frames, cutoff)))
    return Report(
        problems=tuple(problems),
        plan=tuple(_plan(project, counts)),
        initial_systems=len(initial),
        initial_frames=_frames(initial),
        heldout_frames=_frames(heldout),
    )


def _frames(systems: Iterable[LabelledSystem]) -> int:
    total = 0
    for system in systems:
        try:
            total += system.nframes
        except (OSError, ValueError):
            continue  # reported already
    return total


def _labelled(project: Project, key: str, entries: list[str]) -> tuple[list[LabelledSystem], list[Problem]]:
    """Open labelled data; return the systems and what is wrong with them."""
    file, prefix = project.param_file, project.param.init_data_prefix
    systems: list[LabelledSystem] = []
    problems: list[Problem] = []
    needs = {0: (), 1: ("fparam",), 2: ("aparam",)}[project.param.use_ele_temp]
    for place, entry in enumerate(entries):
        path = project.workdir.root / os.path.expanduser(prefix) / entry  # noqa: PTH111
        where = f"{key}[{place}]"
        file_or_folder = Path(str(path).partition("#")[0])
        if not path.exists() and not file_or_folder.is_file():
            message = f"{path} is not a folder or an HDF5 file"
            problems.append(Problem(file, where, message, "check init_data_prefix and the path"))
            continue
        found = dataset.find(path)
        if not found:
            message = f"{path} holds no labelled system (no type.raw in it or below)"
            problems.append(Problem(file, where, message, "give folders in deepmd/npy form or HDF5 files"))
        for system in found:
            complaint = dataset.complaint(system, list(project.param.type_map), needs)
            if complaint:
                problems.append(Problem(file, where, f"{system}: {complaint}"))
        folders = {system.path for system in found if not system.group}
        for system in found:
            outer = next((folder for folder in system.path.parents if folder in folders), None)
            if outer:
                message = f"{system} lies inside another system: newer DeePMD-kit finds it there and reads it twice"
                problems.append(Problem(file, where, message, f"move it out of {outer}", "warning"))
        systems += found
    return systems, problems


def _trained_on(project: Project, initial: list[LabelledSystem], heldout: list[LabelledSystem]) -> Iterator[Problem]:
    trained = {(system.path.resolve(), system.group) for system in initial}
    for system in heldout:
        if (system.path.resolve(), system.group) in trained:
            message = f"{system} is in init_data_sys too: the models would be tested on what they were trained on"
            yield Problem(project.param_file, "_activelearn.validation_data_sys", message, "remove it from one of them")


def _structures(project: Project) -> tuple[dict[int, int], list[ase.Atoms], list[Problem]]:
    """Open the starting structures; return their number by system, one of each as atoms, and problems."""
    param, file = project.param, project.param_file
    counts: dict[int, int] = {}
    starts: list[ase.Atoms] = []
    problems: list[Problem] = []
    used = {system for job in param.model_devi_jobs for system in job.sys_idx}
    for system, patterns in enumerate(param.sys_configs):
        counts[system] = 0
        expanded = structures.expand(project.workdir.root, param.sys_configs_prefix, patterns)
        for place, (pattern, files) in enumerate(expanded):
            where = f"sys_configs[{system}][{place}]"
            if not files:
                full = Path(os.path.expanduser(param.sys_configs_prefix)) / pattern  # noqa: PTH111
                message = f"no file matches {full} (in {project.workdir.root})"
                level = "error" if system in used else "warning"
                problems.append(Problem(file, where, message, "check sys_configs_prefix and the pattern", level))  # type: ignore[arg-type]
            broken: dict[str, list[Path]] = {}
            for path in files:
                try:
                    starts.append(structures.to_atoms(structures.read(path, param.sys_format, list(param.type_map))))
                    counts[system] += 1
                except ValueError as error:
                    broken.setdefault(str(error), []).append(path)
            for complaint, paths in broken.items():
                more = f" (and {len(paths) - 1} more like it)" if len(paths) > 1 else ""
                message = f"{paths[0]} {complaint}{more}"
                problems.append(Problem(file, where, message, "check sys_format and type_map"))
    return counts, starts, problems


def _clusters(project: Project, starts: list[ase.Atoms]) -> Iterator[Problem]:
    """Compare the radius of clusters with the boxes they are cut out of."""
    heights = [1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0) for atoms in starts if atoms.pbc.all()]
    smallest = min((float(each.min()) for each in heights), default=np.inf)
    if project.param.cluster_cutoff is not None and project.param.cluster_cutoff > smallest / 2:
        message = f"reaches beyond half of the smallest box, {smallest:.2f} A: of an atom and its image one is taken"
        yield Problem(project.param_file, "cluster_cutoff", message, "start from larger boxes", "warning")


def _machine(project: Project, wrong: set[str]) -> Iterator[Problem]:
    """Ask dpdispatcher about each section that was not found `wrong` already."""
    file = project.machine_file
    for stage, section in project.machine.sections.items():
        name = SECTIONS[stage]
        if any(path.startswith(f"{name}.") for path in wrong):
            continue
        for key, message in hpc.complaints(without_secrets(dict(section.machine)), dict(section.resources)):
            yield Problem(file, f"{name}.{key}", message, "see the documentation of dpdispatcher")
        for place, given in enumerate(section.forward):
            if not (project.workdir.root / given).is_file():
                missing = Problem(file, f"{name}.user_forward_files[{place}]", f"{given} does not exist")
                yield from about_files([missing])


def _sample(system: LabelledSystem, type_map: list[str]) -> Iterator[ase.Atoms]:
    """Yield evenly spaced frames of a labelled system."""
    names = system.type_names() or type_map
    types = system.frame_types()
    if any(names[t] not in ase.data.atomic_numbers for t in np.unique(types) if t != VIRTUAL):
        return
    coords = system.array("coord").reshape(len(types), -1, 3)
    boxes = system.array("box").reshape(-1, 3, 3) if system.periodic else np.zeros((len(coords), 3, 3))
    chosen = np.unique(np.linspace(0, len(coords) - 1, FRAMES_FOR_NEIGHBOURS).astype(int))
    for number in chosen:
        real = types[number] != VIRTUAL
        symbols = [names[t] for t in types[number][real]]
        yield ase.Atoms(symbols, coords[number][real], cell=boxes[number], pbc=system.periodic)


def most_neighbours(frames: Iterable[ase.Atoms], cutoff: float) -> dict[str, int]:
    """Return the most neighbours of each element that any atom has within the cutoff (A), over all frames."""
    most: dict[str, int] = {}
    for atoms in frames:
        first, second = neighbor_list("ij", atoms, cutoff)
        symbols = np.array(atoms.get_chemical_symbols())
        for element in set(symbols):
            counts = np.bincount(first[symbols[second] == element], minlength=len(atoms))
            most[element] = max(most.get(element, 0), int(counts.max()))
    return most


def _plan(project: Project, counts: dict[int, int]) -> Iterator[Plan]:
    param = project.param
    for iteration, job in enumerate(param.model_devi_jobs):
        known = [system for system in job.sys_idx if system in counts]
        each = [project.explorer.count(job, system, counts[system]) for system in known]
        numbers = [frames for _, frames in each if frames is not None]
        yield Plan(
            iteration,
            tuple(job.sys_idx),
            tasks=sum(tasks for tasks, _ in each),
            frames=sum(numbers) if len(numbers) == len(each) else None,
            labels=sum(param.fp_task_max if frames is None else min(param.fp_task_max, frames) for _, frames in each),
        )
