"""What an explorer takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ase
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from activelearn.config.param import ExplorationJob, Param
from activelearn.data.deviation import Deviation
from activelearn.dispatch.task import Batch
from activelearn.errors import Problem


@dataclass(frozen=True)
class Start:
    """The starting structures of one entry of sys_configs."""

    system: int
    """Index in sys_configs."""
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Exploration:
    """All an explorer needs to know for one iteration."""

    folder: Path
    """The stage's folder."""
    job: ExplorationJob
    starts: tuple[Start, ...]
    models: tuple[Path, ...]
    """The ensemble; the first model moves the atoms."""
    graph_names: tuple[str, ...]
    """The names the models have in the stage's folder."""


@dataclass(frozen=True)
class Run:
    """One trajectory."""

    task: str
    """Folder of the task, relative to the run."""
    system: int
    """Index in sys_configs."""
    conditions: Mapping[str, float | str]
    """What was held: temperature, electron_temperature (K), pressure (bar); words of a template with their values."""
    n_frames: int
    died: str = ""
    """Why the dynamics ended before its time; its frames up to there are used."""


class Explorer(Protocol):
    """Explore configurations with an ensemble."""

    Settings: type[BaseModel]

    def __init__(self, settings: Any, param: Param, root: Path) -> None: ...

    def count(self, job: ExplorationJob, system: int, n_structures: int) -> tuple[int, int | None]:
        """Return how many tasks and frames one system with so many structures will give; None: cannot be told."""

    def batch(
        self, exploration: Exploration, rng: Callable[[str], np.random.Generator]
    ) -> tuple[Batch, dict[str, Run]]:
        """Write the inputs; return the tasks and, by name, what each will be (randomness by name from `rng`)."""

    def deviation(self, folder: Path) -> Deviation:
        """Read the deviations of a task; those of single atoms, too, where candidates are atoms."""

    def volume_ratio(self, folder: Path, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cell volume over that of the start at `steps`, NaN where unknown; shape (F,)."""

    def frames(self, folder: Path, steps: Iterable[int], elements: Sequence[str]) -> dict[int, ase.Atoms]:
        """Read frames by MD step."""

    def trajectories(self, folder: Path) -> list[Path]:
        """Return the trajectory files of a task, for cleaning."""

    def check(self, file: str, graphs: Sequence[str]) -> list[Problem]:
        """Return what is wrong with the settings; `graphs` is what the models will be called."""
