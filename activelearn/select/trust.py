"""Classify frames by the ensemble's disagreement (DP-GEN's rule, vectorised)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from activelearn.config.param import OFF
from activelearn.data.deviation import Deviation


class Kind(IntEnum):
    """What a frame counts as."""

    SKIPPED = -1
    """Before model_devi_skip."""
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


def classify(deviation: Deviation, levels: Levels, skip: int = 0) -> NDArray[np.int8]:
    """Classify each frame of one trajectory.

    A frame is a candidate if its force or its virial deviation lies in [lo, hi); else accurate if both are below
    their lo; else failed. Deviations that are not finite fail. Frames of MD steps below `skip` are skipped.

    Returns
    -------
    numpy.ndarray
        A Kind per frame, shape (F,).
    """
    f, v = deviation.force, deviation.virial
    finite = np.isfinite(f) & (np.isfinite(v) | (levels.v_lo >= OFF))
    with np.errstate(invalid="ignore"):
        v = np.where(np.isfinite(v), v, 0.0)
        candidate = ((levels.f_lo <= f) & (f < levels.f_hi)) | ((levels.v_lo <= v) & (v < levels.v_hi))
        accurate = (f < levels.f_lo) & (v < levels.v_lo)
    kinds = np.select([~finite, candidate, accurate], [Kind.FAILED, Kind.CANDIDATE, Kind.ACCURATE], Kind.FAILED)
    kinds[deviation.steps < skip] = Kind.SKIPPED
    return kinds.astype(np.int8)
