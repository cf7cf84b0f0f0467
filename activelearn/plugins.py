"""Find an engine by the name a user typed: a plain mapping, extended by entry points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any


def suggest(word: str, known: list[str]) -> str:
    """Return "did you mean ...?" for a mistyped word, or an empty string."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def names(registry: Mapping[str, str], group: str) -> list[str]:
    """Return all names of one kind of engine, ours and installed ones."""
    return sorted({*registry, *(point.name for point in entry_points(group=group))})


def load(registry: Mapping[str, str], group: str, name: str) -> Any:
    """Import the engine called `name`.

    Raises
    ------
    KeyError
        No engine has this name.
    """
    if name in registry:
        module, _, attribute = registry[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    for point in entry_points(group=group):
        if point.name == name:
            return point.load()
    raise KeyError(name)
