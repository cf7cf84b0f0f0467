"""The keys of param.json that decide which explored frames are labelled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, NonNegativeInt

from activelearn.config.base import Settings
from activelearn.errors import Problem
from activelearn.plugins import suggest

Level = float | list[float] | dict[str, float]
"""A trust level: one number, one per entry of sys_configs, or {"sys_idx": number}."""

LEVELS = ("model_devi_f_trust_lo", "model_devi_f_trust_hi", "model_devi_v_trust_lo", "model_devi_v_trust_hi")
OFF = 1e10
"""A virial trust level that is never reached: the virial does not take part (DP-GEN's default)."""

BOX_CRITERIA = ("length_ratio", "height_ratio", "wrap_ratio", "tilt_ratio", "min_distance")
"""What fp_skip_bad_box can ask for."""
_OTHER_NAMES = {"min_dist": "min_distance"}


class JobSelection(Settings):
    """The keys of one exploration job that decide about its frames."""

    model_devi_f_trust_lo: Level | None = None
    """Lower trust level of the forces in this iteration, eV/A."""
    model_devi_f_trust_hi: Level | None = None
    """Upper trust level of the forces in this iteration, eV/A."""
    model_devi_v_trust_lo: Level | None = None
    """Lower trust level of the virial in this iteration, eV."""
    model_devi_v_trust_hi: Level | None = None
    """Upper trust level of the virial in this iteration, eV."""
    task_min: int = -1
    """Label nothing of a system in this iteration if fewer frames than this would be picked."""


class Selection(Settings):
    """The keys of param.json that decide which explored frames are labelled."""

    model_devi_skip: NonNegativeInt = 0
    """Frames of MD steps (not structures) below this number are not considered."""
    model_devi_f_trust_lo: Level
    """Frames whose largest force deviation is below are accurate, eV/A."""
    model_devi_f_trust_hi: Level
    """Frames whose largest force deviation is not below are failed, eV/A."""
    model_devi_v_trust_lo: Level = OFF
    """The same for the virial deviation, eV; off by default."""
    model_devi_v_trust_hi: Level = OFF
    """The same for the virial deviation, eV; off by default."""
    model_devi_adapt_trust_lo: bool = False
    """The frames of largest deviation below the upper trust levels are candidates; the lower levels are not used."""
    model_devi_numb_candi_f: NonNegativeInt = 10
    """Adaptive: at least this many candidates per system for their force deviation."""
    model_devi_numb_candi_v: NonNegativeInt = 0
    """Adaptive: at least this many candidates per system for their virial deviation."""
    model_devi_perc_candi_f: Annotated[float, Field(ge=0)] = 0.0
    """Adaptive: at least this share of the frames that did not fail for their force deviation, percent."""
    model_devi_perc_candi_v: Annotated[float, Field(ge=0)] = 0.0
    """Adaptive: at least this share of the frames that did not fail for their virial deviation, percent."""
    fp_task_max: NonNegativeInt
    """Most frames labelled per iteration and system."""
    fp_task_min: NonNegativeInt
    """New data of a system with fewer frames is not trained on; with none at all the models are carried over."""
    fp_accurate_threshold: Annotated[float, Field(ge=0)] = 1.0
    """Label nothing of a system if at least this share of its frames is accurate."""
    fp_accurate_soft_threshold: Annotated[float, Field(ge=0)] | None = None
    """From this share of accurate frames on, fp_task_max falls linearly to 0 at fp_accurate_threshold."""
    detailed_report_make_fp: bool = True
    """Write which frames were accurate, candidates and failed; false: no such files (candidate.*, rest_*)."""
    fp_skip_bad_box: str | None = None
    """Do not label cells beyond "length_ratio:5;height_ratio:5;wrap_ratio:0.5;tilt_ratio:0.5;min_distance:1.0" (A)."""
    fp_cluster_vacuum: Annotated[float, Field(gt=0)] | None = None
    """Do not label clusters with less vacuum between their images than this, A."""

    @property
    def soft_threshold(self) -> float:
        """The share of accurate frames from which on fewer frames are labelled."""
        soft = self.fp_accurate_soft_threshold
        return self.fp_accurate_threshold if soft is None else soft

    def trust(self, name: str, job: JobSelection, system: int) -> float:
        """Return one trust level of one system in one iteration; the job's own goes first.

        Raises
        ------
        LookupError
            The level is given by system, and not for this one.
        """
        own: Level | None = getattr(job, name)
        level: Level = getattr(self, name) if own is None else own
        if isinstance(level, dict):
            return level[str(system)]
        return level[system] if isinstance(level, list) else level

    def selection_problems(self, file: str, n_systems: int) -> Iterator[Problem]:
        """Yield what contradicts itself outside of the jobs."""
        for name in LEVELS:
            yield from _one_per_system(file, name, getattr(self, name), n_systems)
        if self.soft_threshold > self.fp_accurate_threshold:
            message = f"{self.soft_threshold} is above fp_accurate_threshold, {self.fp_accurate_threshold}"
            hint = "the larger one alone decides then; swap them for a soft end"
            yield Problem(file, "fp_accurate_soft_threshold", message, hint, "warning")
        if self.model_devi_adapt_trust_lo:
            for name in ("model_devi_perc_candi_f", "model_devi_perc_candi_v"):
                share = getattr(self, name)
                if 0 < share < 1:
                    message = f"{share} means {share} % of the frames"
                    yield Problem(
                        file, name, message, f"the unit is percent: write {share * 100:g} for that", "warning"
                    )
        for piece in _pieces(self.fp_skip_bad_box):
            complaint, hint = _complaint(piece)
            if complaint:
                yield Problem(file, "fp_skip_bad_box", complaint, hint)

    def job_problems(
        self, file: str, where: str, job: JobSelection, systems: list[int], n_systems: int
    ) -> Iterator[Problem]:
        """Yield what is wrong with the trust levels of the job called `where`, which explores `systems`."""
        for name in LEVELS:
            yield from _one_per_system(file, f"{where}.{name}", getattr(job, name), n_systems)
        for system in systems:
            for kind, unit in (("f", "eV/A"), ("v", "eV")):
                values: list[float] = []
                names = [f"model_devi_{kind}_trust_{end}" for end in ("lo", "hi")]
                places = [name if getattr(job, name) is None else f"{where}.{name}" for name in names]
                for name, place in zip(names, places, strict=True):
                    try:
                        values.append(self.trust(name, job, system))
                    except LookupError:
                        level = getattr(self if place == name else job, name)
                        if list(_aliens(level, n_systems)):
                            continue  # most likely one mistake, and told already
                        message = f"no {name} for system {system}, which {where} explores"
                        yield Problem(file, place, message, f'add "{system}": <{unit}>')
                if len(values) < 2 or self.model_devi_adapt_trust_lo:
                    continue
                lo, hi = values
                if not (0 <= lo < hi or (kind == "v" and lo >= OFF)):
                    message = f"lower trust level {lo} is not below the upper one {hi} {unit} (system {system})"
                    yield Problem(file, places[0], message, "swap them, or write 0 <= lo < hi")


def _one_per_system(file: str, where: str, level: Level | None, n_systems: int) -> Iterator[Problem]:
    if isinstance(level, list) and len(level) != n_systems:
        message = f"{len(level)} levels for {n_systems} entries of sys_configs"
        yield Problem(file, where, message, "write one per entry")
    for key in _aliens(level, n_systems):
        message = f"{key!r} is no index of sys_configs (it has {n_systems} entries)"
        yield Problem(file, f"{where}.{key}", message, f'keys are "0" to "{n_systems - 1}"')


def _aliens(level: Level | None, n_systems: int) -> Iterator[str]:
    """Yield the keys of a level given by system that are no index of sys_configs."""
    if isinstance(level, dict):
        yield from (key for key in level if not key.isdigit() or int(key) >= n_systems)


def _pieces(text: str | None) -> list[str]:
    return [piece.strip() for piece in (text or "").split(";") if piece.strip()]


def _complaint(piece: str) -> tuple[str, str]:
    """Return what is wrong with one criterion and what to write instead; empty when it is good."""
    name, _, number = (part.strip() for part in piece.partition(":"))
    if name not in BOX_CRITERIA and name not in _OTHER_NAMES:
        close = suggest(name, list(BOX_CRITERIA)) or f"there are {', '.join(BOX_CRITERIA)}"
        return f"{name!r} is no criterion for a cell", close
    try:
        good = 0 < float(number) < math.inf
    except ValueError:
        good = False
    return ("", "") if good else (f"{name} has no positive number but {number!r}", f'for example "{name}:1.5"')


def box_limits(text: str | None) -> tuple[tuple[str, float], ...]:
    """Return the criteria of a valid fp_skip_bad_box with their limits: ratios, and a distance in A."""
    limits = []
    for piece in _pieces(text):
        name, _, number = (part.strip() for part in piece.partition(":"))
        limits.append((_OTHER_NAMES.get(name, name), float(number)))
    return tuple(limits)
