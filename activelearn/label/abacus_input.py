"""ABACUS: the text of INPUT and KPT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from activelearn.errors import Problem

PPORB = "pporb"
"""Folder of a task that holds pseudopotentials, orbitals and models."""
SWITCHES = ("gamma_only", "symmetry", "cal_force", "cal_stress", "deepks_out_labels", "deepks_scf")
ON, OFF = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")
CHOICES = {"basis_type": ("pw", "lcao", "lcao_in_pw"), "nspin": ("1", "2", "4")}
NUMBERS = ("ecutwfc", "scf_thr", "scf_nmax", "mixing_beta", "nbands", "smearing_sigma", "deepks_descriptor_lmax")


def parsed(text: str) -> dict[str, str]:
    """Return the parameters of an INPUT file; comments start with # or //."""
    found = {}
    for line in text.splitlines():
        words = line.split("#")[0].split("//")[0].split(None, 1)
        if len(words) == 2:
            found[words[0]] = words[1].strip()
    return found


def switch(value: Any) -> bool | None:
    """Return a truth value in any of its spellings, None if it is none."""
    word = str(value).strip().lower()
    word = {"1.0": "1", "0.0": "0"}.get(word, word)
    return True if word in ON else False if word in OFF else None


def on(given: Mapping[str, Any], key: str) -> bool:
    """Return whether a switch is on."""
    return switch(given.get(key, 0)) is True


def _floats(value: Any) -> list[float]:
    items: Sequence[Any] = value if isinstance(value, list) else value.split() if isinstance(value, str) else [value]
    return [float(item) for item in items]


def text(given: Mapping[str, Any]) -> str:
    """Return INPUT: the user's parameters, a single point in any case, with forces and stress unless told otherwise."""
    own = {"calculation": "scf", "cal_force": 1, "cal_stress": 1}
    shown = {key: _value(key, value) for key, value in given.items() if not key.startswith("_")}
    lines = [f"{key} {value}" for key, value in {**own, **shown, "calculation": "scf"}.items()]
    return "\n".join(["INPUT_PARAMETERS", *lines]) + "\n"


def _value(key: str, value: Any) -> str:
    if key in SWITCHES:
        return str(int(switch(value) is True))
    if key == "kspacing":
        return " ".join(repr(item) for item in _floats(value))
    if key == "deepks_model":
        return f"{PPORB}/{PurePath(str(value)).name}"
    if isinstance(value, bool):
        return str(int(value))
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def kpt(mesh: Sequence[int]) -> str:
    """Return KPT: three numbers of k points and three shifts."""
    return "K_POINTS\n0\nGamma\n" + " ".join(str(n) for n in mesh) + "\n"


def problems(file: str, key: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield parameters whose values ABACUS cannot take."""
    for name, value in given.items():
        where = f"{key}.{name}"
        if name in SWITCHES and switch(value) is None:
            yield Problem(file, where, f"must be 0 or 1, not {value!r}")
        elif name in CHOICES and str(value) not in CHOICES[name]:
            yield Problem(file, where, f"must be one of {', '.join(CHOICES[name])}, not {value!r}")
        elif name in NUMBERS or name == "kspacing":
            try:
                numbers = _floats(value)
            except (TypeError, ValueError):
                yield Problem(file, where, f"must be a number, not {value!r}")
                continue
            if len(numbers) not in ((1, 3) if name == "kspacing" else (1,)):
                yield Problem(file, where, f"has {len(numbers)} numbers", "write one (or three for kspacing)")
            elif min(numbers) < 0 or (name == "mixing_beta" and numbers[0] >= 1):
                yield Problem(file, where, f"{value!r} is out of range")
        elif name == "calculation" and str(value) != "scf":
            yield Problem(file, where, f"is {value}, but a label is a single point: scf is run", "", "warning")
    if "cal_force" in given and switch(given["cal_force"]) is False:
        yield Problem(file, f"{key}.cal_force", "is off: a label needs forces", "write 1")
