"""Which task of a stage is done, by the fingerprint of its inputs: ledger.jsonl in the stage's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activelearn.dispatch.task import Failure, Retry
from activelearn.errors import DispatchError
from activelearn.files import append_line, read_lines

NAME = "ledger.jsonl"


class Digests:
    """Digests of file contents, computed once while size and time of the file stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str] = {}

    def of_file(self, file: Path) -> str:
        """Return the SHA-256 of a file's content, or of all files below a folder.

        Raises
        ------
        DispatchError
            The file is not there.
        """
        if file.is_dir():
            inner = sorted(path for path in file.rglob("*") if path.is_file())
            listing = "".join(f"{path.relative_to(file)}\0{self.of_file(path)}\0" for path in inner)
            return hashlib.sha256(listing.encode()).hexdigest()
        try:
            stat = file.stat()
            key = (str(file), stat.st_size, stat.st_mtime_ns)
            if key not in self._known:
                with file.open("rb") as stream:
                    self._known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DispatchError(f"input file {file} cannot be read: {error.strerror}") from None
        return self._known[key]

    def of_inputs(self, script: str, files: Iterable[tuple[str, Path]]) -> str:
        """Return one digest of a command and its named input files."""
        total = hashlib.sha256(script.encode())
        for name, file in sorted(files):
            total.update(f"\0{name}\0{self.of_file(file)}".encode())
        return total.hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """What is known of one task: its last run, and what its outputs are worth."""

    digest: str
    attempt: int
    code: int | None
    """Exit status; None: killed from outside."""
    seconds: float
    verdict: Mapping[str, Any] | Failure | None = None
    """None: it ran and was not looked at yet."""

    @property
    def done(self) -> bool:
        """Whether the task has its result."""
        return self.verdict is not None and not isinstance(self.verdict, Failure)


@dataclass
class Ledger:
    """The ledger of one stage."""

    file: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    attempt: int = 0
    """The last attempt that was made."""

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Read the ledger of the stage in `folder`; torn lines are left out."""
        ledger = cls(folder / NAME)
        for line in read_lines(ledger.file)[0]:
            ledger._apply(line)
        return ledger

    def ran(self, tasks: Mapping[str, tuple[str, int | None, float]], attempt: int, reasons: Mapping[str, str]) -> None:
        """Note that tasks ran: name -> (digest, exit status, wall time in s)."""
        value = {
            "event": "ran",
            "attempt": attempt,
            "tasks": {name: list(item) for name, item in tasks.items()},
            "reasons": dict(reasons),
        }
        append_line(self.file, value)
        self._apply(value)

    def judged(self, name: str, verdict: Mapping[str, Any] | Failure) -> None:
        """Note what a task's outputs are worth."""
        value: dict[str, Any] = {"event": "judged", "task": name, "digest": self.entries[name].digest}
        if isinstance(verdict, Failure):
            value["failed"] = {"cause": verdict.cause, "retry": verdict.retry.value, "detail": verdict.detail}
        else:
            value["done"] = dict(verdict)
        append_line(self.file, value)
        self._apply(value)

    def _apply(self, line: Mapping[str, Any]) -> None:
        if line.get("event") == "ran":
            self.attempt = max(self.attempt, line["attempt"])
            for name, (digest, code, seconds) in line["tasks"].items():
                self.entries[name] = Entry(digest, line["attempt"], code, seconds)
        elif line.get("event") == "judged" and line["task"] in self.entries:
            entry = self.entries[line["task"]]
            if "failed" in line:
                failed = line["failed"]
                verdict: Any = Failure(failed["cause"], Retry(failed["retry"]), failed["detail"])
            else:
                verdict = line["done"]
            self.entries[line["task"]] = Entry(entry.digest, entry.attempt, entry.code, entry.seconds, verdict)
