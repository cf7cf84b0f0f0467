"""What a trainer takes and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from activelearn.config.param import Param
from activelearn.data.labelled import LabelledSystem
from activelearn.dispatch.task import Batch, Verdict
from activelearn.errors import Problem


@dataclass(frozen=True)
class DataEntry:
    """One labelled system of the data set, as a training task sees it."""

    system: LabelledSystem
    link: str
    """Path below the training stage's folder (`data.init/...`, `data.iters/...`); of HDF5 data with `#/GROUP`."""
    batch_size: int | str
    iteration: int | None = None
    """The iteration that labelled it; None: initial data."""


@dataclass(frozen=True)
class TrainingJob:
    """All a trainer needs to know to train the ensemble of one iteration."""

    folder: Path
    """The stage's folder."""
    data: tuple[DataEntry, ...]
    heldout: tuple[DataEntry, ...]
    seeds: tuple[tuple[int, ...], ...]
    """Four independent seeds per model."""
    iteration: int = 0
    previous: Path | None = None
    """Training folder of the iteration before."""
    n_old_frames: int = 0
    """Labelled frames of earlier times than the iteration before, whether they are trained on or not."""
    n_new_frames: int = 0
    """Labelled frames of the iteration before."""
    deepmd_version: str = ""
    """Version of DeePMD-kit as machine.json says it, empty if it does not."""

    @property
    def n_old(self) -> int:
        """Number of systems, counted from the first, that are not of the iteration before."""
        return sum(entry.iteration is None or entry.iteration < self.iteration - 1 for entry in self.data)


class Trainer(Protocol):
    """Train an ensemble."""

    Settings: type[BaseModel]

    def __init__(self, settings: Any, param: Param, root: Path) -> None: ...

    @property
    def n_models(self) -> int:
        """Number of models of the ensemble, M."""

    def check(self, file: str, version: str) -> list[Problem]:
        """Return what is wrong with the settings, without running anything; `version` as in machine.json, or empty."""

    def cutoff(self) -> float | None:
        """Return the cutoff radius of the models, A, if it is known."""

    def check_neighbours(self, file: str, neighbours: Mapping[str, int]) -> list[Problem]:
        """Compare what the models can hold with the most neighbours of each element really found."""

    def check_data(self, file: str, systems: Iterable[LabelledSystem]) -> list[Problem]:
        """Return what the models cannot make of data that are good in themselves."""

    def batch(self, job: TrainingJob) -> Batch:
        """Write the inputs and return the tasks, one per model."""

    def export(self, job: TrainingJob) -> Batch | None:
        """Return the tasks that bring trained models into the form they are used in; None if nothing is left to do."""

    def verify(self, folder: Path, code: int | None, reference: float) -> Verdict:
        """Look at what a training left in `folder`: the model's errors, or why it is no model.

        Parameters
        ----------
        folder
            Folder of the task.
        code
            Exit status, None if it was killed.
        reference
            Root mean square force of the training data, eV/A.
        """

    def model_file(self, number: int) -> str:
        """Return the model of task `number`, relative to the stage's folder."""

    def links(self, folder: Path) -> dict[str, str]:
        """Return the links that make trained models known, target by name, relative to the stage's folder."""

    def graph_name(self, number: int) -> str:
        """Return the name by which explorers and users know model `number`."""
