"""Go on with a run of DP-GEN: its finished stages become ours, and of the one it was in all that is done is kept."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activelearn.adopt import finished
from activelearn.dispatch import batch as batches
from activelearn.dispatch import inherit
from activelearn.dispatch.batch import Site
from activelearn.dispatch.ledger import Ledger
from activelearn.dispatch.task import Batch, Failure, Retry, Task, Verdict
from activelearn.files import move_aside
from activelearn.project import Project
from activelearn.record import Done, Position, Record

log = logging.getLogger(__name__)

LEFTOVERS = ("checkpoint", "model.ckpt-*", "dpgen.restart.*", "log.lammps")
"""Files of interrupted tasks that DP-GEN does not fetch and that a task can be continued from."""
INPUTS = {"train": ("input.json",), "explore": ("input.lammps", "job.json")}
"""The inputs of a task of DP-GEN, which are kept under another name where ours take their place."""
KEPT = ".dpgen"
ENDED = {"explore": ("model_devi.log", "Total wall time")}
"""What shows that a task has come to its end where the outputs alone do not: a file and a text in it."""


def take_over(project: Project, record: Record) -> None:
    """Record what DP-GEN finished since we looked last.

    Raises
    ------
    RecordError
        record.dpgen contradicts our record, or files of a stage that it says is finished are missing.
    """
    lead = record.ahead()
    if lead is None:
        return
    inherit.refuse_living(project.workdir.root)
    position = lead.position
    message = "DP-GEN worked here up to iteration %d, stage %d: going on from there"
    log.info(message, position.iteration, position.number)
    for iteration, stage in lead.stages:
        result = finished.result(project, record, position, iteration, stage)
        if result is None and (iteration, stage) == lead.stages[-1]:
            position = Position(iteration, _BEFORE[stage])
            break
        record.append(Done(iteration, stage, {**(result or {}), "made_by": finished.DPGEN}, 0.0))
        log.info("-- iteration %d, %s: done by DP-GEN", iteration, stage)
    iteration, stage = position.current
    folder = project.workdir.iteration(iteration).label
    if stage == "select" and folder.exists():
        if position != lead.position:  # its labelling tasks may be under way
            inherit.follow(folder, project.workdir.root, project.machine.sections["label"], ())
        log.warning("%s of DP-GEN cannot be gone on with: kept as %s", folder, move_aside(folder).name)
    record.adopt(position)


_BEFORE = {"train": 1, "explore": 3, "select": 5, "label": 7}
"""The stage number of DP-GEN after which there is something to verify in a stage of ours."""


@dataclass(frozen=True)
class Estate:
    """What DP-GEN left of the stage it was in."""

    stage: str
    ended: frozenset[str]
    """Tasks that ended well."""
    all_ended: bool
    """DP-GEN recorded that all calculations of the stage have ended."""


def estate(record: Record, iteration: int, stage: str, site: Site | None, folder: Path) -> Estate | None:
    """Wait for what DP-GEN left running in a stage and fetch it; None where there is nothing to take over."""
    if record.settled or record.inherited is None or record.inherited.current != (iteration, stage):
        return None
    ended: frozenset[str] = frozenset()
    if site is not None:
        _keep_inputs(folder, stage)
        ended = inherit.follow(folder, site.root, site.section, LEFTOVERS)
    return Estate(stage, ended, record.inherited.calculated)


def _keep_inputs(folder: Path, stage: str) -> None:
    for name in INPUTS.get(stage, ()):
        for file in sorted(folder.glob(f"*/{name}")):
            kept = file.with_name(file.name + KEPT)
            if not kept.exists():
                shutil.copyfile(file, kept)


def _other_settings(stage: str, folder: Path) -> bool:
    """Return whether DP-GEN ran a task under other settings than ours: param.json was changed since."""
    name, parts = _COMPARED.get(stage, ("", ()))
    try:
        theirs, ours = (json.loads((folder / file).read_text()) for file in (name + KEPT, name))
    except (OSError, ValueError):
        return False
    return any(_plain(theirs.get(part)) != _plain(ours.get(part)) for part in parts or {*theirs, *ours})


_COMPARED: dict[str, tuple[str, tuple[str, ...]]] = {
    "train": ("input.json", ("model", "learning_rate", "loss")),
    "explore": ("job.json", ()),
}
"""For each stage the file that says under which settings a task ran, and its parts that count (none: all)."""


def _plain(value: Any) -> Any:
    """Return a value without seeds."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "seed"}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def claim(left: Estate, wanted: Batch, site: Site, record: Record) -> None:
    """Enter the tasks that DP-GEN finished, and whose outputs verify, into the ledger of a stage.

    Those that cannot be used are entered with inputs that nothing has: they are stale, their outputs are removed and
    they run from the start. Those that were interrupted are not entered, and go on from what is there. From then on the
    stage is ours, and what DP-GEN left elsewhere is not looked at again.
    """
    ledger = Ledger.open(wanted.folder)
    kept = 0
    for task in wanted.tasks:
        folder = wanted.folder / task.name
        if task.name in ledger.entries:
            continue
        if _other_settings(left.stage, folder):
            log.warning("%s %s of DP-GEN ran under other settings than param.json has now", wanted.what, folder)
            ledger.ran({task.name: (finished.DPGEN, 0, 0.0)}, ledger.attempt, {})
            continue
        ended = left.all_ended or task.name in left.ended
        if not (ended or _complete(left.stage, folder)):
            continue
        verdict = wanted.verify(task, 0)
        if not isinstance(verdict, Failure):
            _enter(ledger, task, wanted, site, {"seconds": 0.0, **verdict, "made_by": finished.DPGEN})
            kept += 1
        elif ended:  # not interrupted: there is nothing to go on from
            log.warning("%s %s of DP-GEN is not used: %s", wanted.what, folder, verdict.cause)
            if verdict.retry is Retry.NEVER and left.stage != "train":
                _enter(ledger, task, wanted, site, verdict)
            else:
                ledger.ran({task.name: (finished.DPGEN, 0, 0.0)}, ledger.attempt, {})
    log.info("%d of %d %s(s) were finished by DP-GEN", kept, len(wanted.tasks), wanted.what)
    record.settle()


def _enter(ledger: Ledger, task: Task, wanted: Batch, site: Site, verdict: Verdict) -> None:
    ledger.ran({task.name: (batches.digest(task, wanted, site), 0, 0.0)}, ledger.attempt, {})
    ledger.judged(task.name, verdict)


def _complete(stage: str, folder: Path) -> bool:
    """Return whether a task that nobody says has ended has come to its end; verification looks at the outputs."""
    if stage not in ENDED:
        return True
    name, text = ENDED[stage]
    try:
        return text in (folder / name).read_text(errors="replace")
    except OSError:
        return False
