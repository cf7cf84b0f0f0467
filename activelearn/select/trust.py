"""Classify frames by the ensemble's disagreement (DP-GEN's rules, vectorised)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from activelearn.config.selection import OFF
from activelearn.select.frames import Frames


class Kind(IntEnum):
    """What a frame counts as."""

    ACCURATE = 0
    CANDIDATE = 1
    FAILED = 2


@dataclass(frozen=True)
class Levels:
    """Trust levels of one system in one iteration: forces in eV/A, virial in eV."""

    f_lo: float
    f_hi: float
    v_lo: float
    v_hi: float


@dataclass(frozen=True)
class Adaptive:
    """How many of the frames below the upper trust levels are candidates."""

    numb_f: int
    numb_v: int
    perc_f: float
    """Percent."""
    perc_v: float
    """Percent."""


def classify(frames: Frames, levels: Levels) -> NDArray[np.int8]:
    """Classify frames by fixed trust levels.

    A frame is a candidate if its force or its virial deviation lies in [lo, hi); else accurate if both are below
    their lo; else failed. Frames whose deviations are not finite or not believed fail.

    Returns
    -------
    numpy.ndarray
        A Kind per frame, shape (F,).
    """
    f, v, good = _numbers(frames, min(levels.v_lo, levels.v_hi) < OFF)
    candidate = ((levels.f_lo <= f) & (f < levels.f_hi)) | ((levels.v_lo <= v) & (v < levels.v_hi))
    accurate = (f < min(levels.f_lo, levels.f_hi)) & (v < min(levels.v_lo, levels.v_hi))
    kinds = np.full(len(frames), Kind.FAILED, dtype=np.int8)
    kinds[good & accurate] = Kind.ACCURATE
    kinds[good & candidate] = Kind.CANDIDATE
    return kinds


def adapt(frames: Frames, levels: Levels, rule: Adaptive) -> tuple[NDArray[np.int8], Levels]:
    """Classify frames by their rank: those of the largest deviation that is not above its upper level are candidates.

    Equal deviations are ranked by task and step. The lower levels play no part.

    Returns
    -------
    tuple
        A Kind per frame, shape (F,), and the levels with the lower ones that this amounts to.
    """
    f, v, good = _numbers(frames, levels.v_hi < OFF or rule.numb_v > 0 or rule.perc_v > 0)
    kinds = np.full(len(frames), Kind.FAILED, dtype=np.int8)
    rows = np.flatnonzero(good & (f <= levels.f_hi) & (v <= levels.v_hi))
    kinds[rows] = Kind.ACCURATE
    lowest = []
    for values, hi, number, percent in (
        (f, levels.f_hi, rule.numb_f, rule.perc_f),
        (v, levels.v_hi, rule.numb_v, rule.perc_v),
    ):
        n = min(len(rows), max(number, int(percent * 0.01 * len(rows))))
        largest = rows[np.argsort(values[rows], kind="stable")[len(rows) - n :]]
        kinds[largest] = Kind.CANDIDATE
        lowest.append(float(values[largest[0]]) if n else hi)
    return kinds, Levels(lowest[0], levels.f_hi, lowest[1], levels.v_hi)


def _numbers(frames: Frames, virial: bool) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return both deviations with 0 for what is not finite, and which frames can be judged.

    Where the virial takes no part it need not be a number.
    """
    f_known, v_known = np.isfinite(frames.force), np.isfinite(frames.virial)
    good = f_known & ~frames.sick
    if virial:
        good &= v_known
    return np.where(f_known, frames.force, 0.0), np.where(v_known, frames.virial, 0.0), good
