"""All training data of an iteration in one HDF5 file (one_h5)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from activelearn.data.labelled import LabelledSystem
from activelearn.train.values import DataEntry

NAME = "data.hdf5"
MADE_FROM = "made_from"
"""Attribute of the file: digest of what it was made from."""


def inside(entry: DataEntry) -> str:
    """Return the group of a system in the file."""
    return "/" + entry.link.replace("#", "").strip("/")


def write(folder: Path, entries: Sequence[DataEntry]) -> str:
    """Write the file unless it holds these data already; return its name.

    The file is the same, byte for byte, whenever it is made from the same data.
    """
    digest = _digest(entries)
    target = folder / NAME
    if target.exists():
        with h5py.File(target) as file:
            if file.attrs.get(MADE_FROM) == digest:
                return NAME
    temporary = target.with_suffix(".tmp")
    with h5py.File(temporary, "w") as file:
        for entry in entries:
            _copy(entry.system, file.require_group(inside(entry)))
        file.attrs[MADE_FROM] = digest
    temporary.replace(target)
    return NAME


def _copy(system: LabelledSystem, group: h5py.Group) -> None:
    group.create_dataset("type.raw", data=system.types())
    names = system.type_names()
    if names is not None:
        group.create_dataset("type_map.raw", data=np.array(names, dtype="S"))
    if not system.periodic:
        group.create_dataset("nopbc", data=True)
    for part, name in _arrays(system):
        group.create_dataset(f"{part}/{name}", data=system.read(f"{part}/{name}"))


def _arrays(system: LabelledSystem) -> list[tuple[str, str]]:
    if not system.group:
        parts = [(part, sorted(file.name for file in (system.path / part).glob("*.npy"))) for part in system.sets]
    else:
        with h5py.File(system.path) as file:
            parts = [(part, sorted(file[system.group][part])) for part in system.sets]
    return [(part, name) for part, names in parts for name in names]


def _digest(entries: Sequence[DataEntry]) -> str:
    total = hashlib.sha256()
    for entry in entries:
        total.update(f"{entry.link} {entry.system.type_names()} {entry.system.periodic}\n".encode())
        total.update(entry.system.types().tobytes())
        for part, name in _arrays(entry.system):
            total.update(f"{part}/{name}\n".encode())
            total.update(np.ascontiguousarray(entry.system.read(f"{part}/{name}")).tobytes())
    return total.hexdigest()
