"""The backends of DeePMD-kit: how `dp` is called for each, what it leaves, how models are exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activelearn.train import sections

PT2 = "pt2"
"""Compiled for one kind of computer: it is exported where the models are used, in tasks of its own."""


@dataclass(frozen=True)
class Backend:
    """How `dp` is called for one of its backends, and what it leaves."""

    name: str
    flag: str
    formats: tuple[str, ...]
    """Forms of the exported model (its suffix without the dot); the first is the default."""
    test: str
    """Shell test: is there a checkpoint?"""
    restart: str
    """Shell text: the checkpoint to restart from."""
    leftovers: tuple[str, ...]
    """Checkpoint files (patterns)."""
    checkpoint: tuple[str, ...]
    """Files that make up the last checkpoint, under its fixed name."""

    def find(self, folder: Path) -> dict[str, Path]:
        """Return the files of the last checkpoint in a task's folder by their fixed names; empty if there is none."""
        found = {name: folder / name for name in self.checkpoint}
        if all(path.exists() for path in found.values()):
            return found
        pointer = folder / "checkpoint"  # what DeePMD-kit itself follows
        if self.checkpoint == PYTORCH_CHECKPOINT and pointer.is_file():
            path = folder / pointer.read_text().strip()
            if path.is_file():
                return {self.checkpoint[0]: path}
        return {}


PYTORCH_CHECKPOINT = ("model.ckpt.pt",)
_POINTED = ('[ -s checkpoint ] && [ -s "$(cat checkpoint)" ]', '"$(cat checkpoint)"')
_PYTORCH_FILES = ("checkpoint", "model.ckpt-*.pt")

BACKENDS = {
    "tensorflow": Backend(
        "tensorflow",
        "",
        ("pb",),
        "[ -s model.ckpt.index ]",
        "model.ckpt",
        ("checkpoint", "model.ckpt*"),
        ("model.ckpt.meta", "model.ckpt.index", "model.ckpt.data-00000-of-00001"),
    ),
    "pytorch": Backend("pytorch", "--pt", ("pth", PT2), *_POINTED, _PYTORCH_FILES, PYTORCH_CHECKPOINT),
    "pytorch-exportable": Backend(
        "pytorch-exportable", "--pt-expt", (PT2, "pte"), *_POINTED, _PYTORCH_FILES, PYTORCH_CHECKPOINT
    ),
    "jax": Backend(  # its checkpoints are folders
        "jax",
        "--jax",
        ("savedmodel",),
        "[ -e model.ckpt.jax ]",
        "model.ckpt.jax",
        ("checkpoint", "model.ckpt*.jax"),
        ("model.ckpt.jax",),
    ),
}
ALIASES = {"tf": "tensorflow", "pt": "pytorch", "pt-expt": "pytorch-exportable", "pt_expt": "pytorch-exportable"}


def canonical(name: object) -> object:
    """Return the full name of a backend for any of its spellings."""
    if not isinstance(name, str):
        return name
    word = name.strip().lower()
    return ALIASES.get(word, word)


def freeze(backend: Backend, suffix: str, export: str, members: Sequence[Mapping[str, Any]]) -> str:
    """Return the command that exports the last checkpoint.

    Parameters
    ----------
    backend
        The backend the model was trained with.
    suffix
        Suffix of the exported model, such as `.pth`.
    export
        Shell text that starts `dp`, with the backend's flag.
    members
        default_training_param of each model.
    """
    if suffix != f".{PT2}":
        return f"{export} freeze -o frozen_model{suffix}"
    command = f"{export} freeze -c model.ckpt.pt -o frozen_model"
    if backend.name != "pytorch-exportable":
        return command  # dp adds the suffix; only DPA4 is exported like this
    graph = any(sections.family(member) for member in members)
    return f"{command}{suffix} --lower-kind {'graph' if graph else 'nlist'}"
