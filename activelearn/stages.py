"""The four stages of an iteration. Each yields the batches it wants run and returns its result.

Whatever a stage prepares, it may prepare any number of times: files are written only where they differ.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ase
import numpy as np
from numpy.typing import NDArray

from activelearn.config.param import Param
from activelearn.config.selection import LEVELS, OFF, box_limits
from activelearn.data import clusters, dataset, structures
from activelearn.data.deviation import Deviation
from activelearn.data.frames import FrameRef
from activelearn.dispatch.task import Batch, Failure, Outcome
from activelearn.errors import EngineError
from activelearn.explore.values import Exploration, Run, Start
from activelearn.files import move_aside, relative_link, write_atomic, write_if_different
from activelearn.label.values import Picked, conditioned, weighted
from activelearn.project import Project
from activelearn.select import box, health, pick, trust
from activelearn.select.frames import Frames, gather
from activelearn.select.summary import summary, warnings
from activelearn.select.trust import Kind, Levels
from activelearn.train import data as training_data
from activelearn.train.values import TrainingJob

log = logging.getLogger(__name__)

Result = dict[str, Any]
Steps = Generator[Batch, Outcome, Result]

DEFAULT_CUTOFF = 6.0
"""Neighbours are looked for within this distance (A) where a model does not say its cutoff."""


def train(project: Project, iteration: int, previous: Mapping[str, Any] | None) -> Steps:
    """Train the ensemble, or carry the last one over when there is no new data.

    Parameters
    ----------
    project
        The project.
    iteration
        Number of the iteration.
    previous
        Result of the training before, None in the first iteration.
    """
    folder = project.workdir.iteration(iteration).train
    trainer = project.trainer
    folder.mkdir(parents=True, exist_ok=True)
    if previous is not None:
        why = "no new data" if not _new_data(project, iteration - 1) else ""
        if project.param.model_devi_jobs[iteration - 1].skip_training:
            why = f"skip_training of model_devi_jobs[{iteration - 1}]"
        if why:
            log.info("%s: the models of the last iteration are carried over", why)
            _carry_over(project, iteration, previous["models"])
            return {**previous, "carried": True}
    _retract(project, iteration)
    data = training_data.entries(project.param, project.workdir, iteration)
    heldout = training_data.heldout_entries(project.param, project.workdir, iteration)
    n_old, n_new = training_data.n_frames(project.param, project.workdir, iteration)
    job = TrainingJob(
        folder=folder,
        data=tuple(data),
        heldout=tuple(heldout),
        seeds=tuple(
            tuple(int(n) for n in project.rng(iteration, "train", f"{number:03d}").integers(1, 2**31 - 1, size=4))
            for number in range(trainer.n_models)
        ),
        iteration=iteration,
        previous=project.workdir.iteration(iteration - 1).train if iteration else None,
        n_old_frames=n_old,
        n_new_frames=n_new,
        deepmd_version=project.machine.deepmd_version,
    )
    frames = sum(entry.system.nframes for entry in data)
    log.info("training %d models on %d frames of %d systems", trainer.n_models, frames, len(data))
    outcome = yield trainer.batch(job)
    _all_trained(folder, outcome)
    export = trainer.export(job)
    if export is not None:
        _all_trained(folder, (yield export))
    for name, target in trainer.links(folder).items():
        relative_link(folder / name, folder / target)
    models = [outcome.done[f"{number:03d}"] for number in range(trainer.n_models)]
    errors = {
        name: [model["heldout"][name] for model in models]
        for name in ("energy", "force", "virial")
        if all(name in model.get("heldout", {}) for model in models)
    }
    if "force" in errors:
        log.info("held-out force error of the models: %s eV/A", ", ".join(f"{e:.3f}" for e in errors["force"]))
    return {
        "carried": False,
        "models": [trainer.graph_name(number) for number in range(trainer.n_models)],
        "systems": len(data),
        "frames": frames,
        "rmse_e": [model["rmse_e"] for model in models],
        "rmse_f": [model["rmse_f"] for model in models],
        "heldout": errors,
        "heldout_frames": sum(entry.system.nframes for entry in heldout),
    }


def _all_trained(folder: Path, outcome: Outcome) -> None:
    if outcome.failed:
        raise EngineError(
            failed_tasks("model", folder, outcome.failed)
            + "\n    -> mend the cause (default_training_param, data, machine) and type the same command again"
        )


def _carry_over(project: Project, iteration: int, models: Sequence[str]) -> None:
    """Link the models of the last iteration and, for trainings that start from their checkpoints, their folders."""
    place, source = project.workdir.iteration(iteration), project.workdir.iteration(iteration - 1).train
    for number, name in enumerate(models):
        task = f"{number:03d}"
        if (source / task).is_dir():
            if (place.train / task).is_dir() and not (place.train / task).is_symlink():
                move_aside(place.train / task)
            relative_link(place.train / task, source / task)
        relative_link(place.train / name, source / name)
    place.carried_over.touch()


def _retract(project: Project, iteration: int) -> None:
    """Take back an earlier decision to carry models over: training must not write into another iteration's folder."""
    place = project.workdir.iteration(iteration)
    if place.carried_over.exists():
        for number in range(project.trainer.n_models):
            task = place.train / f"{number:03d}"
            if task.is_symlink():
                task.unlink()
        place.carried_over.unlink()


def _new_data(project: Project, iteration: int) -> bool:
    """Return whether an iteration gave any system enough new frames to train on."""
    source = project.workdir.iteration(iteration)
    for number in range(len(project.param.sys_configs)):
        systems = dataset.find(source.labelled(number)) if source.labelled(number).is_dir() else []
        if sum(system.nframes for system in systems) >= max(1, project.param.fp_task_min):
            return True
    return False


def explore(project: Project, iteration: int, models: Sequence[str]) -> Steps:
    """Run molecular dynamics with the ensemble of this iteration, whose files are called `models`."""
    place = project.workdir.iteration(iteration)
    folder, job = place.explore, project.param.model_devi_jobs[iteration]
    param = project.param
    starts = []
    for system in job.sys_idx:
        found = structures.expand(project.workdir.root, param.sys_configs_prefix, param.sys_configs[system])
        starts.append(Start(system, tuple(file for _, files in found for file in files)))
    names = tuple(models)
    exploration = Exploration(folder, job, tuple(starts), tuple(place.train / name for name in names), names)
    batch, runs = project.explorer.batch(exploration, lambda name: project.rng(iteration, "explore", name))
    write_if_different(place.job, json.dumps(job.model_dump(exclude_unset=True), indent=1) + "\n")
    outcome = yield batch
    if not outcome.done:
        raise EngineError(
            failed_tasks("MD task", folder, outcome.failed)
            + "\n    -> no exploration gave a frame; mend the cause and type the same command again"
        )
    if outcome.failed:
        log.warning(failed_tasks("MD task", folder, outcome.failed) + "\n    -> going on without them")
    finished = [
        Run(run.task, run.system, run.conditions, outcome.done[name]["frames"], outcome.done[name].get("died", ""))
        for name, run in runs.items()
        if name in outcome.done
    ]
    died = [run for run in finished if run.died]
    for run in died:
        log.warning("%s died: %s (%d frames are kept)", run.task, run.died, run.n_frames)
    write_atomic(place.runs, json.dumps([asdict(run) for run in finished], indent=1))
    frames = sum(run.n_frames for run in finished)
    log.info("explored %d frames in %d MD tasks", frames, len(finished))
    return {"tasks": len(finished), "frames": frames, "died": len(died), "failed": len(outcome.failed)}


def select(project: Project, iteration: int) -> Steps:
    """Classify the frames by the trust levels and pick those to label."""
    yield from ()
    place, param = project.workdir.iteration(iteration), project.param
    job, healthy = param.model_devi_jobs[iteration], param.activelearn.health
    runs = [Run(**run) for run in json.loads(place.runs.read_text())]
    quota = pick.quota_of(param, job)
    systems: dict[str, Any] = {}
    picked: list[dict[str, Any]] = []
    place.label.mkdir(parents=True, exist_ok=True)
    for system in sorted(job.sys_idx):
        frames = gather((_trajectory(project, run) for run in runs if run.system == system), param.model_devi_skip)
        f_lo, f_hi, v_lo, v_hi = (param.trust(name, job, system) for name in LEVELS)
        if param.by_atom:
            v_lo = v_hi = OFF
        kinds, levels, adapted = _classify(param, frames, Levels(f_lo, f_hi, v_lo, v_hi))
        rng = project.rng(iteration, "select", str(system))
        result = pick.pick(system, frames, kinds, quota, rng, _check(project), backfill=healthy)
        pick.write_audit(result, place.audit, param.detailed_report_make_fp)
        for line in summary(result, adapted):
            log.info(line)
        for frame, complaint in (*result.rejected, *result.left_out.items()):
            log.info("system %03d rejected %s: %s", system, frame, complaint)
        picked += [
            {
                "label": f"task.{system:03d}.{number:06d}",
                "system": system,
                "task": frame.task,
                "step": frame.step,
                **({} if frame.atom is None else {"atom": frame.atom}),
                "max_devi_f": float(frames.force[row]),
            }
            for number, row, frame in result.picked
        ]
        systems[f"{system:03d}"] = {
            **{kind.name.lower(): result.count(kind) for kind in Kind},
            "picked": len(result.picked),
            "rejected": len(result.rejected) + len(result.left_out),
            "trust": asdict(levels),
        }
        for warning in warnings(result, levels):
            log.warning(warning)
    write_atomic(place.picked, json.dumps(picked, indent=1))
    totals = {
        kind: sum(item[kind] for item in systems.values()) for kind in ("accurate", "candidate", "failed", "picked")
    }
    return {**totals, "systems": systems}


def _trajectory(project: Project, run: Run) -> tuple[str, Deviation, NDArray[np.bool_] | None]:
    """Return the deviations along one trajectory, and which frames the health rules do not believe."""
    folder = project.workdir.root / run.task
    deviation = project.explorer.deviation(folder)
    if not project.param.activelearn.health:
        return run.task, deviation, None
    ratio = project.explorer.volume_ratio(folder, deviation.steps)
    return run.task, deviation, health.unhealthy_rows(deviation, ratio)


def _classify(param: Param, frames: Frames, levels: Levels) -> tuple[NDArray[np.int8], Levels, Levels | None]:
    """Return the kinds, the levels that decided, and these levels again if they follow from the frames."""
    if not param.model_devi_adapt_trust_lo:
        return trust.classify(frames, levels), levels, None
    rule = trust.Adaptive(
        param.model_devi_numb_candi_f,
        param.model_devi_numb_candi_v,
        param.model_devi_perc_candi_f,
        param.model_devi_perc_candi_v,
    )
    kinds, adapted = trust.adapt(frames, levels, rule)
    return kinds, adapted, adapted


def _check(project: Project) -> pick.Check | None:
    """Return the test of a frame's geometry, None if there is nothing to test."""
    param = project.param
    limits, vacuum, healthy = box_limits(param.fp_skip_bad_box), param.fp_cluster_vacuum, param.activelearn.health
    if not (limits or vacuum or healthy):
        return None
    cutoff = (project.trainer.cutoff() if healthy else None) or DEFAULT_CUTOFF

    def complaint(atoms: ase.Atoms) -> str | None:
        found = health.complaint(atoms, cutoff) if healthy else None
        return found or box.bad_box(atoms, limits) or (box.bad_cluster(atoms, vacuum) if vacuum else None)

    def check(frames: Iterable[FrameRef]) -> dict[FrameRef, str | None]:
        refs = list(frames)
        found = {frame: complaint(atoms) for frame, atoms in _read_frames(project, refs).items()}
        return {ref: found[ref.frame] for ref in refs if ref.frame in found}

    return check


def _read_frames(project: Project, frames: Iterable[FrameRef]) -> dict[FrameRef, Any]:
    """Read whole frames, opening each trajectory once; those that are not there are left out."""
    steps: dict[str, set[int]] = {}
    for frame in frames:
        steps.setdefault(frame.task, set()).add(frame.step)
    return {
        FrameRef(task, step): atoms
        for task, wanted in steps.items()
        for step, atoms in project.explorer.frames(project.workdir.root / task, wanted, project.param.type_map).items()
    }


def label(project: Project, iteration: int) -> Steps:
    """Label the picked frames and write the new data; good labels are kept whatever becomes of the others."""
    place, param = project.workdir.iteration(iteration), project.param
    picked = json.loads(place.picked.read_text())
    if not picked:
        log.info("no frame to label")
        return {"labelled": 0, "failed": 0, "failures": {}, "systems": {}}
    refs = {item["label"]: FrameRef(item["task"], item["step"], item.get("atom")) for item in picked}
    atoms = _read_frames(project, refs.values())
    if param.by_atom:
        atoms = clusters.around(refs.values(), atoms, param)
    else:
        atoms |= _made_by_dpgen(project, {place.label / name: ref for name, ref in refs.items() if ref not in atoms})
    missing = [ref for ref in refs.values() if ref not in atoms]
    if missing:
        raise EngineError(
            f"{len(missing)} picked frame(s) are not in the trajectories,"
            f" first {missing[0]}\n"
            f"    -> were files below {place.explore} deleted?"
        )
    held = {run["task"]: run["conditions"] for run in json.loads(place.runs.read_text())} if place.runs.exists() else {}
    frames = [
        Picked(item["label"], item["system"], atoms[refs[item["label"]]], held.get(item["task"], {})) for item in picked
    ]
    outcome = yield project.labeler.batch(place.label, frames)
    systems: dict[str, int] = {}
    for system in sorted({frame.system for frame in frames}):
        good = [frame for frame in frames if frame.system == system and frame.task in outcome.done]
        if good:
            labels = (_label(project, place.label / frame.task, frame) for frame in good)
            dataset.write(labels, place.labelled(system), list(param.type_map))
            systems[f"{system:03d}"] = len(good)
        else:
            shutil.rmtree(place.labelled(system), ignore_errors=True)  # of labels that are not valid any more
    ratio = len(outcome.failed) / len(frames)
    log.info("labelled %d frames, %d failed", len(outcome.done), len(outcome.failed))
    if outcome.failed:
        text = failed_tasks("label", place.label, outcome.failed)
        if ratio > param.ratio_failed:
            raise EngineError(
                f"{text}\n    -> {100 * ratio:.1f} % of the labels failed, more than ratio_failed"
                f" ({100 * param.ratio_failed:g} %);"
                " the good ones are kept.\n       Mend the cause or raise ratio_failed in param.json, and type the same"
                " command again: it repeats only what running again can cure."
            )
        log.warning(text)
    return {
        "labelled": len(outcome.done),
        "failed": len(outcome.failed),
        "failures": {name: failure.cause for name, failure in outcome.failed.items()},
        "systems": systems,
    }


def _label(project: Project, folder: Path, frame: Picked) -> Any:
    """Read one label, with what models are to know of its frame."""
    system = conditioned(project.labeler.read(folder), frame.conditions, project.param.use_ele_temp)
    return weighted(system, frame.atoms) if project.param.use_atom_pref else system


def _made_by_dpgen(project: Project, labels: Mapping[Path, FrameRef]) -> dict[FrameRef, Any]:
    """Read frames from the labels DP-GEN made of them: it deletes trajectories before it records the stage."""
    return {
        ref: structures.to_atoms(structures.read(file, "vasp/poscar", list(project.param.type_map)))
        for folder, ref in labels.items()
        if (file := folder / "POSCAR").exists()
    }


def failed_tasks(what: str, folder: Path, failed: Mapping[str, Failure]) -> str:
    """Return a table of failed tasks with their causes; equal causes are told once."""
    lines = [f"{len(failed)} {what}(s) failed in {folder}:"]
    causes = Counter(failure.cause for failure in failed.values())
    for cause, number in causes.most_common():
        some = [name for name, failure in failed.items() if failure.cause == cause]
        shown = ", ".join(some[:5]) + (f" and {number - 5} more" if number > 5 else "")
        lines.append(f"    {shown}: {cause}")
    return "\n".join(lines)


def clean(project: Project, iteration: int) -> None:
    """Delete trajectories as model_devi_clean_traj says; nothing depends on them any more."""
    keep = project.param.model_devi_clean_traj
    if keep is False:
        return
    number = iteration if keep is True else iteration - int(keep)
    if number < 0:
        return
    folder = project.workdir.iteration(number).explore
    for task in sorted(folder.glob("task.*")):
        for file in project.explorer.trajectories(task):
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink()
