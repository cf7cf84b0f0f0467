"""The backends of DeePMD-kit: how `dp` is called for each, what it leaves, how models are exported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activelearn.train import sections

PT2 = "pt2"
"""Compiled for one kind of computer: it is exported where the models are used, in tasks of its own."""


@dataclass(frozen=True)
class Backend:
    """How `dp` is called for one of its backends, and what it leaves.

    Checkpoints are called `model.ckpt-STEP...`; `dp` makes links without the step to the last one. Only the former are
    sent and fetched: links do not survive all ways of transport.
    """

    name: str
    flag: str
    formats: tuple[str, ...]
    """Forms of the exported model (its suffix without the dot); the first is the default."""
    last: str
    """Shell text that prints the name of the last checkpoint."""
    ends: tuple[str, ...]
    """Suffixes of the files that make up a checkpoint."""
    shown: str = ""
    """The suffix that is part of the name which `last` prints."""

    @property
    def checkpoint(self) -> tuple[str, ...]:
        """Files (or links) that make up the last checkpoint, under its fixed name."""
        return tuple(f"{PREFIX}{end}" for end in self.ends)

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Checkpoint files (patterns)."""
        return ("checkpoint", *(f"{PREFIX}-*{end}" for end in self.ends))

    def find(self, folder: Path) -> dict[str, Path]:
        """Return the files of the last checkpoint in a task's folder by their fixed names; empty if there is none."""
        for prefix in (PREFIX, *_numbered(folder, self.ends[0])):
            found = {f"{PREFIX}{end}": folder / f"{prefix}{end}" for end in self.ends}
            if all(path.exists() for path in found.values()):
                return found
        return {}


def _numbered(folder: Path, end: str) -> list[str]:
    """Return the checkpoints in a folder, the one of the most steps first, without their suffix."""
    pattern = re.compile(rf"{re.escape(PREFIX)}-(\d+){re.escape(end)}")
    steps = [int(match.group(1)) for path in folder.glob("*") if (match := pattern.fullmatch(path.name))]
    return [f"{PREFIX}-{step}" for step in sorted(steps, reverse=True)]


PREFIX = "model.ckpt"
_POINTER = "cat checkpoint 2>/dev/null"
_TENSORFLOW_POINTER = r"""sed -n 's/^model_checkpoint_path: "\(.*\)"$/\1/p' checkpoint 2>/dev/null"""
_NEWEST = f"ls -d {PREFIX}-*.jax 2>/dev/null | sort -t- -k2n | tail -n 1"
_PARTS = (".index", ".meta", ".data-00000-of-00001")

BACKENDS = {
    "tensorflow": Backend("tensorflow", "", ("pb",), _TENSORFLOW_POINTER, _PARTS),
    "pytorch": Backend("pytorch", "--pt", ("pth", PT2), _POINTER, (".pt",), ".pt"),
    "pytorch-exportable": Backend("pytorch-exportable", "--pt-expt", (PT2, "pte"), _POINTER, (".pt",), ".pt"),
    "jax": Backend("jax", "--jax", ("savedmodel",), _NEWEST, (".jax",), ".jax"),  # its checkpoints are folders
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
