"""Read from the files of a finished stage of DP-GEN what our own stage would have returned."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from activelearn.data import dataset, structures
from activelearn.data.frames import FrameRef
from activelearn.dispatch.task import Failure
from activelearn.errors import RecordError
from activelearn.explore.values import Run
from activelearn.files import write_atomic
from activelearn.label.values import in_type_map_order
from activelearn.project import Project
from activelearn.record import Position, Record
from activelearn.select.pick import quota_of
from activelearn.train import data as training_data

log = logging.getLogger(__name__)

Result = dict[str, Any]


_CLUSTER = re.compile(r"(\d+)\.lammpstrj\.cluster\.(\d+)\.POSCAR")
"""What DP-GEN calls a cluster: the step and the atom."""
DPGEN = "DP-GEN"
"""Who made a stage or a task, in the record and the ledger."""


def result(project: Project, record: Record, position: Position, iteration: int, stage: str) -> Result | None:
    """Return the result of a stage that DP-GEN finished; None where its files do not verify.

    Raises
    ------
    RecordError
        Files are missing.
    """
    found = _READERS[stage](project, record, position, iteration)
    if found and found.pop("unsound", False) and not position.finished(iteration, "explore"):
        return None  # nobody explored with these models yet: those that are none are trained again
    return found


def _missing(project: Project, iteration: int, what: str) -> RecordError:
    name = project.workdir.dpgen_record
    return RecordError(
        f"{name} says that iteration {iteration} got further, but {what}\n"
        f"    -> restore the files, or delete the lines of {name} from that stage on to do it again"
    )


def _train(project: Project, record: Record, position: Position, iteration: int) -> Result | None:
    place, trainer = project.workdir.iteration(iteration), project.trainer
    names = [trainer.graph_name(number) for number in range(trainer.n_models)]
    absent = [name for name in names if not (place.train / name).exists()]
    if absent and position.finished(iteration, "explore"):  # nobody needs them any more
        return {"carried": place.carried_over.exists(), "models": sorted(f.name for f in place.train.glob("graph.*"))}
    if absent:
        there = sorted(file.name for file in place.train.glob("graph.*")) or "none"
        hint = f"{place.train / absent[0]} is not there (found: {there}; see numb_models, train_backend, model_format)"
        raise _missing(project, iteration, hint)
    if place.carried_over.exists():
        previous = record.get(iteration - 1, "train")
        return {**(previous.result if previous else {}), "carried": True, "models": names}
    data = training_data.entries(project.param, project.workdir, iteration)
    reference = dataset.rms_force(entry.system for entry in data)
    sound, verdicts = True, []
    for number in range(trainer.n_models):
        verdict = trainer.verify(place.train / f"{number:03d}", 0, reference)
        verdicts.append(verdict)
        if isinstance(verdict, Failure):
            log.warning("model %03d of iteration %d, trained by DP-GEN: %s", number, iteration, verdict.cause)
            sound = False
    good = [verdict for verdict in verdicts if not isinstance(verdict, Failure)]
    found: Result = {
        "carried": False,
        "models": names,
        "systems": len(data),
        "frames": sum(entry.system.nframes for entry in data),
        "rmse_e": [verdict["rmse_e"] for verdict in good],
        "rmse_f": [verdict["rmse_f"] for verdict in good],
        "heldout": {},
        "heldout_frames": 0,
    }
    return found if sound else {**found, "unsound": True}


def _explore(project: Project, _record: Record, _position: Position, iteration: int) -> Result | None:
    place = project.workdir.iteration(iteration)
    runs, empty = [], 0
    for folder in _tasks(place.explore):
        rows = len(project.explorer.deviation(folder))
        if rows:
            task = f"{place.root.name}/{place.explore.name}/{folder.name}"
            runs.append(Run(task, _system(folder.name), _conditions(folder), rows))
        else:
            log.warning("%s, run by DP-GEN, has no model deviation", folder)
            empty += 1
    write_atomic(place.runs, json.dumps([asdict(run) for run in runs], indent=1))
    if not runs:
        return None
    return {"tasks": len(runs), "frames": sum(run.n_frames for run in runs), "died": 0, "failed": empty}


def _tasks(folder: Path) -> list[Path]:
    """Return the folders called task.SSS.NNNNNN."""
    found = folder.glob("task.*")
    return sorted(path for path in found if re.fullmatch(r"task\.\d+\.\d+", path.name) and path.is_dir())


def _system(name: str) -> int:
    """Return the system of a task called task.SSS.NNNNNN."""
    return int(name.split(".")[1])


def _conditions(folder: Path) -> dict[str, float]:
    """Read what was held in a task: temperature (K), pressure (bar)."""
    try:
        job = json.loads((folder / "job.json").read_text())
    except (OSError, ValueError):
        return {}
    names = {"temps": "temperature", "press": "pressure", "ele_temp": "electron_temperature"}
    return {
        new: float(job[old]) for old, new in names.items() if isinstance(job.get(old), int | float) and job[old] >= 0
    }


def _select(project: Project, _record: Record, _position: Position, iteration: int) -> Result | None:
    place = project.workdir.iteration(iteration)
    systems: dict[str, Any] = {}
    picked: list[dict[str, Any]] = []
    labels = _tasks(place.label)
    job = project.param.model_devi_jobs[iteration]
    audited = any(place.label.glob("candidate.*"))
    for system in sorted(job.sys_idx):
        frames = {kind: _audit(place.audit(kind, system)) for kind in ("candidate", "rest_accurate", "rest_failed")}
        mine = [folder for folder in labels if _system(folder.name) == system]
        accurate = len(frames["rest_accurate"]) / max(1, sum(map(len, frames.values())))
        refs = _picks(project, iteration, mine, frames["candidate"], quota_of(project.param, job).most(accurate))
        if len(refs) < len(mine):
            log.warning("system %03d: it cannot be told which frames DP-GEN picked; selecting again", system)
            return None
        picked += [
            {
                "label": name,
                "system": system,
                "task": ref.task,
                "step": ref.step,
                **({} if ref.atom is None else {"atom": ref.atom}),
                "max_devi_f": _deviation(project, ref),
            }
            for name, ref in refs.items()
        ]
        systems[f"{system:03d}"] = {"picked": len(mine), "rejected": 0}
        if audited:  # with detailed_report_make_fp false DP-GEN writes nothing about the others
            kinds = {kind.removeprefix("rest_"): len(rows) for kind, rows in frames.items()}
            systems[f"{system:03d}"] |= kinds
    write_atomic(place.picked, json.dumps(picked, indent=1))
    totals = {
        kind: sum(item[kind] for item in systems.values())
        for kind in ("accurate", "candidate", "failed", "picked")
        if all(kind in item for item in systems.values())
    }
    return {**totals, "systems": systems}


def _audit(file: Path) -> list[tuple[str, int, int | None]]:
    """Read an audit file: (task, step, atom) of each frame or atom, in shuffled order."""
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = [words for words in map(str.split, lines) if len(words) >= 2 and words[1].isdigit()]
    return [(words[0], int(words[1]), int(words[2]) if len(words) > 2 else None) for words in rows]


def _picks(
    project: Project, iteration: int, labels: list[Path], candidates: list[tuple[str, int, int | None]], most: int
) -> dict[str, FrameRef]:
    """Return the frame each label is of, as far as it can be told.

    A link of the label's folder says it. Where there is none (merged dumps, links that were resolved in a copy) its
    rank among the picks does, which are the first so many of the shuffled candidates: a guess that must fit.
    """
    linked = {folder.name: ref for folder in labels if (ref := _linked(project, iteration, folder)) is not None}
    others = [folder for folder in labels if folder.name not in linked]
    if not others:
        return linked
    highest = max(_rank(folder) for folder in labels) + 1
    for n in dict.fromkeys((most, highest, len(candidates))):
        chosen = sorted(row[:2] for row in candidates[:n])
        ranked = [FrameRef(_task(project, iteration, Path(task).name), step) for task, step in chosen]
        guess = {folder.name: ranked[_rank(folder)] for folder in others if _rank(folder) < len(ranked)}
        if len(guess) == len(others) and all(_fits(project, folder, guess[folder.name]) for folder in others):
            return linked | guess
    return linked


def _rank(label: Path) -> int:
    return int(label.name.rpartition(".")[2])


def _task(project: Project, iteration: int, name: str) -> str:
    place = project.workdir.iteration(iteration)
    return f"{place.root.name}/{place.explore.name}/{name}"


def _linked(project: Project, iteration: int, label: Path) -> FrameRef | None:
    cluster = Path(_target(label / "POSCAR"))
    if match := _CLUSTER.fullmatch(cluster.name):
        return FrameRef(_task(project, iteration, cluster.parts[-3]), int(match[1]), int(match[2]))
    dump = Path(_target(label / "conf.dump"))
    step = dump.name.partition(".")[0]
    return FrameRef(_task(project, iteration, dump.parts[-3]), int(step)) if step.isdigit() else None


def _fits(project: Project, label: Path, ref: FrameRef) -> bool:
    """Return whether a label can be of a frame: of the task it links to, and with its structure if both are there."""
    task = Path(_target(label / "job.json")).parent.name
    if task and task != Path(ref.task).name:
        return False
    names = list(project.param.type_map)
    try:
        made = structures.to_atoms(structures.read(label / "POSCAR", "vasp/poscar", names))
    except ValueError:
        return True
    frames = project.explorer.frames(project.workdir.root / ref.task, [ref.step], names)
    if ref.step not in frames:
        return True
    found = in_type_map_order(frames[ref.step], names)
    if len(found) != len(made) or not np.allclose(found.cell.array, made.cell.array, atol=1e-3):
        return False
    shift = np.linalg.solve(made.cell.array.T, (found.positions - made.positions).T)
    return bool(np.allclose(shift, np.round(shift), atol=1e-3))


def _target(link: Path) -> str:
    return str(link.readlink()) if link.is_symlink() else ""


def _deviation(project: Project, ref: FrameRef) -> float | None:
    """Return the force deviation of a frame, eV/A."""
    found = project.explorer.deviation(project.workdir.root / ref.task)
    values = found.force if ref.atom is None or found.atomic is None else found.atomic[:, ref.atom]
    rows = values[found.steps == ref.step]
    return float(rows[0]) if len(rows) else None


def _label(project: Project, record: Record, _position: Position, iteration: int) -> Result | None:
    place = project.workdir.iteration(iteration)
    systems = {}
    for number in range(len(project.param.sys_configs)):
        found = dataset.find(place.labelled(number)) if place.labelled(number).is_dir() else []
        if found:
            systems[f"{number:03d}"] = sum(system.nframes for system in found)
    asked = record.get(iteration, "select")
    labelled = sum(systems.values())
    failed = max(0, int(asked.result.get("picked", 0)) - labelled) if asked else 0
    failures = {f"({failed} labels)": "not labelled by DP-GEN"} if failed else {}
    return {"labelled": labelled, "failed": failed, "failures": failures, "systems": systems}


Reader = Callable[[Project, Record, Position, int], Result | None]
_READERS: Mapping[str, Reader] = {"train": _train, "explore": _explore, "select": _select, "label": _label}
