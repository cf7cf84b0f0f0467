"""What can go wrong, and how it is said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input file, and what to do about it."""

    file: str
    path: str
    """JSON path inside the file, such as `model_devi_jobs[0].temps`; empty when the whole file is meant."""
    message: str
    hint: str = ""
    level: Literal["error", "warning"] = "error"
    kind: Literal["syntax", "files"] = "syntax"
    """Whether it is about what is written in the input file, or about files named there."""

    def __str__(self) -> str:
        where = f"{self.file}: {self.path}" if self.path else self.file
        return f"{where}: {self.message}" + (f"\n    -> {self.hint}" if self.hint else "")


def about_files(problems: Iterable[Problem]) -> list[Problem]:
    """Mark problems as being about files that an input file names, not about what is written in it."""
    return [replace(problem, kind="files") for problem in problems]


class ActiveLearnError(Exception):
    """Anything the user is told in plain words instead of a traceback."""


class ConfigError(ActiveLearnError):
    """The input files have problems; all of them are in `problems`."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecordError(ActiveLearnError):
    """The record of the run cannot be continued as it stands."""


class DispatchError(ActiveLearnError):
    """Tasks could not be submitted, followed or fetched."""


class EngineError(ActiveLearnError):
    """A stage cannot go on: its tasks failed."""
