"""Run a batch to its end: what is done is not run again, what is in flight is followed, the rest is submitted."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activelearn.config.machine import Section, without_secrets
from activelearn.dispatch import hpc, wrapper
from activelearn.dispatch.ledger import Digests, Ledger
from activelearn.dispatch.task import KILLED, Batch, Chunk, Failure, Outcome, Retry, Task
from activelearn.errors import DispatchError
from activelearn.files import write_atomic, write_if_different

log = logging.getLogger(__name__)

LOCAL = ("local", "lazylocal")


@dataclass(frozen=True)
class Site:
    """Where a stage's tasks run."""

    root: Path
    """The run's folder."""
    section: Section
    max_jobs: int | None
    digests: Digests


def follow(folder: Path, site: Site) -> None:
    """Follow what an earlier driver left in flight in this stage to its end, exactly as it was submitted."""
    file = folder / hpc.IN_FLIGHT
    try:
        request = json.loads(file.read_text())
    except FileNotFoundError:
        return
    log.info("following %d task(s) that are in flight (attempt %d)", _n_tasks(request), request["attempt"])
    _carry_out(request, folder, site, fresh=False)


def run(batch: Batch, site: Site) -> Outcome:
    """Run every task of the batch that is not done, as often as its failures can be cured by running again.

    Raises
    ------
    DispatchError
        Tasks could not be submitted or followed.
    """
    ledger = Ledger.open(batch.folder)
    digests = {task.name: digest(task, batch, site) for task in batch.tasks}
    _judge(batch, ledger, digests)
    fresh = {
        task.name
        for task in batch.tasks
        if _again(ledger, task.name, digests[task.name], Retry.NOW, Retry.LATER) or _vanished(ledger, task, batch)
    }
    rounds = 0
    while True:
        todo = [task for task in batch.tasks if task.name in fresh or _missing(ledger, task.name, digests[task.name])]
        if rounds > 0 and rounds <= site.section.retry_count:
            todo += [task for task in batch.tasks if _again(ledger, task.name, digests[task.name], Retry.NOW)]
        if not todo:
            break
        fresh = set()
        rounds += 1
        for task in todo:
            _clear_stale(task, batch, ledger, digests[task.name])
        request = _request(batch, todo, digests, ledger.attempt + 1, site)
        done = len(batch.tasks) - len(todo)
        log.info("%d %s(s) to run%s", len(todo), batch.what, f", {done} done before" if done else "")
        write_atomic(batch.folder / hpc.IN_FLIGHT, json.dumps(request, indent=1))
        _carry_out(request, batch.folder, site, fresh=True)
        ledger = Ledger.open(batch.folder)
        _judge(batch, ledger, digests)
    _salvage(batch, ledger)
    return _outcome(batch, ledger)


def _missing(ledger: Ledger, name: str, digest: str) -> bool:
    """Return whether a task never ran with these inputs."""
    entry = ledger.entries.get(name)
    return entry is None or entry.digest != digest


def _vanished(ledger: Ledger, task: Task, batch: Batch) -> bool:
    """Return whether a task was done and somebody deleted its result since."""
    entry = ledger.entries.get(task.name)
    there = any((batch.folder / task.name / name).exists() for name in task.result)
    return entry is not None and entry.done and not there


def _salvage(batch: Batch, ledger: Ledger) -> None:
    """Keep what tasks that were killed once too often have written."""
    for task in batch.tasks if batch.salvage else ():
        entry = ledger.entries[task.name]
        if batch.salvage and isinstance(entry.verdict, Failure) and entry.verdict.retry is Retry.NOW:
            verdict = batch.salvage(task, entry.code)
            if not isinstance(verdict, Failure):
                ledger.judged(task.name, verdict)


def _again(ledger: Ledger, name: str, digest: str, *kinds: Retry) -> bool:
    entry = ledger.entries.get(name)
    return (
        entry is not None
        and entry.digest == digest
        and isinstance(entry.verdict, Failure)
        and entry.verdict.retry in kinds
    )


def digest(task: Task, batch: Batch, site: Site) -> str:
    """Return the fingerprint of a task: its command and the contents of its input files."""
    files = [(name, batch.folder / task.name / name) for name in task.forward]
    files += [(f"../{name}", batch.folder / name) for name in batch.common]
    files += [(f"user/{Path(name).name}", site.root / name) for name in site.section.forward]
    return site.digests.of_inputs(batch.script("", (task,)), files)


def _judge(batch: Batch, ledger: Ledger, digests: Mapping[str, str]) -> None:
    """Look at the outputs of each task that ran and was not looked at yet."""
    for task in batch.tasks:
        entry = ledger.entries.get(task.name)
        if entry is None or entry.digest != digests[task.name] or entry.verdict is not None:
            continue
        folder = batch.folder / task.name
        verdict = batch.verify(task, entry.code)
        if isinstance(verdict, Failure):
            if entry.code is None or entry.code in KILLED:
                how = "without a word" if entry.code is None else f"by {KILLED[entry.code]}"
                verdict = Failure(f"killed from outside {how}", Retry.NOW, verdict.detail)
            elif entry.code == 127:
                verdict = Failure(f"command not found (exit status 127); {verdict.cause}", Retry.LATER, verdict.detail)
            log.warning("%s %s failed: %s\n%s", batch.what, folder, verdict.cause, _indented(verdict.detail))
        else:
            verdict = {"seconds": entry.seconds, **verdict}
        ledger.judged(task.name, verdict)


def _clear_stale(task: Task, batch: Batch, ledger: Ledger, digest: str) -> None:
    """Remove outputs of other inputs, or of a result that was refused: nothing may continue from them."""
    entry = ledger.entries.get(task.name)
    if entry is None:
        return
    refused = isinstance(entry.verdict, Failure) and entry.verdict.retry is Retry.NEVER
    if entry.digest == digest and not refused:
        return
    folder = batch.folder / task.name
    log.info("%s %s: its inputs changed, it runs again from the start", batch.what, folder)
    logs = (batch.log, *((batch.errors,) if batch.errors else ()))
    for pattern in (*task.outputs, *task.restart, *logs):
        for file in folder.glob(pattern):
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink()


def _chunks(batch: Batch, todo: Sequence[Task], digests: Mapping[str, str], section: Section) -> Iterator[Chunk]:
    restart = {task.name: _leftovers(batch.folder / task.name, task) for task in todo}
    if not batch.grouped:
        for task in todo:
            outputs = (*task.outputs, *task.restart, batch.log, *((batch.errors,) if batch.errors else ()))
            forward = (*task.forward, *restart[task.name])
            yield Chunk(task.name, task.name, (task.name,), digests[task.name], forward, outputs)
        return
    size = section.group_size or len(todo)
    size = max(1, -(-size // max(1, section.para_deg)))
    for number, start in enumerate(range(0, len(todo), size)):
        some = todo[start : start + size]
        joined = hashlib.sha256("".join(digests[task.name] for task in some).encode()).hexdigest()[:32]
        name = f"chunk.{number:03d}"
        forward = tuple(f"{t.name}/{file}" for t in some for file in (*t.forward, *restart[t.name]))
        outputs = tuple(f"{t.name}/{file}" for t in some for file in (*t.outputs, *t.restart))
        log_file = f"{name}.{batch.log}"
        yield Chunk(name, ".", tuple(t.name for t in some), joined, forward, (*outputs, log_file))


def _leftovers(folder: Path, task: Task) -> list[str]:
    """Return the files of an interrupted attempt that the next one needs."""

    def there(patterns: tuple[str, ...]) -> list[str]:
        files = {file for pattern in patterns for file in folder.glob(pattern)}
        # a checkpoint may be a folder
        full = (file for file in files if file.is_dir() or (file.is_file() and file.stat().st_size))
        return sorted(str(file.relative_to(folder)) for file in full)

    restart = there(task.restart)
    return [*restart, *there(task.continued)] if restart else []


def _request(
    batch: Batch, todo: Sequence[Task], digests: Mapping[str, str], attempt: int, site: Site
) -> dict[str, Any]:
    """Write the wrapper of each chunk and return what batch.json holds: the submission, to be rebuilt from it alone."""
    section = site.section
    by_name = {task.name: task for task in todo}
    chunks = []
    for chunk in _chunks(batch, todo, digests, section):
        folder = batch.folder / chunk.folder
        log_file = batch.log if not batch.grouped else f"{chunk.name}.{batch.log}"
        script = batch.script(section.command, [by_name[name] for name in chunk.tasks])
        write_if_different(folder / f"{chunk.stem}.sh", wrapper.text(chunk.stem, script, log_file, batch.errors))
        forward = [*chunk.forward, f"{chunk.stem}.sh"]
        for given in section.forward:
            source = (site.root / given).resolve()
            if source != (folder / source.name).resolve():
                shutil.copyfile(source, folder / source.name)
            forward.append(source.name)
        chunks.append(
            {
                **asdict(chunk),
                "forward": forward,
                "backward": [*chunk.backward, f"{chunk.stem}.status", *section.backward],
                "command": f"bash {chunk.stem}.sh {chunk.digest} {attempt}",
                "log": f"{chunk.stem}.out",
                "status": f"{chunk.stem}.status",
            }
        )
    resources = dict(section.resources)
    if batch.grouped:  # a chunk holds a job's tasks already; a job runs para_deg chunks side by side
        resources["group_size"] = max(1, section.para_deg)
    context = str(section.machine["context_type"]).lower().removesuffix("context")
    return {
        "attempt": attempt,
        "digests": {task.name: digests[task.name] for task in todo},
        "chunks": chunks,
        "common": sorted(batch.common),
        "machine": without_secrets(dict(section.machine)),
        "resources": without_secrets(resources),
        "local": context in LOCAL,
        "root": str(site.root),
        "max_jobs": site.max_jobs,
    }


def _carry_out(request: Mapping[str, Any], folder: Path, site: Site, fresh: bool) -> None:
    """Submit or follow one request, then write down how its tasks ended; only then forget that it was in flight."""
    try:
        ended = hpc.run(request, folder.resolve(), site.section, fresh)
    except hpc.NothingSubmittedError:
        (folder / hpc.IN_FLIGHT).unlink()  # nothing is in flight: the next start may use another machine
        raise
    ran: dict[str, tuple[str, int | None, float]] = {}
    said: dict[str, str] = {}
    for chunk in request["chunks"]:
        if chunk["command"] in ended.unsubmitted:
            continue
        status = wrapper.read_status(folder / chunk["folder"] / chunk["status"])
        ours = status if status and (status.digest, status.attempt) == (chunk["digest"], request["attempt"]) else None
        for name in chunk["tasks"]:
            seconds = ours.seconds / len(chunk["tasks"]) if ours else 0.0
            ran[name] = (request["digests"][name], ours.code if ours else None, seconds)
            if ours is None and ended.reasons.get(chunk["command"]):
                said[name] = ended.reasons[chunk["command"]]
    for name, text in said.items():
        log.warning("the job of %s ended before the task did; it printed:\n%s", folder / name, _indented(text))
    Ledger.open(folder).ran(ran, request["attempt"], said)
    (folder / hpc.IN_FLIGHT).unlink()
    ended.clean()
    for chunk in request["chunks"]:
        if chunk["folder"] == ".":
            (folder / chunk["status"]).unlink(missing_ok=True)
    if ended.refusal:
        raise DispatchError(ended.refusal)


def _outcome(batch: Batch, ledger: Ledger) -> Outcome:
    done: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, Failure] = {}
    for task in batch.tasks:
        verdict = ledger.entries[task.name].verdict
        if isinstance(verdict, Failure):
            failed[task.name] = verdict
        elif verdict is not None:
            done[task.name] = verdict
    return Outcome(done, failed)


def _n_tasks(request: Mapping[str, Any]) -> int:
    return sum(len(chunk["tasks"]) for chunk in request["chunks"])


def _indented(text: str) -> str:
    return "\n".join(f"    | {line}" for line in text.splitlines())
