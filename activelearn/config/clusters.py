"""The keys of param.json that label surroundings of single atoms as molecules instead of whole frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from activelearn.config.base import Settings
from activelearn.errors import Problem

MOLECULES = ("gaussian", "ase")
"""The labelers that take a cluster as what it is: a molecule in empty space."""


class Clusters(Settings):
    """The keys of param.json about clusters: what is cut out of a frame around an atom of uncertain force."""

    cluster_cutoff: Annotated[float, Field(gt=0)] | None = None
    """Label clusters around single atoms: whole molecules with an atom within this radius, A."""
    cluster_cutoff_hard: Annotated[float, Field(gt=0)] | None = None
    """No atom beyond this radius becomes part of a cluster, even of a molecule that is, A."""
    cluster_minify: bool = False
    """Cut molecules at single bonds that cross cluster_cutoff, and end them with hydrogen."""
    use_atom_pref: bool = False
    """Weights in the new data (atom_pref): 1 for the atom a cluster was cut around, 0 for all others of it."""

    @property
    def by_atom(self) -> bool:
        """Whether candidates are atoms of frames, not frames."""
        return self.cluster_cutoff is not None

    def cluster_problems(self, file: str, fp_style: str, type_map: Sequence[str]) -> Iterator[Problem]:
        """Yield what contradicts itself in these keys."""
        if self.cluster_cutoff is None:
            for key in ("cluster_cutoff_hard", "cluster_minify"):
                if getattr(self, key):
                    message = "has no effect: whole frames are labelled"
                    yield Problem(file, key, message, "give cluster_cutoff", "warning")
            if self.use_atom_pref:
                message = "there are weights only of the atoms of clusters"
                yield Problem(file, "use_atom_pref", message, "give cluster_cutoff, or remove it")
            return
        if fp_style not in MOLECULES:
            message = f"clusters cannot be labelled with fp_style {fp_style}: it would repeat them in the frame's cell"
            yield Problem(file, "cluster_cutoff", message, f"remove it, or use one of {', '.join(MOLECULES)}")
        if self.cluster_minify and "H" not in type_map:
            message = "ends cut bonds with hydrogen, but type_map has no H"
            yield Problem(file, "cluster_minify", message, "add H to type_map, or remove it")
        if self.cluster_cutoff_hard is not None and self.cluster_cutoff_hard < self.cluster_cutoff:
            message = f"{self.cluster_cutoff_hard} is below cluster_cutoff, {self.cluster_cutoff}: it alone decides"
            yield Problem(file, "cluster_cutoff_hard", message, "swap them", "warning")
