"""What DP-GEN left of a stage: the submissions it made, their jobs and their outputs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from activelearn.config.machine import Section
from activelearn.dispatch import hpc
from activelearn.errors import DispatchError

log = logging.getLogger(__name__)

JOB_ID = "_job_id"
"""End of the name of the file in which dpdispatcher keeps the number of a job."""


def follow(folder: Path, root: Path, section: Section, also: Sequence[str]) -> frozenset[str]:
    """Wait for the jobs DP-GEN left running in a stage and fetch their outputs.

    Parameters
    ----------
    folder
        The stage's folder.
    root
        The run's folder.
    section
        The section of machine.json that DP-GEN used; its remote_root is searched.
    also
        Files to fetch beside those DP-GEN asked for: what an interrupted task can be continued from (patterns).

    Returns
    -------
    frozenset of str
        Names of the tasks that ended well.

    Raises
    ------
    DispatchError
        There are jobs that cannot be followed; they are named.
    """
    context = str(section.machine["context_type"]).lower().removesuffix("context")
    if context not in ("local", "lazylocal"):
        return _remote(folder, root, section, also)
    shell = str(section.machine["batch_type"]).lower() == "shell"
    homes = list(_homes(folder, root, section))
    for home in homes:
        if shell:
            _wait_for_processes(home)
    records = [file for home in homes for file in home.glob("*.json") if _is_ours(file, folder)]
    if not records:
        return frozenset().union(*(_unrecorded(home, folder, shell) for home in homes))
    newest = max(records, key=lambda file: file.stat().st_mtime_ns)
    for file in records:
        if file != newest:
            log.info("%s is an earlier submission of this stage: not looked at", file)
    log.info("DP-GEN left a submission in %s", newest.parent)
    done = hpc.inherit(json.loads(newest.read_text()), newest.stem, root, also)
    if newest.parent != folder:
        log.info("all of it is in %s now; %s is not needed any more", folder, newest.parent)
    return done


def _remote(folder: Path, root: Path, section: Section, also: Sequence[str]) -> frozenset[str]:
    """Do the same for a stage whose tasks run on another computer."""
    records = hpc.remote_records(section, root)
    if records is None:
        where = section.machine["context_type"]
        log.warning("what DP-GEN left on %s cannot be looked at: tasks that did not come back run again", where)
        return frozenset()
    mine = [(name, found) for name, found in records if _describes(found, folder)]
    if not mine:
        return frozenset()
    name, found = mine[-1]
    log.info("DP-GEN left a submission in %s/%s", section.machine.get("remote_root"), name)
    return hpc.inherit(found, name, root, also)


def _homes(folder: Path, root: Path, section: Section) -> Iterator[Path]:
    """Yield the folders in which dpdispatcher may keep a submission of this stage: its own, and below remote_root."""
    yield folder
    remote = section.machine.get("remote_root")
    if not remote:
        return
    base = root / os.path.expanduser(remote)  # noqa: PTH111
    for home in sorted(base.glob("*/")):
        if any(_is_ours(file, folder) for file in home.glob("*.json")) or _points_to(home, folder):
            yield home


def _is_ours(file: Path, folder: Path) -> bool:
    """Return whether a file describes a submission of this stage of this run, made by another program."""
    try:
        return _describes(json.loads(file.read_text()), folder)
    except (OSError, ValueError):
        return False


def _describes(found: Any, folder: Path) -> bool:
    try:
        made_in, stage = Path(found["machine"]["local_root"]), Path(found["work_base"])
        jobs = found["belonging_jobs"]
    except (KeyError, TypeError):
        return False
    return bool(jobs) and not stage.is_absolute() and (made_in / stage).resolve() == folder.resolve()


def _points_to(home: Path, folder: Path) -> bool:
    """Return whether a folder of tasks has links to the inputs of this stage."""
    target = folder.resolve()
    return any(file.is_symlink() and file.resolve().is_relative_to(target) for file in home.glob("*/*"))


def _unrecorded(home: Path, folder: Path, shell: bool) -> frozenset[str]:
    """Wait for jobs that DP-GEN submitted and wrote down nowhere, as it was killed in between; keep what they left."""
    numbers = {file: file.read_text().strip() for file in sorted(home.glob(f"*{JOB_ID}"))}
    out = {
        file: number
        for file, number in numbers.items()
        if not (home / file.name.replace(JOB_ID, "_job_tag_finished")).exists()
    }
    if out and not shell:
        raise DispatchError(
            f"DP-GEN was killed while it submitted jobs in {home} and did not write them down:"
            f" {', '.join(out.values())} may be running\n"
            f"    -> end them or wait for their end, then delete {home}/*{JOB_ID} and type the same command again"
        )
    if shell:
        _wait_for_processes(home)
    if home != folder:
        for file in home.glob("*/**/*"):
            target = folder / file.relative_to(home)
            if file.is_file() and not file.is_symlink() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    for file in numbers:
        file.unlink()
    return frozenset(tag.parent.name for tag in home.glob("*/*_task_tag_finished"))


def _wait_for_processes(home: Path) -> None:
    """Wait until no process works in a folder: what a killed job started may outlive it."""
    told: set[str] = set()
    while busy := _working_in(home):
        for number, command in busy.items():
            if number not in told:
                log.info("waiting for process %s in %s (end it if it is no job): %s", number, home, command)
        told |= set(busy)
        time.sleep(1)


def _working_in(home: Path) -> dict[str, str]:
    """Return the processes of this computer that work in a folder or below it: number and command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(home.resolve()):
                found[process.name] = (process / "cmdline").read_text().replace("\0", " ").strip()[:80]
        except OSError:
            continue  # it ended, or is somebody else's
    return found


def refuse_living(root: Path) -> None:
    """Refuse to go on beside a DP-GEN that runs here.

    Raises
    ------
    DispatchError
        One does; its process is named.
    """
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
            here = (process / "cwd").readlink() == root.resolve()
        except OSError:
            continue
        if here and any(Path(word).name == "dpgen" for word in words[:3]):
            raise DispatchError(
                f"DP-GEN runs here: process {process.name} ({' '.join(words).strip()[:80]})\n"
                "    -> end it (its jobs may go on: they are waited for), and type the same command again"
            )
