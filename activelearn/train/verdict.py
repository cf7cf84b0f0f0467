"""What a finished training is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from activelearn.dispatch.task import Failure, Retry, Verdict
from activelearn.log import tail
from activelearn.train import lcurve

LEARNED_NOTHING = 0.95
"""A model whose force error on its training data is this share of the forces themselves is no model."""
SMALL_FORCE, NONSENSE_FORCE = 0.05, 1.0
"""Data with forces below the first (eV/A) say nothing about that; then only an error above the second counts."""
NONSENSE_ENERGY = 10.0
"""An energy error above this (eV/atom) on the training data is no model's."""


def trained(folder: Path, code: int | None, reference: float, outputs: Sequence[str]) -> Verdict:
    """Accept a model only if its training ended, with finite errors that are smaller than those of no model.

    Parameters
    ----------
    folder
        Folder of the task.
    code
        Exit status of the task.
    reference
        Root mean square force of the training data, eV/A.
    outputs
        Files that must have been written.
    """
    detail = tail(folder / "train.log")
    row = lcurve.last_row(folder / "lcurve.out")
    bad = lcurve.not_finite(row)
    if bad or (code not in (0, None) and "NaN detected" in detail):
        return Failure(f"training diverged: {', '.join(bad) or 'the loss'} is not finite", Retry.NEVER, detail)
    force = lcurve.late_error(folder / "lcurve.out", "rmse_f")
    energy = lcurve.late_error(folder / "lcurve.out", "rmse_e")
    limit = LEARNED_NOTHING * reference if reference > SMALL_FORCE else NONSENSE_FORCE
    if (force is not None and force >= limit) or (energy is not None and energy > NONSENSE_ENERGY):
        message = (
            f"training diverged: on the training data, whose forces are {reference:.3g} eV/A, the errors are"
            f" {force or 0:.3g} eV/A and {energy or 0:.3g} eV/atom (lower learning_rate.start_lr, or train longer)"
        )
        return Failure(message, Retry.NEVER, tail(folder / "lcurve.out", 6))
    if code != 0:
        tested = folder / "test.log"
        return Failure(f"dp ended with exit status {code}", Retry.LATER, tail(tested) if tested.exists() else detail)
    missing = [name for name in outputs if not filled(folder / name)]
    if missing:
        return Failure(f"{', '.join(missing)} was not written", Retry.LATER, detail)
    heldout = lcurve.heldout_errors(folder / "test.log")
    bad = lcurve.not_finite(heldout)
    if bad:
        message = f"training diverged: the error on held-out data is not finite ({', '.join(bad)})"
        return Failure(message, Retry.NEVER, tail(folder / "test.log"))
    return {
        "steps": int(row.get("step", 0)),
        "rmse_e": row.get("rmse_e_trn", row.get("rmse_e")),
        "rmse_f": row.get("rmse_f_trn", row.get("rmse_f")),
        "heldout": heldout,
    }


def exported(folder: Path, code: int | None, outputs: Sequence[str], log: str) -> Verdict:
    """Accept an exported model if it was written."""
    if code != 0:
        return Failure(f"dp ended with exit status {code}", Retry.LATER, tail(folder / log))
    missing = [name for name in outputs if not filled(folder / name)]
    return Failure(f"{', '.join(missing)} was not written", Retry.LATER, tail(folder / log)) if missing else {}


def filled(path: Path) -> bool:
    """Return whether a file, or a folder, is there and not empty."""
    return any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size > 0
