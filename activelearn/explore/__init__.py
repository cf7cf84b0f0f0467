"""Exploration: molecular dynamics that records the ensemble's disagreement."""

from typing import Final

EXPLORERS: Final[dict[str, str]] = {"lammps": "activelearn.explore.lammps:Lammps"}
GROUP: Final = "activelearn.explorers"
