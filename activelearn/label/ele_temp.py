"""Electrons at a temperature of their own in VASP: Fermi smearing, and enough bands for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np

from activelearn.label import incar

BOLTZMANN = 8.617333262e-5
"""eV/K."""
CONDITION = "electron_temperature"
"""Name of the electron temperature (K) among the conditions of a run."""
TOLERANCE = 0.5
"""Bands are estimated with the prefactor and this part of its spread."""


def smearing(temperature: float) -> dict[str, str]:
    """Return the INCAR tags of an electron temperature (K)."""
    return {"ISMEAR": "-1", "SIGMA": repr(temperature * BOLTZMANN)}


def valence(potcar: str) -> list[float]:
    """Return the number of valence electrons of each potential in a POTCAR (the line below its name)."""
    lines = potcar.splitlines()
    heads = [n for n, line in enumerate(lines) if "PAW_" in line and "TITEL" not in line]
    return [float(lines[n + 1]) for n in heads]


def default_bands(counts: Iterable[int], electrons: Iterable[float]) -> float:
    """Return about as many bands as VASP takes by itself: half the electrons and half the atoms, for each element."""
    return float(sum(n * z // 2 + n // 2 + 2 for n, z in zip(counts, electrons, strict=True)))


@dataclass(frozen=True)
class Bands:
    """How many bands are needed more per volume: prefactor * (T/K)^1.5 * volume/A^3."""

    prefactor: float
    """1/(A^3 K^1.5)."""
    spread: float
    """Standard deviation of the prefactor over the calculations it was taken from."""

    def estimate(self, temperature: float, volume: float, default: float) -> int:
        """Return NBANDS for an electron temperature (K), a cell volume (A^3) and the default number."""
        more = (self.prefactor + TOLERANCE * self.spread) * temperature**1.5 * volume
        return int(more + default) + 1


def bands(given: Sequence[Path] | Path) -> Bands:
    """Return the estimate from a file with prefactor and spread, or from folders of VASP runs (POSCAR, POTCAR, INCAR).

    Raises
    ------
    ValueError, OSError
        A file is missing or does not say what is needed.
    """
    if isinstance(given, Path):
        numbers = given.read_text().split()
        if len(numbers) < 2:
            raise ValueError(f"{given} must hold two numbers: prefactor and spread")
        return Bands(float(numbers[0]), float(numbers[1]))
    found = np.array([_prefactor(folder) for folder in given])
    return Bands(float(found.mean()), float(found.std()))


def _prefactor(folder: Path) -> float:
    tags: Mapping[str, str] = incar.tags((folder / "INCAR").read_text())
    for name in ("SIGMA", "NBANDS"):
        if name not in tags:
            raise ValueError(f"{folder / 'INCAR'} has no {name}")
    atoms = ase.io.read(folder / "POSCAR", format="vasp")
    if isinstance(atoms, list):
        raise ValueError(f"{folder / 'POSCAR'} holds several structures")
    symbols = atoms.get_chemical_symbols()
    counts = [symbols.count(name) for name in dict.fromkeys(symbols)]
    default = default_bands(counts, valence((folder / "POTCAR").read_text(errors="replace")))
    temperature = float(tags["SIGMA"].split()[0]) / BOLTZMANN
    more = float(tags["NBANDS"].split()[0]) - default
    return more / float(atoms.cell.volume) / float(temperature**1.5)
