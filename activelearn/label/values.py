"""What a labeler takes and gives, and what several labelers share."""

from __future__ import annotations

import contextlib
import filecmp
import io
import math
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ase
import dpdata
import numpy as np
from ase.data import atomic_masses, atomic_numbers
from pydantic import BaseModel

from activelearn.config.param import Param
from activelearn.data.clusters import WEIGHT
from activelearn.dispatch.task import Batch, Failure, Retry, Task, Verdict
from activelearn.errors import Problem
from activelearn.files import relative_link
from activelearn.log import tail


@dataclass(frozen=True)
class Picked:
    """One frame to label."""

    task: str
    """Folder of the labelling task, relative to the stage's."""
    system: int
    """Index in sys_configs."""
    atoms: ase.Atoms
    conditions: Mapping[str, float] = field(default_factory=dict)
    """What was held in the run the frame is from: temperature (K), pressure (bar), electron_temperature (K)."""


class Labeler(Protocol):
    """Label frames with energy (eV), forces (eV/A) and, where there is one, virial (eV)."""

    Settings: type[BaseModel]

    def __init__(self, settings: Any, param: Param, root: Path, /) -> None: ...

    def check(self, file: str, structures: Sequence[ase.Atoms], /) -> list[Problem]:
        """Return what is wrong with settings and files, given the starting structures (labels have their atoms)."""

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write the inputs and return the tasks, one per frame."""

    def read(self, folder: Path) -> Any:
        """Read a finished label as a dpdata.LabeledSystem of one frame."""


def in_type_map_order(atoms: ase.Atoms, type_map: Sequence[str]) -> ase.Atoms:
    """Return the atoms sorted by type_map, those of one element in their given order."""
    order = np.argsort([type_map.index(symbol) for symbol in atoms.get_chemical_symbols()], kind="stable")
    return atoms[order]


def composition(atoms: ase.Atoms) -> dict[str, int]:
    """Return the number of atoms of each element."""
    return dict(atoms.symbols.formula.count())


def species(atoms: ase.Atoms, type_map: Sequence[str]) -> list[str]:
    """Return the elements that occur, in the order of type_map."""
    present = set(atoms.get_chemical_symbols())
    return [name for name in type_map if name in present]


def masses(param: Param) -> list[float]:
    """Return the mass of each element of type_map, u."""
    if param.mass_map == "auto":
        return [float(atomic_masses[atomic_numbers[name]]) for name in param.type_map]
    return list(param.mass_map)


def to_dpdata(atoms: ase.Atoms, type_map: Sequence[str]) -> Any:
    """Return atoms that are sorted by type_map as a dpdata.System of one frame."""
    names = species(atoms, type_map)
    symbols = atoms.get_chemical_symbols()
    data = {
        "atom_names": names,
        "atom_numbs": [symbols.count(name) for name in names],
        "atom_types": np.array([names.index(symbol) for symbol in symbols]),
        "orig": np.zeros(3),
        "cells": np.array(atoms.cell.array)[None],
        "coords": np.array(atoms.positions)[None],
    }
    return dpdata.System(data=data)


def share(folder: Path, task: str, files: Iterable[Path], below: str = "") -> list[str]:
    """Copy files into the stage's folder once, and link to them from a task.

    Parameters
    ----------
    folder
        The stage's folder.
    task
        Folder of the task, relative to the stage's.
    files
        The files.
    below
        Folder of the task they are linked in.

    Returns
    -------
    list
        Their names, relative to the task's folder.
    """
    names = []
    for file in files:
        copy = folder / file.name
        if not copy.is_file() or not filecmp.cmp(file, copy, shallow=False):
            shutil.copyfile(file, copy)
        name = f"{below}/{file.name}" if below else file.name
        relative_link(folder / task / name, copy)
        names.append(name)
    return names


def kpoints(cell: np.ndarray[Any, np.dtype[np.float64]], spacing: float | Sequence[float]) -> list[int]:
    """Return the k mesh: n_i = max(1, ceil(2 pi |b_i| / spacing)), b the reciprocal vectors without 2 pi.

    Parameters
    ----------
    cell
        Cell vectors in rows, A, shape (3, 3).
    spacing
        Largest distance of k points, 1/A; one for all directions or three.
    """
    lengths = np.linalg.norm(np.linalg.inv(cell).T, axis=1)
    spacings = [spacing] * 3 if isinstance(spacing, int | float) else list(spacing)
    return [max(1, math.ceil(2 * math.pi * length / s)) for length, s in zip(lengths, spacings, strict=True)]


def conditioned(system: Any, conditions: Mapping[str, float], use_ele_temp: int) -> Any:
    """Return a label with the electron temperature (K) it was made at, as models take it.

    Parameters
    ----------
    system
        The label, a dpdata.LabeledSystem of one frame.
    conditions
        What was held in the run the frame is from.
    use_ele_temp
        1: fparam of shape (1, 1); 2: aparam of shape (1, N, 1); 0: neither.
    """
    temperature = conditions.get("electron_temperature")
    if not use_ele_temp or temperature is None:
        return system
    shape = (1, 1) if use_ele_temp == 1 else (1, int(system.get_natoms()), 1)
    system.data["fparam" if use_ele_temp == 1 else "aparam"] = np.full(shape, float(temperature))
    return system


def weighted(system: Any, atoms: ase.Atoms) -> Any:
    """Return the label of a cluster with its weights, `atom_pref` of shape (1, N), whatever the order of its elements.

    Parameters
    ----------
    system
        The label, a dpdata.LabeledSystem of one frame; it keeps the order of the atoms of one element.
    atoms
        The cluster that was labelled, with its weights.
    """
    weights, names = atoms.get_array(WEIGHT), np.array(atoms.get_chemical_symbols())
    found = np.zeros((1, len(atoms)))
    for kind, name in enumerate(system["atom_names"]):
        found[0, system["atom_types"] == kind] = weights[names == name]
    system.data[WEIGHT] = found
    return system


class NotConvergedError(ValueError):
    """The calculation ended without converging."""


class NoFrameError(ValueError):
    """The file can be read, but no frame in it is whole."""


def parse(file: str | Sequence[str], fmt: str) -> Any:
    """Read one labelled frame with dpdata.

    Raises
    ------
    NotConvergedError
        dpdata left out the frame because its electronic steps did not converge.
    NoFrameError
        dpdata found no frame that is whole.
    ValueError
        It cannot be read, or it does not hold exactly one frame.
    """
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            system = dpdata.LabeledSystem(file, fmt=fmt)
        except Exception as error:
            raise ValueError(f"dpdata cannot read it as {fmt}: {type(error).__name__}: {error}") from error
    if len(system) == 0 and any("unconverged" in str(warning.message) for warning in warned):
        raise NotConvergedError("not converged")
    if len(system) == 0:
        raise NoFrameError("holds no converged frame")
    if len(system) != 1:
        raise ValueError(f"holds {len(system)} converged frames instead of one")
    for name, shape in (("energies", (1,)), ("forces", (1, int(system.get_natoms()), 3))):
        if name not in system.data or np.shape(system[name]) != shape or not np.all(np.isfinite(system[name])):
            raise ValueError(f"{name} are missing or not finite")
    return system


def facts(system: Any) -> Mapping[str, Any]:
    """Return the numbers about one label that are worth keeping in the ledger."""
    return {
        "natoms": int(system.get_natoms()),
        "energy": float(system["energies"][0]),
        "max_force": float(np.max(np.linalg.norm(system["forces"][0], axis=1))),
        "virial": "virials" in system.data,
    }


def printed(file: Path) -> str:
    """Return what a program wrote into a file.

    Raises
    ------
    ValueError
        It wrote nothing.
    """
    if not file.is_file() or file.stat().st_size == 0:
        raise ValueError(f"{file.name} was not written")
    return file.read_text(errors="replace")


def single_points(
    folder: Path,
    tasks: Iterable[Task],
    compositions: Mapping[str, Mapping[str, int]],
    read: Callable[[Path], Any],
    log: str,
    errors: str | None = None,
    before: str = "",
) -> Batch:
    """Return the batch of labels that are made one by one, each in its folder, by the machine's command as it stands.

    Parameters
    ----------
    folder
        The stage's folder.
    tasks
        The labels.
    compositions
        Number of atoms of each element that was asked for, by task.
    read
        Reads the label in a task's folder.
    log, errors
        The files that take standard output and standard error (None: the same file).
    before
        Shell text that goes first.
    """
    return Batch(
        folder=folder,
        tasks=tuple(tasks),
        script=lambda command, _: f"{before}\n{command}" if before else command,
        verify=lambda task, code: verdict(read, folder / task.name, compositions[task.name], code, log),
        log=log,
        errors=errors,
        what="label",
    )


def verdict(
    read: Callable[[Path], Any], folder: Path, composition: Mapping[str, int], code: int | None, log: str
) -> Verdict:
    """Judge one label: it converged, can be read, and is of the atoms that were asked for.

    Parameters
    ----------
    read
        Reads the label in `folder`.
    folder
        Folder of the task.
    composition
        Number of atoms of each element that was asked for.
    code
        Exit status; not believed, but named when there is no label.
    log
        The log file to quote.
    """
    detail = tail(folder / log)
    try:
        system = read(folder)
    except NotConvergedError as error:
        return Failure(str(error), Retry.NEVER, detail)
    except (ValueError, OSError) as error:
        how = "" if code == 0 else f" (exit status {code})"
        return Failure(f"no usable label{how}: {error}", Retry.LATER, detail)
    found = {name: int(n) for name, n in zip(system["atom_names"], system["atom_numbs"], strict=True) if n}
    if found != dict(composition):
        return Failure(f"the label is of {found}, not of {dict(composition)}", Retry.NEVER, detail)
    return facts(system)
