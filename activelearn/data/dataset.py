"""Labelled systems in DeePMD's form: finding, checking, adding; never rewritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dpdata
import h5py
import numpy as np

from activelearn.data.labelled import VIRTUAL, Array, LabelledSystem


def find(path: Path) -> list[LabelledSystem]:
    """Return the labelled systems at or below `path`, in sorted order.

    Parameters
    ----------
    path
        A folder, an HDF5 file (all its groups are searched), or `FILE#/GROUP`.
    """
    name, mark, group = str(path).partition("#")
    if mark and not path.is_dir():
        return _find_hdf5(Path(name), "/" + group.strip("/")) if Path(name).is_file() else []
    if path.is_file():
        return _find_hdf5(path, "/")
    found: list[LabelledSystem] = []
    seen: set[str] = set()
    for folder, below, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("set."))
        if "type.raw" in files:
            found.append(LabelledSystem(Path(folder)))
    return sorted(found, key=lambda system: str(system.path))


def _find_hdf5(file: Path, start: str) -> list[LabelledSystem]:
    if not h5py.is_hdf5(file):
        return []
    groups: list[str] = []
    with h5py.File(file) as opened:
        top = opened.get(start)
        if not isinstance(top, h5py.Group):
            return []
        names = [start]
        top.visit(lambda name: names.append(f"{start.rstrip('/')}/{name}"))
        groups = [name for name in names if isinstance(opened[name], h5py.Group) and "type.raw" in opened[name]]
    return [LabelledSystem(file, group) for group in sorted(groups)]


def complaint(system: LabelledSystem, type_map: list[str], needs: Iterable[str] = ()) -> str | None:
    """Say what is wrong with a labelled system, or None.

    Parameters
    ----------
    system
        The system.
    type_map
        Elements of param.json.
    needs
        Further arrays it must have, such as `fparam`.
    """
    try:
        types = system.types()
    except ValueError:
        return "type.raw is not a list of whole numbers"
    names = system.type_names()
    if len(types) == 0:
        return "type.raw is empty"
    if not system.sets:
        return "has no set.* folder: there is no frame in it"
    mixed = system.mixed
    if mixed and names is None:
        return "has real_atom_types.npy, but no type_map.raw that names its types"
    wrong = None if mixed else _wrong_types(types, names or type_map, type_map, "type.raw")
    if wrong:
        return wrong
    shapes: dict[str, tuple[int, ...]] = {"coord": (len(types) * 3,), "force": (len(types) * 3,), "energy": ()}
    if system.periodic:
        shapes["box"] = (9,)
    if mixed:
        shapes["real_atom_types"] = (len(types),)
    for part in system.sets:
        wrong = _wrong_set(system, part, shapes, needs)
        if wrong is None and mixed:
            real = system.read(f"{part}/real_atom_types.npy")
            wrong = _wrong_types(real[real != VIRTUAL], names or [], type_map, f"{part}/real_atom_types.npy")
        if wrong:
            return wrong
    return None


def _wrong_types(types: Array, names: list[str], type_map: list[str], where: str) -> str | None:
    if types.size == 0:
        return f"{where} has no atom"
    if types.min() < 0 or types.max() >= len(names):
        return f"{where} has type {types.max()}, but there are {len(names)} elements"
    missing = sorted({names[int(t)] for t in np.unique(types)} - set(type_map))
    return f"has {', '.join(missing)}, which type_map {type_map} lacks" if missing else None


def _wrong_set(
    system: LabelledSystem, part: str, shapes: dict[str, tuple[int, ...]], needs: Iterable[str]
) -> str | None:
    lengths = set()
    wanted: dict[str, tuple[int, ...] | None] = {**shapes, **dict.fromkeys(needs)}
    if system.has(f"{part}/virial.npy"):
        wanted["virial"] = (9,)
    for name, shape in wanted.items():
        file = f"{part}/{name}.npy"
        try:
            values = system.read(file)
        except FileNotFoundError:
            return f"{file} is missing"
        except (ValueError, OSError, EOFError) as error:
            return f"{file} cannot be read: {error}"
        if name == "energy" and values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim == 0 or (shape is not None and values.shape[1:] != shape):
            return f"{file} has rows of shape {values.shape[1:]}, expected {shape}"
        if not np.issubdtype(values.dtype, np.number):
            return f"{file} holds no numbers"
        if not np.all(np.isfinite(values)):
            return f"{file} has values that are not finite"
        lengths.add(len(values))
    if len(lengths) > 1:
        return f"the arrays of {part} have different numbers of frames: {sorted(lengths)}"
    return f"{part} has no frames" if lengths == {0} else None


def rms_force(systems: Iterable[LabelledSystem]) -> float:
    """Return the root mean square force component of all frames, eV/A: the error of predicting nothing."""
    total, count = 0.0, 0
    for system in systems:
        force = system.array("force")
        total += float(np.sum(force**2))
        count += force.size
    return float(np.sqrt(total / count)) if count else 0.0


def _register_parameters() -> None:
    """Tell dpdata of the arrays fparam (F, n), aparam (F, N, n), atom_pref (F, N): it writes and appends them."""
    from dpdata.data_type import Axis, DataType

    known = {kind.name for kind in dpdata.LabeledSystem.DTYPES}
    for name, shape in (
        ("fparam", (Axis.NFRAMES, -1)),
        ("aparam", (Axis.NFRAMES, Axis.NATOMS, -1)),
        ("atom_pref", (Axis.NFRAMES, Axis.NATOMS)),
    ):
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
    _register_parameters()
    merged = dpdata.MultiSystems(type_map=type_map)
    for system in systems:
        for part in _as_dpdata(system, type_map):
            merged.append(part)
    return merged


def _as_dpdata(system: LabelledSystem, type_map: list[str]) -> list[Any]:
    fmt = "deepmd/hdf5" if system.group else "deepmd/npy"
    if not system.mixed:
        names = None if system.has("type_map.raw") else type_map
        return [dpdata.LabeledSystem(str(system), fmt=fmt, type_map=names)]
    # of mixed type data dpdata makes one system per composition
    mixed = dpdata.format.Format.get_formats()[f"{fmt}/mixed"]()
    return [dpdata.LabeledSystem(data=data) for data in mixed.from_labeled_system_mix(str(system), type_map=None)]
