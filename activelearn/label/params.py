"""INCAR of VASP from param.json: `user_fp_params` as it is, or the old short form `fp_params`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt, field_validator

from activelearn.config.base import Settings

METHODS = {"gauss": 0, "fd": -1, "mp": 1}
"""ISMEAR of each smearing; "mp:2" is Methfessel-Paxton of second order."""


class ShortVasp(Settings):
    """`fp_params` of VASP, the form of old files; everything it does not name has a fixed value."""

    ecut: PositiveFloat | PositiveInt
    """Plane-wave cutoff energy (ENCUT), eV."""
    ediff: PositiveFloat
    """Convergence of the electronic energy (EDIFF), eV."""
    npar: PositiveInt
    """Bands treated in parallel (NPAR)."""
    kpar: PositiveInt
    """k points treated in parallel (KPAR)."""
    kspacing: PositiveFloat
    """Distance of k points (KSPACING), 1/A; the mesh is not centred at Gamma unless user_vasp_params says so."""
    smearing: str | None = None
    """"gauss", "fd" or "mp:ORDER" (ISMEAR)."""
    sigma: PositiveFloat | None = None
    """Width of the smearing (SIGMA), eV."""
    metagga: Literal["NONE", "SCAN", "TPSS", "RTPSS", "M06L", "MBJ"] | None = None
    """Meta-GGA functional (METAGGA)."""
    user_vasp_params: dict[str, Any] = {}
    """Further INCAR tags; they go before the ones made from the other keys."""

    @field_validator("smearing")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            method, _, order = value.lower().partition(":")
            if method not in METHODS or (order and not (method == "mp" and order.isdigit())):
                raise ValueError('must be "gauss", "fd" or "mp:ORDER"')
        return value

    def tags(self) -> dict[str, Any]:
        """Return the INCAR tags in DP-GEN's order."""
        found: dict[str, Any] = {"PREC": "A", "ENCUT": self.ecut, "ISYM": 0, "ALGO": "fast", "EDIFF": self.ediff}
        found |= {"LREAL": "A", "NPAR": self.npar, "KPAR": self.kpar, "NELMIN": 4, "ISIF": 2}
        if self.smearing is not None:
            method, _, order = self.smearing.lower().partition(":")
            found["ISMEAR"] = int(order) if order else METHODS[method]
        if self.sigma is not None:
            found["SIGMA"] = self.sigma
        found |= {"IBRION": -1, "NSW": 0, "LWAVE": False, "LCHARG": False, "PSTRESS": 0}
        found |= {"KSPACING": self.kspacing, "KGAMMA": False}
        if self.metagga not in (None, "NONE"):
            found |= {"LASPH": True, "METAGGA": self.metagga}
        return found | {key.upper(): value for key, value in self.user_vasp_params.items()}


def text(tags: Mapping[str, Any]) -> str:
    """Return an INCAR, one `KEY=value` a line; truth values as T and F, lists with blanks between."""
    return "".join(f"{key}={_value(value)}\n" for key, value in tags.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return " ".join(_value(item) for item in value) if isinstance(value, list) else str(value)
