"""Choose the frames to label, per system, and keep an account of all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelearn.config.param import ExplorationJob, Param
from activelearn.data.frames import FrameRef
from activelearn.files import write_lines_if_different
from activelearn.select.frames import Frames
from activelearn.select.trust import Kind

AUDIT = {Kind.CANDIDATE: "candidate", Kind.ACCURATE: "rest_accurate", Kind.FAILED: "rest_failed"}
"""The names of the audit files."""


@dataclass(frozen=True)
class Quota:
    """How many frames of a system to pick."""

    n_max: int
    n_min: int = -1
    """Pick none if it would be fewer."""
    soft: float = 1.0
    """From this share of accurate frames on, fewer are picked."""
    none: float = 1.0
    """From this share of accurate frames on, none is picked."""

    def most(self, accurate: float) -> int:
        """Return the most frames to pick where this share of all is accurate."""
        if accurate < self.soft:
            return self.n_max
        if accurate >= self.none:
            return 0
        return int(self.n_max * (accurate - self.none) / (self.soft - self.none))


def quota_of(param: Param, job: ExplorationJob) -> Quota:
    """Return how many frames of each system an exploration job asks for."""
    return Quota(param.fp_task_max, job.task_min, param.soft_threshold, param.fp_accurate_threshold)


@dataclass(frozen=True)
class Pick:
    """The selection of one system."""

    system: int
    frames: Frames
    kinds: NDArray[np.int8]
    """Kind of each frame, rejected candidates being failed, shape (F,)."""
    quota: Quota
    chosen: tuple[FrameRef, ...] = ()
    """Sorted by task and step: their places are the numbers of the labelling tasks."""
    rows: tuple[int, ...] = ()
    """Their rows in `frames`."""
    left_out: Mapping[FrameRef, str] = field(default_factory=dict)
    """Chosen frames that are not to be labelled after all, with the complaint: their numbers stay empty."""
    rejected: tuple[tuple[FrameRef, str], ...] = ()
    """Candidates whose place another one took, with the complaint; they count as failed."""
    order: Mapping[Kind, NDArray[np.int64]] = field(default_factory=dict)
    """Rows of each kind in shuffled order."""

    def count(self, kind: Kind) -> int:
        """Return the number of frames of a kind."""
        return int(np.count_nonzero(self.kinds == kind))

    @property
    def total(self) -> int:
        """Number of frames that were considered."""
        return len(self.kinds)

    @property
    def accurate_ratio(self) -> float:
        """Share of the accurate frames."""
        return self.count(Kind.ACCURATE) / max(1, self.total)

    @property
    def n_max(self) -> int:
        """Most frames to pick, with regard to the share of the accurate."""
        return self.quota.most(self.accurate_ratio)

    @property
    def picked(self) -> tuple[tuple[int, int, FrameRef], ...]:
        """Number of the labelling task, row in `frames`, and frame: what is to be labelled."""
        pairs = enumerate(zip(self.rows, self.chosen, strict=True))
        return tuple((number, row, ref) for number, (row, ref) in pairs if ref not in self.left_out)


Check = Callable[[Sequence[FrameRef]], Mapping[FrameRef, str | None]]
"""Look at frames; a complaint or None for each."""


def pick(
    system: int,
    frames: Frames,
    kinds: NDArray[np.int8],
    quota: Quota,
    rng: np.random.Generator,
    check: Check | None = None,
    backfill: bool = True,
) -> Pick:
    """Pick candidates at random.

    With `backfill`, candidates are looked at in shuffled order until enough of them are sane; those that are not count
    as failed, and the next ones take their place. Frames are opened only as long as that takes. Without it the chosen
    frames that are not sane are left out, and their numbers with them: this is what DP-GEN does.

    Parameters
    ----------
    system
        Index in sys_configs.
    frames
        All frames that were explored from this system.
    kinds
        A Kind per frame, shape (F,).
    quota
        How many to pick.
    rng
        Decides the order.
    check
        The test of a frame; None: all are sane.
    backfill
        Whether others take the place of frames that are not sane.
    """
    good: list[int]
    order = {}
    for kind in (Kind.CANDIDATE, Kind.ACCURATE, Kind.FAILED):
        rows = np.flatnonzero(kinds == kind)
        order[kind] = rows[rng.permutation(len(rows))]
    start = Pick(system, frames, kinds, quota, order=order)
    n_max = start.n_max
    candidates = order[Kind.CANDIDATE]
    if min(n_max, len(candidates)) < quota.n_min:
        return start
    if not backfill or check is None:
        good = np.sort(candidates[:n_max]).tolist()
        chosen = tuple(frames.ref(row) for row in good)
        left_out = {ref: text for ref, text in _complaints(check, chosen) if text is not None}
        return replace(start, chosen=chosen, rows=tuple(good), left_out=left_out)
    good = []
    bad: dict[int, tuple[FrameRef, str]] = {}
    position = 0
    while len(good) < n_max and position < len(candidates):
        some = candidates[position : position + n_max - len(good)].tolist()
        position += len(some)
        for row, (ref, complaint) in zip(some, _complaints(check, [frames.ref(row) for row in some]), strict=True):
            if complaint is None:
                good.append(row)
            else:
                bad[row] = (ref, complaint)
    if bad:
        refused = np.array(list(bad))
        kinds = kinds.copy()
        kinds[refused] = Kind.FAILED
        order[Kind.CANDIDATE] = candidates[~np.isin(candidates, refused)]
        order[Kind.FAILED] = np.concatenate([order[Kind.FAILED], refused])
    good = sorted(good) if len(good) >= quota.n_min else []
    chosen = tuple(frames.ref(row) for row in good)
    return Pick(system, frames, kinds, quota, chosen, tuple(good), rejected=tuple(bad.values()), order=order)


def _complaints(check: Check | None, refs: Sequence[FrameRef]) -> list[tuple[FrameRef, str | None]]:
    found: Mapping[FrameRef, str | None] = check(refs) if check and refs else dict.fromkeys(refs)
    return [(ref, found.get(ref, "the frame is not in the trajectory")) for ref in refs]


def write_audit(result: Pick, file: Callable[[str, int], Path], wanted: bool = True) -> None:
    """Write which frames or atoms were accurate, candidates, failed: one line `task step [atom]` for each, shuffled.

    There are no such files of a system without frames, and none where they are not wanted.
    """
    for kind, name in AUDIT.items():
        path = file(name, result.system)
        if wanted and result.total:
            write_lines_if_different(path, result.frames.lines(result.order[kind]))
        else:
            path.unlink(missing_ok=True)
