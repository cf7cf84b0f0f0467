"""Every path of a run is a property here and nowhere else (folder names are DP-GEN's)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STAGES = ("train", "explore", "select", "label")
"""The stages of an iteration, in order."""


@dataclass(frozen=True)
class Iteration:
    """The folder of one iteration."""

    root: Path

    @property
    def train(self) -> Path:
        """Training tasks and the models."""
        return self.root / "00.train"

    @property
    def explore(self) -> Path:
        """Molecular dynamics tasks."""
        return self.root / "01.model_devi"

    @property
    def label(self) -> Path:
        """Selection (audit files), labelling tasks and the new data."""
        return self.root / "02.fp"

    def stage(self, name: str) -> Path:
        """Return the folder a stage works in."""
        return {"train": self.train, "explore": self.explore, "select": self.label, "label": self.label}[name]

    @property
    def carried_over(self) -> Path:
        """Marks a training stage whose models are those of the iteration before (as in DP-GEN)."""
        return self.train / "copied"

    @property
    def job(self) -> Path:
        """The exploration job as it was run."""
        return self.explore / "cur_job.json"

    @property
    def runs(self) -> Path:
        """The trajectories that exploration gave."""
        return self.explore / "runs.json"

    def labelled(self, system: int) -> Path:
        """Return the folder of new data labelled for one entry of sys_configs."""
        return self.label / f"data.{system:03d}"

    def audit(self, kind: str, system: int) -> Path:
        """Return the audit file: which frames of a system were classified as `kind`, in shuffled order."""
        return self.label / f"{kind}.shuffled.{system:03d}.out"

    @property
    def picked(self) -> Path:
        """Return the file that lists the picked frames, in the order of the labelling tasks."""
        return self.label / "picked.json"


@dataclass(frozen=True)
class Workdir:
    """The folder of a run."""

    root: Path

    def iteration(self, number: int) -> Iteration:
        """Return the folder of iteration `number`, counted from 0."""
        return Iteration(self.root / f"iter.{number:06d}")

    @property
    def record(self) -> Path:
        """The journal of the run."""
        return self.root / "record.jsonl"

    @property
    def dpgen_record(self) -> Path:
        """The mirror of the journal in DP-GEN's form."""
        return self.root / "record.dpgen"

    @property
    def log(self) -> Path:
        """The log file, DEBUG level."""
        return self.root / "al.log"

    @property
    def lock(self) -> Path:
        """Held by the driver that runs here."""
        return self.root / "al.lock"
