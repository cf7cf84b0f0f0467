"""Choose the frames to label, per system, and keep an account of all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activelearn.data.frames import FrameRef
from activelearn.files import write_if_different
from activelearn.select.trust import Kind


@dataclass(frozen=True)
class Classified:
    """One trajectory after classification."""

    task: str
    """Folder of the task, relative to the run."""
    steps: NDArray[np.int64]
    """Shape (F,)."""
    force: NDArray[np.float64]
    """Largest force deviation, eV/A, shape (F,)."""
    kinds: NDArray[np.int8]
    """Kind per frame, shape (F,)."""


@dataclass(frozen=True)
class Pick:
    """The selection of one system."""

    system: int
    accurate: int
    candidate: int
    failed: int
    picked: tuple[FrameRef, ...]
    """Sorted by task and step: the order in which the labelling tasks are numbered."""
    shuffled: dict[str, list[FrameRef]] = field(default_factory=dict)
    """All frames by kind, in shuffled order."""
    rejected: tuple[tuple[FrameRef, str], ...] = ()
    """Candidates whose geometry is not sane, with the complaint; they count as failed."""

    @property
    def total(self) -> int:
        """Number of frames that were considered."""
        return self.accurate + self.candidate + self.failed


Check = Callable[[Sequence[FrameRef]], dict[FrameRef, str | None]]
"""Look at frames; a complaint or None for each."""


def pick(
    system: int, trajectories: Iterable[Classified], n_max: int, rng: np.random.Generator, check: Check | None = None
) -> Pick:
    """Pick at most `n_max` candidates at random.

    Candidates are looked at in shuffled order until `n_max` of them are sane; those that are not count as failed, and
    the next ones take their place. Frames are opened only as long as that takes.

    Parameters
    ----------
    system
        Index in sys_configs.
    trajectories
        All trajectories that started from this system.
    n_max
        Most frames to pick.
    rng
        Decides the order.
    check
        The test of a frame's geometry; None: all are sane.
    """
    frames = _by_kind(trajectories, rng)
    candidates = frames[Kind.CANDIDATE]
    good: list[FrameRef] = []
    bad: list[tuple[FrameRef, str]] = []
    position = 0
    while len(good) < n_max and position < len(candidates):
        some = candidates[position : position + n_max - len(good)]
        position += len(some)
        complaints = check(some) if check else dict.fromkeys(some)
        for frame in some:
            complaint = complaints.get(frame, "the frame is not in the trajectory")
            if complaint is None:
                good.append(frame)
            else:
                bad.append((frame, complaint))
    refused = {frame for frame, _ in bad}
    if refused:
        candidates = [frame for frame in candidates if frame not in refused]
    failed = frames[Kind.FAILED] + [frame for frame, _ in bad]
    return Pick(
        system=system,
        accurate=len(frames[Kind.ACCURATE]),
        candidate=len(candidates),
        failed=len(failed),
        picked=tuple(sorted(good)),
        shuffled={"candidate": candidates, "rest_accurate": frames[Kind.ACCURATE], "rest_failed": failed},
        rejected=tuple(bad),
    )


def _by_kind(trajectories: Iterable[Classified], rng: np.random.Generator) -> dict[Kind, list[FrameRef]]:
    """Return the frames of each kind in shuffled order."""
    ordered = sorted(trajectories, key=lambda trajectory: trajectory.task)
    found: dict[Kind, list[FrameRef]] = {}
    for kind in (Kind.CANDIDATE, Kind.ACCURATE, Kind.FAILED):
        frames = [
            FrameRef(trajectory.task, int(step))
            for trajectory in ordered
            for step in trajectory.steps[trajectory.kinds == kind]
        ]
        found[kind] = [frames[place] for place in rng.permutation(len(frames))]
    return found


def write_audit(result: Pick, file: Callable[[str, int], Path]) -> None:
    """Write which frames were accurate, candidates and failed: one line `task step` per frame, shuffled."""
    for kind, frames in result.shuffled.items():
        write_if_different(file(kind, result.system), "".join(f"{frame.task} {frame.step}\n" for frame in frames))


def summary(result: Pick, n_max: int) -> list[str]:
    """Return DP-GEN's lines about one system, as people parse them."""
    total = max(1, result.total)
    lines = [
        f"system {result.system:03d} {name:9s} : {number:6d} in {result.total:6d} {100 * number / total:6.2f} %"
        for name, number in (("candidate", result.candidate), ("failed", result.failed), ("accurate", result.accurate))
    ]
    lines.append(
        f"system {result.system:03d} accurate_ratio: {result.accurate / total:8.4f}"
        f"    thresholds: {1.0:.4f} and {1.0:.4f}   eff. task min and max {-1:4d} {n_max:4d}"
        f"   number of fp tasks: {len(result.picked):6d}"
    )
    return lines
