"""Labelled systems in DeePMD's form (deepmd/npy): finding, checking, adding; never rewritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dpdata
import numpy as np


@dataclass(frozen=True)
class LabelledSystem:
    """One folder with type.raw and set.*: frames of one composition."""

    path: Path

    @property
    def natoms(self) -> int:
        """Number of atoms, N."""
        return len((self.path / "type.raw").read_text().split())

    @property
    def nframes(self) -> int:
        """Number of frames, F (from the headers alone)."""
        return sum(len(np.load(part / "coord.npy", mmap_mode="r")) for part in self.sets)

    @property
    def sets(self) -> list[Path]:
        """The folders that hold the arrays."""
        return sorted(self.path.glob("set.*"))

    @property
    def has_virial(self) -> bool:
        """Whether every set has virials."""
        return all((part / "virial.npy").exists() for part in self.sets)

    def files(self) -> Iterator[str]:
        """Yield what a training task needs of this system, relative to it."""
        for name in ("type.raw", "type_map.raw", "nopbc"):
            if (self.path / name).exists():
                yield name
        for part in self.sets:
            for file in sorted(part.iterdir()):
                yield f"{part.name}/{file.name}"

    def array(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Load one array over all sets; rows are frames."""
        return np.concatenate([np.load(part / f"{name}.npy") for part in self.sets])


def find(path: Path) -> list[LabelledSystem]:
    """Return the labelled systems at or below `path`, in sorted order."""
    if (path / "type.raw").is_file():
        return [LabelledSystem(path)]
    found: list[LabelledSystem] = []
    for folder, below, files in os.walk(path, followlinks=True):
        below.sort()
        if "type.raw" in files:
            found.append(LabelledSystem(Path(folder)))
            below.clear()
    return sorted(found, key=lambda system: str(system.path))


def complaint(system: LabelledSystem, type_map: list[str]) -> str | None:
    """Say what is wrong with a labelled system, or None."""
    try:
        types = np.array((system.path / "type.raw").read_text().split(), dtype=int)
    except ValueError:
        return "type.raw is not a list of whole numbers"
    names_file = system.path / "type_map.raw"
    names = names_file.read_text().split() if names_file.exists() else type_map
    if len(types) == 0:
        return "type.raw is empty"
    if types.min() < 0 or types.max() >= len(names):
        return f"type.raw has type {types.max()}, but there are {len(names)} elements"
    missing = sorted({names[t] for t in types} - set(type_map))
    if missing:
        return f"has {', '.join(missing)}, which type_map {type_map} lacks"
    if not system.sets:
        return "has no set.* folder: there is no frame in it"
    shapes = {"coord": (len(types) * 3,), "box": (9,), "force": (len(types) * 3,), "energy": ()}
    if (system.path / "nopbc").exists():
        del shapes["box"]
    for part in system.sets:
        lengths = set()
        wanted = {**shapes, "virial": (9,)} if (part / "virial.npy").exists() else shapes
        for name, shape in wanted.items():
            try:
                values = np.load(part / f"{name}.npy")
            except FileNotFoundError:
                return f"{part.name}/{name}.npy is missing"
            except (ValueError, OSError, EOFError) as error:
                return f"{part.name}/{name}.npy cannot be read: {error}"
            if name == "energy" and values.ndim == 2 and values.shape[1] == 1:
                values = values[:, 0]
            if values.ndim == 0 or values.shape[1:] != shape:
                return f"{part.name}/{name}.npy has rows of shape {values.shape[1:]}, expected {shape}"
            if not np.all(np.isfinite(values)):
                return f"{part.name}/{name}.npy has values that are not finite"
            lengths.add(len(values))
        if len(lengths) > 1:
            return f"the arrays of {part.name} have different numbers of frames: {sorted(lengths)}"
        if lengths == {0}:
            return f"{part.name} has no frames"
    return None


def rms_force(systems: Iterable[LabelledSystem]) -> float:
    """Return the root mean square force component of all frames, eV/A: the error of predicting nothing."""
    total, count = 0.0, 0
    for system in systems:
        force = system.array("force")
        total += float(np.sum(force**2))
        count += force.size
    return float(np.sqrt(total / count)) if count else 0.0


def _register_parameters() -> None:
    """Tell dpdata of the arrays fparam (F, n) and aparam (F, N, n), so that it writes and appends them."""
    from dpdata.data_type import Axis, DataType

    known = {kind.name for kind in dpdata.LabeledSystem.DTYPES}
    for name, shape in (("fparam", (Axis.NFRAMES, -1)), ("aparam", (Axis.NFRAMES, Axis.NATOMS, -1))):
        if name not in known:
            kind = DataType(name, np.ndarray, shape=shape, required=False)
            dpdata.System.register_data_type(kind)
            dpdata.LabeledSystem.register_data_type(kind)


def write(frames: Iterable[Any], folder: Path, type_map: list[str]) -> list[LabelledSystem]:
    """Write labelled frames (dpdata.LabeledSystem) as deepmd/npy, one system per composition, in one step.

    A folder that exists already is replaced: it is made again from the same labels.
    """
    _register_parameters()
    systems = dpdata.MultiSystems(type_map=type_map)
    for frame in frames:
        systems.append(frame)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    systems.to("deepmd/npy", str(temporary))
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    return find(folder)


def merge(systems: Iterable[LabelledSystem], type_map: list[str]) -> Any:
    """Read labelled systems into one dpdata.MultiSystems, grouped by composition."""
    merged = dpdata.MultiSystems(type_map=type_map)
    for system in systems:
        merged.append(dpdata.LabeledSystem(str(system.path), fmt="deepmd/npy"))
    return merged
