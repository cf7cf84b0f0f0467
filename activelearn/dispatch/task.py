"""What is run: plain values that engines make and the dispatcher takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Retry(StrEnum):
    """When a failed task is worth running again with the same inputs."""

    NOW = "now"
    """In the next attempt, without being asked: it was killed from outside."""
    LATER = "later"
    """When the user says `al run` again, after mending the cause."""
    NEVER = "never"
    """Not before its inputs change: the same inputs give the same failure."""


KILLED = {129: "SIGHUP", 130: "SIGINT", 137: "SIGKILL", 143: "SIGTERM", 152: "SIGXCPU"}
"""Exit statuses of a task that somebody else ended; a crash of the program itself is none of them."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    cause: str
    retry: Retry = Retry.LATER
    detail: str = ""
    """Last lines of its log."""


Verdict = Mapping[str, Any] | Failure
"""What a finished task gave: facts about its outputs, or why they cannot be used."""


@dataclass(frozen=True)
class Task:
    """The unit of result, ledger and failure: one model, one MD, one label."""

    name: str
    """Folder, relative to the stage's."""
    forward: tuple[str, ...]
    """Input files, relative to the task's folder; their contents decide whether the task is done."""
    outputs: tuple[str, ...]
    """Files to fetch (patterns allowed)."""
    result: tuple[str, ...]
    """A done task has at least one of these files; where none is there any more it runs again."""
    restart: tuple[str, ...] = ()
    """Files of an interrupted attempt that the next one starts from (patterns)."""
    continued: tuple[str, ...] = ()
    """Outputs the next attempt appends to, if it has something to start from."""


Script = Callable[[str, Sequence[Task]], str]
"""(machine's command, tasks of one chunk) -> shell text, run in the task's folder or, for many, the stage's."""

Verify = Callable[[Task, int | None], Verdict]
"""(task, its exit status, None if it left none) -> verdict, from the task's own files."""


@dataclass(frozen=True)
class Batch:
    """The tasks of one round of a stage."""

    folder: Path
    """The stage's folder."""
    tasks: tuple[Task, ...]
    script: Script
    verify: Verify
    log: str
    """The file, in the folder a chunk runs in, that takes its standard output."""
    errors: str | None = None
    """The file that takes its standard error; None: the log."""
    common: tuple[str, ...] = ()
    """Input files all tasks share, relative to the stage's folder."""
    salvage: Verify | None = None
    """What a task that was killed too often is still worth; None: nothing."""
    grouped: bool = False
    """One process does many tasks (as many as the machine's group_size asks for)."""
    what: str = "task"
    """What a task is called in messages."""
    section: str = ""
    """What it runs with, if not with the section of machine.json that belongs to its stage: `export`."""


@dataclass(frozen=True)
class Outcome:
    """What came of a batch."""

    done: Mapping[str, Mapping[str, Any]]
    """Facts about each task that has its result, by name."""
    failed: Mapping[str, Failure] = field(default_factory=dict)
    """The others."""


@dataclass(frozen=True)
class Chunk:
    """The unit of dispatch: one command over one or more tasks."""

    name: str
    folder: str
    """Where it runs, relative to the stage's folder."""
    tasks: tuple[str, ...]
    digest: str
    forward: tuple[str, ...]
    backward: tuple[str, ...]

    @property
    def stem(self) -> str:
        """Prefix of the chunk's own files; many chunks may share the stage's folder."""
        return ".al" if self.folder != "." else f".al.{self.name}"
