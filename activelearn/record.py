"""The journal of a run (record.jsonl, append-only) and its mirror in DP-GEN's form (record.dpgen)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from activelearn.errors import RecordError
from activelearn.files import append_line, read_lines, write_atomic
from activelearn.workdir import STAGES, Workdir

log = logging.getLogger(__name__)

FORMAT = 1
_DPGEN_STAGES = {"train": range(3), "label": range(3, 9)}
"""The stage numbers of DP-GEN that are written when one of ours is recorded."""
_N_STAGES = 9
"""Stages of an iteration of DP-GEN."""
_LAST_RUN = {"train": 2, "explore": 4, "select": 6, "label": 8}
"""The stage number of DP-GEN after which one of ours is finished."""


@dataclass(frozen=True)
class Done:
    """One finished stage."""

    iteration: int
    stage: str
    result: Mapping[str, Any]
    seconds: float
    """Wall time from its first start to its end, s, pauses between two drivers included."""
    fingerprint: str = ""
    """Of the settings it used."""


@dataclass(frozen=True)
class Position:
    """Where DP-GEN stopped: the last line of record.dpgen."""

    iteration: int
    number: int
    """Of its nine stages, the last one that is finished."""

    def finished(self, iteration: int, stage: str) -> bool:
        """Return whether DP-GEN has computed all of one of our stages."""
        return iteration < self.iteration or (iteration == self.iteration and self.number >= _LAST_RUN[stage])

    @property
    def current(self) -> tuple[int, str]:
        """The stage of ours that DP-GEN was in, or about to begin."""
        for stage in STAGES:
            if not self.finished(self.iteration, stage):
                return self.iteration, stage
        return self.iteration + 1, STAGES[0]

    @property
    def calculated(self) -> bool:
        """Whether the calculations of the current stage have all ended."""
        return (self.current[1], self.number) in (("train", 1), ("label", 7))


@dataclass(frozen=True)
class Lead:
    """What DP-GEN did that we have not recorded."""

    position: Position
    stages: tuple[tuple[int, str], ...]
    """Our stages that it finished, in order."""


@dataclass
class Record:
    """What is known to be finished."""

    workdir: Workdir
    done: dict[tuple[int, str], Done] = field(default_factory=dict)
    started: dict[tuple[int, str], datetime] = field(default_factory=dict)
    inherited: Position | None = None
    """Where DP-GEN stopped when its work was last taken over."""
    inherited_lines: int = 0
    """How many lines record.dpgen had then."""
    settled: bool = True
    """Whether what DP-GEN left of the stage it was in is taken over."""

    @classmethod
    def open(cls, workdir: Workdir) -> Record:
        """Read the journal; a torn last line is dropped with a warning, unknown events are kept and skipped.

        Raises
        ------
        RecordError
            It was written by a newer version, or record.dpgen tells another story.
        """
        record = cls(workdir)
        events, torn = read_lines(workdir.record)
        if torn:
            log.warning("%s: %d torn line(s) left out; what they recorded is done again", workdir.record, torn)
        for event in events:
            kind = event.get("event")
            if kind == "format" and event.get("version", 0) > FORMAT:
                message = f"{workdir.record} has format {event['version']}, this activelearn reads {FORMAT}"
                raise RecordError(f"{message}\n    -> update activelearn")
            if kind == "adopted":
                record._forget(Position(*event["position"]), event["lines"])
            if kind == "settled":
                record.settled = True
            if kind not in ("started", "stage") or "iteration" not in event or "stage" not in event:
                continue
            key = (event["iteration"], event["stage"])
            if kind == "started":
                record.started[key] = datetime.fromisoformat(event["time"])
            else:
                record.done[key] = Done(*key, event["result"], event["seconds"], event.get("fingerprint", ""))
        return record

    def get(self, iteration: int, stage: str) -> Done | None:
        """Return a finished stage, None if it is not finished."""
        return self.done.get((iteration, stage))

    def start(self, iteration: int, stage: str) -> datetime:
        """Note that a stage begins; return when it first did."""
        if (iteration, stage) not in self.started:
            now = datetime.now(UTC)
            self._write({"event": "started", "iteration": iteration, "stage": stage, "time": now.isoformat()})
            self.started[iteration, stage] = now
        return self.started[iteration, stage]

    def _write(self, event: dict[str, Any]) -> None:
        if not self.workdir.record.exists():
            append_line(self.workdir.record, {"event": "format", "version": FORMAT})
        append_line(self.workdir.record, event)

    def append(self, item: Done) -> None:
        """Record a finished stage, on disk when this returns."""
        self._write(
            {
                "event": "stage",
                "iteration": item.iteration,
                "stage": item.stage,
                "result": dict(item.result),
                "seconds": round(item.seconds, 3),
                "fingerprint": item.fingerprint,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        self.done[item.iteration, item.stage] = item
        self.mirror()

    def adopt(self, position: Position) -> None:
        """Note that DP-GEN went on up to `position`; what was known of later stages does not count any more."""
        lines = len(_read_dpgen(self.workdir))
        self._write({"event": "adopted", "position": [position.iteration, position.number], "lines": lines})
        self._forget(position, lines)

    def settle(self) -> None:
        """Note that what DP-GEN left of the stage it was in is taken over."""
        self._write({"event": "settled"})
        self.settled = True

    def _forget(self, position: Position, lines: int) -> None:
        self.inherited, self.inherited_lines, self.settled = position, lines, False
        for known in (self.done, self.started):
            for key in [key for key in known if not position.finished(*key)]:
                del known[key]

    def mirror(self) -> None:
        """Append to record.dpgen what it lacks."""
        have = _read_dpgen(self.workdir)
        missing = self._dpgen_lines()[len(have) :]
        if missing:
            write_atomic(self.workdir.dpgen_record, "".join(f"{i} {stage}\n" for i, stage in [*have, *missing]))

    def ahead(self) -> Lead | None:
        """Compare with record.dpgen before anything is done; return what DP-GEN did if it went on here.

        Raises
        ------
        RecordError
            The two tell different stories: somebody rolled one of them back.
        """
        ours, theirs = self._dpgen_lines(), _read_dpgen(self.workdir)
        if ours == theirs:
            return None
        name = self.workdir.dpgen_record
        if len(theirs) > len(ours) and theirs[: len(ours)] == ours:
            new = theirs[max(len(ours), self.inherited_lines) :]
            return _lead(new) if new else None
        crashed = ours[: len(theirs)] == theirs and not _newer(self.workdir)
        if crashed:
            self.mirror()
            return None
        raise RecordError(
            f"{name} was changed after {self.workdir.record} was written, and is not what it should be.\n"
            f"    -> delete {name} to go on from {self.workdir.record.name} (it is written anew)"
        )

    def _dpgen_lines(self) -> list[tuple[int, int]]:
        return [
            (iteration, number)
            for iteration in sorted({i for i, _ in self.done})
            for stage in STAGES
            if (iteration, stage) in self.done
            for number in _DPGEN_STAGES.get(stage, ())
        ]


def _lead(lines: Sequence[tuple[int, int]]) -> Lead:
    """Return what DP-GEN did in new lines; a stage of which it did a part again is all its own."""
    position = Position(*lines[-1])
    touched = {(iteration, number >= _DPGEN_STAGES["label"].start) for iteration, number in lines}
    stages = tuple(
        (iteration, stage)
        for iteration in sorted({iteration for iteration, _ in lines})
        for stage in STAGES
        if (iteration, stage != "train") in touched and position.finished(iteration, stage)
    )
    return Lead(position, stages)


def _read_dpgen(workdir: Workdir) -> list[tuple[int, int]]:
    """Return all that record.dpgen says is done: whatever stands before its last line, DP-GEN counts that alone.

    A torn last line is left out.
    """
    try:
        text = workdir.dpgen_record.read_text()
    except FileNotFoundError:
        return []
    found = []
    whole = text.endswith("\n")
    lines = text.splitlines()
    for place, line in enumerate(lines):
        words = line.split()
        if len(words) == 2 and all(word.isdigit() for word in words):
            found.append((int(words[0]), int(words[1])))
        elif words and (whole or place < len(lines) - 1):
            raise RecordError(f"{workdir.dpgen_record}: {line!r} is not 'iteration stage'\n    -> delete this line")
    if not found:
        return []
    last, number = found[-1]
    return [(i, n) for i in range(last + 1) for n in range(_N_STAGES if i < last else number + 1)]


def _newer(workdir: Workdir) -> bool:
    return workdir.dpgen_record.exists() and workdir.dpgen_record.stat().st_mtime_ns > workdir.record.stat().st_mtime_ns
