"""Drive dpdispatcher: submit a request job by job, follow it, fetch what it left. All of it happens here."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activelearn.config.machine import Section, with_secrets
from activelearn.dispatch import library
from activelearn.errors import DispatchError

log = logging.getLogger(__name__)

IN_FLIGHT = "batch.json"
"""Holds the request that is under way, in the stage's folder."""
SHORTEST_WAIT, LONGEST_WAIT, SHARE = 0.1, 30.0, 0.05
"""Seconds between two looks at the jobs: a share of the time since anything last happened, within these bounds."""


def complaints(machine: Mapping[str, Any], resources: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what dpdispatcher would not accept, as (key, message)."""
    module = library.load()
    from dpdispatcher.base_context import BaseContext

    found: list[tuple[str, str]] = []
    batch, context = machine.get("batch_type"), machine.get("context_type")
    machines = module.Machine.subclasses_dict
    if batch not in machines:
        options = ", ".join(sorted(module.Machine.options))
        found.append(("machine.batch_type", f"{batch!r} is no batch system; dpdispatcher has {options}"))
    if context not in BaseContext.subclasses_dict:
        options = ", ".join(sorted(BaseContext.options))
        found.append(("machine.context_type", f"{context!r} is no context; dpdispatcher has {options}"))
    elif BaseContext.subclasses_dict[context].__name__ == "LocalContext" and not machine.get("remote_root"):
        found.append(("machine.remote_root", "is missing: LocalContext runs tasks in a folder of its own below it"))
    if found:
        return found
    try:
        full = {"local_root": "./", **machine}
        base = module.Machine.arginfo()
        base.check_value(base.normalize_value(full, trim_pattern="_*"), strict=False)
    except Exception as error:  # noqa: BLE001  dargs has many kinds of error, all of them about the value
        found.append(("machine", str(error).replace("\n", " ")))
    try:
        full = {"batch_type": batch, **resources}
        base = module.Resources.arginfo(detail_kwargs=False)
        base.check_value(base.normalize_value(full, trim_pattern="_*"), strict=False)
        module.Resources.load_from_dict(dict(full))
    except Exception as error:  # noqa: BLE001
        found.append(("resources", str(error).replace("\n", " ")))
    return found


@dataclass(frozen=True)
class Ended:
    """A request whose jobs have all ended and whose outputs are here."""

    reasons: Mapping[str, str]
    """For each command whose job did not end well, what the job printed."""
    unsubmitted: frozenset[str]
    """Commands whose jobs the batch system refused."""
    refusal: str
    """What it said, empty where it took all of them."""
    clean: Callable[[], None]
    """Removes dpdispatcher's own files; to be called when the results are written down."""


class NothingSubmittedError(DispatchError):
    """No job of a request could be submitted: nothing is in flight."""


def run(request: Mapping[str, Any], work_base: Path, section: Section, fresh: bool) -> Ended:
    """Carry out a request, or go on with it if it is under way: submit, follow, fetch.

    Parameters
    ----------
    request
        What `batch.json` holds: tasks, common files, machine and resources (without secrets), attempt.
    work_base
        The stage's folder, absolute.
    section
        The section of machine.json, for the secrets that the request lacks.
    fresh
        The request is new: no earlier driver can have submitted a job of it.

    Raises
    ------
    NothingSubmittedError
        The batch system took no job.
    DispatchError
        dpdispatcher refused, or the batch system could not be reached.
    """
    where = f"dpdispatcher, stage folder {work_base}"
    submission: Any = None
    out = not fresh  # whether jobs may be out
    try:
        submission = _submission(request, work_base, section)
        with library.quiet(), library.same_random():
            submission.generate_jobs()
            submission.try_recover_from_json()
        out = any(job.job_id for job in submission.belonging_jobs)
        refusal = _follow(submission, _limit(request))
        refused = [job for job in submission.belonging_jobs if not job.job_id]
        if len(refused) == len(submission.belonging_jobs):
            raise NothingSubmittedError(f"{where}: {refusal}\n    -> mend machine.json and type the same command again")
        _fetch(submission)
    except DispatchError:
        raise
    except Exception as error:
        message = f"{where}: {type(error).__name__}: {error}"
        if out or (submission and any(job.job_id for job in submission.belonging_jobs)):
            raise DispatchError(
                f"{message}\n    -> type the same command again: it follows the jobs that are out"
                f" (if their machine is gone for good, delete {work_base / IN_FLIGHT})"
            ) from error
        raise NothingSubmittedError(f"{message}\n    -> mend machine.json and type the same command again") from error
    commands = frozenset(task.command for job in refused for task in job.job_task_list)
    return Ended(_reasons(submission), commands, refusal, lambda: _clean(submission, work_base))


def _submission(request: Mapping[str, Any], work_base: Path, section: Section) -> Any:
    module = library.load()
    machine = with_secrets(request["machine"], section.machine)
    machine |= {"local_root": str(work_base), "retry_count": 0}
    if machine.get("remote_root") and request["local"]:
        machine["remote_root"] = str(Path(request["root"]) / os.path.expanduser(machine["remote_root"]))  # noqa: PTH111
    given = with_secrets(request["resources"], section.resources)
    resources = module.Resources.load_from_dict({**given, "batch_type": machine["batch_type"]})
    tasks = [
        module.Task(
            command=chunk["command"],
            task_work_path=chunk["folder"],
            forward_files=chunk["forward"],
            backward_files=chunk["backward"],
            outlog=chunk["log"],
            errlog=chunk["log"],
        )
        for chunk in request["chunks"]
    ]
    return module.Submission(
        work_base=str(work_base),
        machine=module.Machine.load_from_dict(machine),
        resources=resources,
        forward_common_files=list(request["common"]),
        backward_common_files=[],
        task_list=tasks,
        continue_on_failure=True,
    )


def remote_records(section: Section, root: Path) -> list[tuple[str, Any]] | None:
    """Read the submissions' own files below remote_root of a machine that is reached by SSH.

    Returns
    -------
    list or None
        Name (HASH) and content of each, the newest last; None if the machine's folders cannot be looked into.

    Raises
    ------
    DispatchError
        The machine cannot be reached.
    """
    module = library.load()
    found: list[tuple[float, str, Any]] = []
    try:
        with library.quiet(), library.same_random():
            context = module.Machine.load_from_dict({**section.machine, "local_root": str(root)}).context
        if not hasattr(context, "sftp"):
            return None
        for name in sorted(context.sftp.listdir(context.temp_remote_root)):
            file = f"{context.temp_remote_root}/{name}/{name}.json"
            with contextlib.suppress(OSError, ValueError), context.sftp.open(file) as stream:
                found.append((stream.stat().st_mtime or 0.0, name, json.loads(stream.read())))
    except Exception as error:
        where = section.machine.get("remote_profile", {}).get("hostname", section.machine["context_type"])
        message = f"what DP-GEN left on {where} cannot be looked at: {type(error).__name__}: {error}"
        raise DispatchError(f"{message}\n    -> type the same command again when the machine can be reached") from error
    return [(name, content) for _, name, content in sorted(found, key=lambda item: item[:2])]


def inherit(found: Mapping[str, Any], name: str, root: Path, also: Sequence[str]) -> frozenset[str]:
    """Wait for the jobs of a submission that another program (DP-GEN) made, and fetch what they left.

    Nothing is submitted: a task that did not end well is not started again.

    Parameters
    ----------
    found
        The content of the submission's own file, HASH.json.
    name
        HASH, the name of its folder.
    root
        The run's folder.
    also
        Files to fetch beside those the submission promised (patterns, relative to a task's folder).

    Returns
    -------
    frozenset of str
        Folders of the tasks that ended well, relative to the stage's.

    Raises
    ------
    DispatchError
        The batch system or the machine could not be reached.
    """
    try:
        return _inherit(found, name, root, also)
    except Exception as error:
        message = f"the submission {name} of DP-GEN cannot be followed: {type(error).__name__}: {error}"
        raise DispatchError(f"{message}\n    -> type the same command again when its machine can be reached") from error


def _inherit(found: Mapping[str, Any], name: str, root: Path, also: Sequence[str]) -> frozenset[str]:
    module = library.load()
    given = {**found["machine"], "local_root": str(root), "retry_count": 0}
    if given.get("remote_root") and given["context_type"].lower().removesuffix("context") == "local":
        given["remote_root"] = str(root / os.path.expanduser(given["remote_root"]))  # noqa: PTH111
    with library.quiet(), library.same_random():
        machine = module.Machine.load_from_dict(given)
        submission = module.Submission.deserialize(dict(found), machine=machine, bind_context=False)
        submission.submission_hash = name  # it names the folder; what it was made from may have moved
        machine.context.bind_submission(submission)
    jobs = [job for job in submission.belonging_jobs if job.job_id]
    wait, told = SHORTEST_WAIT, False
    while True:
        with library.quiet():
            for job in jobs:
                job.get_job_state()
        out = [str(job.job_id) for job in jobs if job.job_state not in (*_over(), _state("terminated"))]
        if not out:
            break
        if not told:
            log.info("waiting for %d job(s) that DP-GEN left running: %s", len(out), ", ".join(out))
            told = True
        time.sleep(wait)
        wait = min(LONGEST_WAIT, 1.5 * wait)
    with library.quiet():
        _fetch(submission)
        for task in submission.belonging_tasks:  # apart: files are moved, and a promised one may link to one of these
            task.backward_files = list(also)
        _fetch(submission)
        return frozenset(
            task.task_work_path for task in submission.belonging_tasks if task.has_finished_tag(machine.context)
        )


def _limit(request: Mapping[str, Any]) -> int:
    """Return how many jobs may be out at once: the cores of this machine, or the user's limit for a queue."""
    if request["machine"]["batch_type"].lower() != "shell":
        return int(request["max_jobs"] or 10**9)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    each = max(int(request["resources"].get(key, 1)) for key in ("para_deg", "cpu_per_node"))
    jobs = max(1, cores // max(1, each))
    return min(jobs, int(request["max_jobs"])) if request["max_jobs"] else jobs


def _follow(submission: Any, limit: int) -> str:
    """Submit jobs one by one, each written down at once, and watch until all have ended.

    Returns
    -------
    str
        What the batch system said when it refused a job; then no further one was submitted.
    """
    refusal = ""
    recovered = any(job.job_id for job in submission.belonging_jobs)
    if not recovered:
        submission.upload_jobs()
        submission.submission_to_json()
    changed, before = time.monotonic(), ""
    while True:
        with library.quiet():
            submission.update_submission_state()
            # with retry_count 0 this only marks jobs that ended badly; nothing is submitted again
            for job in submission.belonging_jobs:
                if job.job_state == _state("terminated"):
                    job.handle_unexpected_job_state(continue_on_failure=True)
        if not refusal:
            refusal = _submit(submission, limit)
        now = _summary(submission)
        waiting = [job for job in submission.belonging_jobs if job.job_state not in _over()]
        if not waiting or (refusal and not any(job.job_id for job in waiting)):
            log.debug("jobs: %s", now)
            return refusal
        if now != before:
            log.debug("jobs: %s", now)
            changed, before = time.monotonic(), now
        time.sleep(min(LONGEST_WAIT, max(SHORTEST_WAIT, SHARE * (time.monotonic() - changed))))


def _state(name: str) -> Any:
    from dpdispatcher.utils.job_status import JobStatus

    return getattr(JobStatus, name)


def _over() -> tuple[Any, Any]:
    return _state("finished"), _state("failed")


def _submit(submission: Any, limit: int) -> str:
    """Submit jobs up to the limit; return what the batch system said if it refused one."""
    idle = _state("unsubmitted")
    out = sum(job.job_state not in (idle, None, *_over()) for job in submission.belonging_jobs)
    for job in submission.belonging_jobs:
        if out >= limit:
            return ""
        if job.job_state == idle:
            try:
                job.submit_job()
            except Exception as error:  # noqa: BLE001  whatever a batch system or a connection throws
                return f"a job could not be submitted: {error}"
            submission.submission_to_json()
            out += 1
    return ""


def _summary(submission: Any) -> str:
    names = [getattr(job.job_state, "name", "unsubmitted") for job in submission.belonging_jobs]
    return ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))


def _fetch(submission: Any) -> None:
    """Fetch whatever outputs are there, of failed jobs too; nobody's missing file stops the others."""
    submission.machine.context.download(submission, check_exists=True, mark_failure=False)


def _reasons(submission: Any) -> dict[str, str]:
    """Return what a failed job printed before any task of it started or after it was killed."""
    reasons: dict[str, str] = {}
    for job in submission.belonging_jobs:
        if job.job_state != _state("failed"):
            continue
        said = ""
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            name = f"{job.job_hash}.out"
            if submission.machine.context.check_file_exists(name):
                said = submission.machine.context.read_file(name)
        for task in job.job_task_list:
            reasons[task.command] = said.strip()[-2000:]
    return reasons


def _clean(submission: Any, work_base: Path) -> None:
    """Remove dpdispatcher's own files, here and in the remote folder; what cannot be removed stays."""
    try:
        submission.clean_jobs()
    except Exception as error:  # noqa: BLE001  the results are here: nothing that happens now may stop the run
        log.warning("the remote folder of %s could not be removed: %s", work_base, error)
    names = [f"{submission.submission_hash}.json"]
    for job in submission.belonging_jobs:
        names += [f".{job.job_hash}.sub", f".{job.job_hash}.sub.run"]
        names += [f"{job.job_hash}{end}" for end in ("_job_id", ".out", "_job_tag_finished", "_flag_if_job_task_fail")]
        names += [f"{job.job_hash}_last_err_file", f"{job.job_hash}.sub", f"{job.job_hash}.sub.run"]
        names += [f"{task.task_work_path}/{task.task_hash}_task_tag_finished" for task in job.job_task_list]
    for name in names:
        with contextlib.suppress(OSError):
            (work_base / name).unlink(missing_ok=True)
