"""The iteration loop: asks the record, runs a stage, appends. It decides; it never computes."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from activelearn import stages
from activelearn.adopt import takeover
from activelearn.adopt.takeover import Estate
from activelearn.config.machine import Section
from activelearn.dispatch import batch
from activelearn.dispatch.batch import Site
from activelearn.project import Project
from activelearn.record import Done, Record
from activelearn.stages import Steps
from activelearn.workdir import STAGES

log = logging.getLogger(__name__)


def run(project: Project) -> Record:
    """Run or continue until every exploration job is done and the last data are trained on.

    Raises
    ------
    ActiveLearnError
        A stage cannot go on; running again continues from there.
    """
    record = Record.open(project.workdir)
    takeover.take_over(project, record)
    iteration = 0
    while True:
        last = iteration >= len(project.param.model_devi_jobs)
        for stage in STAGES[:1] if last else STAGES:
            done = record.get(iteration, stage)
            if done is None:
                log.info("-- iteration %d, %s", iteration, stage)
                done = _run_stage(project, record, iteration, stage)
                record.append(done)
                log.info("-- iteration %d, %s: done in %.1f s", iteration, stage, done.seconds)
            if stage == "label" and "made_by" not in done.result:  # DP-GEN has cleaned up after itself
                stages.clean(project, iteration)
        if last:
            return record
        iteration += 1


def _run_stage(project: Project, record: Record, iteration: int, stage: str) -> Done:
    """Run one stage: first what an earlier driver left in flight, then every batch the stage asks for."""
    folder = project.workdir.iteration(iteration).stage(stage)
    folder.mkdir(parents=True, exist_ok=True)
    started = record.start(iteration, stage)
    site = None
    if stage in project.machine.sections:
        section = project.machine.sections[stage]
        site = Site(project.workdir.root, section, project.param.activelearn.max_jobs, project.digests)
        batch.follow(folder, site)
    left = takeover.estate(record, iteration, stage, site, folder)
    result = _drive(_steps(project, record, iteration, stage), site, project.machine.export, record, left)
    seconds = (datetime.now(UTC) - started).total_seconds()
    return Done(iteration, stage, result, seconds, project.fingerprint(stage))


def _steps(project: Project, record: Record, iteration: int, stage: str) -> Steps:
    if stage == "train":
        previous = record.get(iteration - 1, "train")
        return stages.train(project, iteration, previous.result if previous else None)
    if stage == "explore":
        return stages.explore(project, iteration, record.done[iteration, "train"].result["models"])
    return stages.select(project, iteration) if stage == "select" else stages.label(project, iteration)


def _drive(steps: Steps, site: Site | None, export: Section, record: Record, left: Estate | None) -> dict[str, Any]:
    """Run each batch a stage yields and hand back what came of it, until it returns its result.

    Of the first batch, what DP-GEN `left` finished is not run again.
    """
    try:
        wanted = next(steps)
        while True:
            if site is None:
                raise RuntimeError("a stage without a machine asked for tasks")
            place = site
            if wanted.section == "export":
                place = replace(site, section=export)
                batch.follow(wanted.folder, place)
            elif left and not record.settled:
                takeover.claim(left, wanted, site, record)
            wanted = steps.send(batch.run(wanted, place))
    except StopIteration as stop:
        result: dict[str, Any] = stop.value
        return result
