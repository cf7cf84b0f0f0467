"""What DeePMD-kit says about its errors: lcurve.out and the summary of `dp test`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

_MEASURES = {
    "energy": re.compile(r"Energy RMSE/Natoms\s*:\s*(\S+)"),
    "force": re.compile(r"Force\s+RMSE\s*:\s*(\S+)"),
    "virial": re.compile(r"Virial RMSE/Natoms\s*:\s*(\S+)"),
}


def rows(file: Path) -> list[dict[str, float]]:
    """Return the complete rows of lcurve.out by column name.

    Errors are per atom for the energy (eV) and per component for the force (eV/A), each of one batch.
    """
    names: list[str] = []
    found: list[dict[str, float]] = []
    try:
        text = file.read_text(errors="replace")
    except FileNotFoundError:
        return found
    for line in text[: text.rfind("\n") + 1].splitlines():
        words = line.split()
        if words[:2] == ["#", "step"]:
            names = words[1:]
        elif words and not line.startswith("#") and len(words) == len(names):
            try:
                found.append({name: float(word) for name, word in zip(names, words, strict=True)})
            except ValueError:
                continue
    return found


def last_row(file: Path) -> dict[str, float]:
    """Return the last complete row of lcurve.out, empty when there is none."""
    return next(reversed(rows(file)), {})


def late_error(file: Path, name: str) -> float | None:
    """Return the root mean square of a training error over the last half of lcurve.out, None if it is not there."""
    values = [row.get(f"{name}_trn", row.get(name)) for row in rows(file)]
    late = [value for value in values[len(values) // 2 :] if value is not None]
    return math.sqrt(sum(value**2 for value in late) / len(late)) if late else None


def not_finite(errors: Mapping[str, float]) -> list[str]:
    """Return the names of values that are NaN or infinite.

    Columns of data that does not exist are NaN by design (DeePMD-kit says so in the file's header): a column counts
    only if the total error is not finite, or if it is the only one.
    """
    total = [name for name in errors if name in ("rmse", "rmse_trn")]
    return [name for name in (total or errors) if not math.isfinite(errors[name])]


def heldout_errors(log: Path) -> dict[str, float]:
    """Return the errors of `dp test`, weighted over all systems: energy and virial eV/atom, force eV/A."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return {}
    summary = text[text.rfind("weighted average of errors") :] if "weighted average of errors" in text else ""
    found = {}
    for name, pattern in _MEASURES.items():
        match = pattern.search(summary)
        if match:
            found[name] = float(match.group(1))
    return found
