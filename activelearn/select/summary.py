"""The lines about a selection, in the form of DP-GEN's, which people parse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from activelearn.config.selection import OFF
from activelearn.select.box import BOX, CLUSTER
from activelearn.select.pick import Pick
from activelearn.select.trust import Kind, Levels


def summary(result: Pick, adapted: Levels | None = None) -> list[str]:
    """Return the lines about one system.

    Parameters
    ----------
    result
        What was picked.
    adapted
        The trust levels, where they follow from the frames.
    """
    name = f"system {result.system:03d}"
    total = result.total
    lines = []
    if adapted:
        lines.append(f"{name} {'adapted':9s} : f_trust_lo {adapted.f_lo:6.3f}   v_trust_lo {adapted.v_lo:6.3f}")
    if not total:
        return lines
    for kind in (Kind.CANDIDATE, Kind.FAILED, Kind.ACCURATE):
        number = result.count(kind)
        lines.append(f"{name} {kind.name.lower():9s} : {number:6d} in {total:6d} {number / total * 100:6.2f} %")
    quota = result.quota
    lines.append(
        f"{name} accurate_ratio: {result.accurate_ratio:8.4f}    thresholds: {quota.soft:6.4f} and {quota.none:6.4f}   "
        f"eff. task min and max {quota.n_min:4d} {result.n_max:4d}   number of fp tasks: {len(result.chosen):6d}"
    )
    remaining = len(result.chosen)
    for kind_of_complaint in (BOX, CLUSTER):
        skipped = sum(text.startswith(kind_of_complaint) for text in result.left_out.values())
        remaining -= skipped
        if skipped:
            lines.append(f"{name} skipped {skipped:6d} confs with {kind_of_complaint}, {remaining:6d} remains")
    return lines


def warnings(result: Pick, levels: Levels) -> Iterator[str]:
    """Yield what should not pass without a word about the selection of one system.

    Parameters
    ----------
    result
        What was picked.
    levels
        The trust levels that decided.
    """
    name = f"system {result.system:03d}"
    if not result.total:
        yield f"{name}: no frame was explored"
        return
    frames = result.frames
    what = "frames" if frames.atom is None else "atoms"
    unknown = ~np.isfinite(frames.force)
    if min(levels.v_lo, levels.v_hi) < OFF:
        unknown |= ~np.isfinite(frames.virial)
    if unknown.any():
        yield f"{name}: the deviation of {np.count_nonzero(unknown)} {what} is not a number; they count as failed"
    beyond = int(np.count_nonzero((result.kinds == Kind.CANDIDATE) & (frames.force >= levels.f_hi)))
    if beyond:
        yield (
            f"{name}: {beyond} candidates have a force deviation of {levels.f_hi:g} eV/A (model_devi_f_trust_hi)"
            " or more; their virial deviation made them candidates, as in DP-GEN"
        )
    failed = result.count(Kind.FAILED)
    if failed > 0.5 * result.total:
        share = 100 * failed / result.total
        yield f"{name}: {share:.0f} % of the {what} failed; look at the MD before trusting the rest"
