"""`al collect`: the data set of a run in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.io
from ase.calculators.singlepoint import SinglePointCalculator

from activelearn.config.param import Param
from activelearn.data import dataset
from activelearn.data.labelled import LabelledSystem
from activelearn.errors import ActiveLearnError
from activelearn.train import data as training_data
from activelearn.workdir import Workdir

FORMATS = ("deepmd/npy", "deepmd/hdf5", "extxyz")


def systems(param: Param, workdir: Workdir, with_initial: bool) -> list[LabelledSystem]:
    """Return all labelled systems of a run, in the order of their making."""
    found = [system for _, system in training_data.initial(param, workdir.root)] if with_initial else []
    iteration = 0
    while workdir.iteration(iteration).root.is_dir():
        place = workdir.iteration(iteration)
        for number in range(len(param.sys_configs)):
            if place.labelled(number).is_dir():
                found += dataset.find(place.labelled(number))
        iteration += 1
    return found


def collect(param: Param, workdir: Workdir, output: Path, fmt: str, with_initial: bool) -> int:
    """Write the data set of a run and return its number of frames.

    Raises
    ------
    ActiveLearnError
        There is no data, or `output` exists already.
    """
    found = systems(param, workdir, with_initial)
    if not found:
        raise ActiveLearnError(f"no labelled data in {workdir.root} yet")
    if output.exists():
        raise ActiveLearnError(f"{output} exists already\n    -> remove it or choose another name")
    merged = dataset.merge(found, list(param.type_map))
    output.parent.mkdir(parents=True, exist_ok=True)
    if fmt == "extxyz":
        ase.io.write(output, [atoms for system in merged for atoms in _atoms(system)], format="extxyz")
    else:
        merged.to(fmt, str(output))
    return int(merged.get_nframes())


def _atoms(system: Any) -> list[ase.Atoms]:
    """Return labelled frames with energy (eV), forces (eV/A) and, where there is a virial, stress (eV/A^3)."""
    frames = []
    symbols = [system["atom_names"][t] for t in system["atom_types"]]
    periodic = not system.nopbc
    for number in range(system.get_nframes()):
        atoms = ase.Atoms(symbols, system["coords"][number], cell=system["cells"][number], pbc=periodic)
        results = {"energy": float(system["energies"][number]), "forces": system["forces"][number]}
        if "virials" in system.data and periodic:
            results["stress"] = -system["virials"][number] / atoms.get_volume()
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames
