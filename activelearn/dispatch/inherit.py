"""What DP-GEN left of a stage: the submissions it made, their jobs and their outputs."""

from __future__ import annotations

import json
import logging
import os
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
        The section of machine.json that DP-GEN used; its remote_root is searched where it is on this computer.
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
    done: set[str] = set()
    context = str(section.machine["context_type"]).lower().removesuffix("context")
    if context not in ("local", "lazylocal"):
        log.warning(
            "what DP-GEN may have left on %s is not looked at: tasks that did not come back run again",
            section.machine["context_type"],
        )
    for home in _homes(folder, root, section):
        records = [file for file in sorted(home.glob("*.json")) if _is_ours(file, folder)]
        if not records:
            _refuse_untraceable(home, str(section.machine["batch_type"]).lower() == "shell")
        for file in records:
            log.info("DP-GEN left a submission in %s", home)
            done |= hpc.inherit(json.loads(file.read_text()), file.stem, root, also)
    return frozenset(done)


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
        found: Any = json.loads(file.read_text())
        made_in, stage = Path(found["machine"]["local_root"]), found["work_base"]
        jobs = found["belonging_jobs"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(jobs) and not Path(stage).is_absolute() and (made_in / stage).resolve() == folder.resolve()


def _points_to(home: Path, folder: Path) -> bool:
    """Return whether a folder of tasks has links to the inputs of this stage."""
    target = folder.resolve()
    return any(file.is_symlink() and file.resolve().is_relative_to(target) for file in home.glob("*/*"))


def _refuse_untraceable(home: Path, shell: bool) -> None:
    """Stop at jobs that DP-GEN submitted and wrote down nowhere: it was killed while it submitted."""
    alive = []
    for file in sorted(home.glob(f"*{JOB_ID}")):
        number = file.read_text().strip()
        if not (home / file.name.replace(JOB_ID, "_job_tag_finished")).exists() and (not shell or _lives(number)):
            alive.append((number, file))
    if alive:
        numbers = ", ".join(number for number, _ in alive)
        raise DispatchError(
            f"DP-GEN was killed while it submitted jobs in {home}: {numbers} may be running, and it did not write"
            f" them down\n    -> end them or wait, then delete {home}/*{JOB_ID} and type the same command again"
        )


def _lives(number: str) -> bool:
    return number.isdigit() and Path(f"/proc/{number}").exists()
