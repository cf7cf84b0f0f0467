"""The data set of one iteration: which labelled systems are trained on, through which links, in which batches."""

from __future__ import annotations

import math
import os
from pathlib import Path

from activelearn.config.param import Param
from activelearn.data import dataset
from activelearn.data.labelled import LabelledSystem
from activelearn.files import link, relative_link
from activelearn.train.values import DataEntry
from activelearn.workdir import Workdir

ATOMS_PER_BATCH = 32


def initial(param: Param, root: Path) -> list[tuple[int, LabelledSystem]]:
    """Return the initial labelled systems, each with the index of its entry in init_data_sys."""
    prefix = root / os.path.expanduser(param.init_data_prefix)  # noqa: PTH111
    return [
        (place, system) for place, entry in enumerate(param.init_data_sys) for system in dataset.find(prefix / entry)
    ]


def heldout(param: Param, root: Path) -> list[LabelledSystem]:
    """Return the labelled systems models are tested on and never trained on."""
    prefix = root / os.path.expanduser(param.init_data_prefix)  # noqa: PTH111
    return [system for entry in param.activelearn.validation_data_sys for system in dataset.find(prefix / entry)]


def entries(param: Param, workdir: Workdir, iteration: int) -> list[DataEntry]:
    """Return the data set of an iteration, and lay the links by which its training tasks see it.

    Systems with fewer than fp_task_min new frames in one iteration are left out, as in DP-GEN.
    """
    folder = workdir.iteration(iteration).train
    found = _linked([s for _, s in initial(param, workdir.root)], folder / "data.init", param.init_data_prefix, workdir)
    sizes = [param.batch_size("init_batch_size", place) for place, _ in initial(param, workdir.root)]
    data = [_entry(system, path, size) for (system, path), size in zip(found, sizes, strict=True)]
    for earlier in range(iteration):
        source = workdir.iteration(earlier)
        base = f"data.iters/{source.root.name}"
        used = False
        for number in range(len(param.sys_configs)):
            systems = dataset.find(source.labelled(number)) if source.labelled(number).is_dir() else []
            if sum(system.nframes for system in systems) < max(1, param.fp_task_min):
                continue
            used = True
            size = param.batch_size("sys_batch_size", number)
            for system in systems:
                data.append(_entry(system, f"{base}/{system.path.relative_to(source.root)}", size, earlier))
        if used:
            relative_link(folder / base, source.root)
    return data


def n_frames(param: Param, workdir: Workdir, iteration: int) -> tuple[int, int]:
    """Return the labelled frames before the last iteration, initial data included, and those of the last iteration.

    Systems that are too small to be trained on count as well, as in DP-GEN.
    """
    old = sum(system.nframes for _, system in initial(param, workdir.root))
    new = 0
    for earlier in range(iteration):
        source = workdir.iteration(earlier)
        old += new
        new = 0
        for number in range(len(param.sys_configs)):
            if source.labelled(number).is_dir():
                new += sum(system.nframes for system in dataset.find(source.labelled(number)))
    return old, new


def heldout_entries(param: Param, workdir: Workdir, iteration: int) -> list[DataEntry]:
    """Return the held-out systems, linked for the training tasks of an iteration."""
    folder = workdir.iteration(iteration).train
    found = _linked(heldout(param, workdir.root), folder / "data.heldout", param.init_data_prefix, workdir)
    return [_entry(system, path, "auto") for system, path in found]


def _linked(systems: list[LabelledSystem], at: Path, prefix: str, workdir: Workdir) -> list[tuple[LabelledSystem, str]]:
    """Make one link to the folder above all systems (the prefix, if it is), and name each system below it."""
    if not systems:
        return []
    paths = [Path(os.path.abspath(system.path)) for system in systems]  # noqa: PTH100  keep symbolic links
    base = Path(os.path.abspath(workdir.root / os.path.expanduser(prefix)))  # noqa: PTH100, PTH111
    if not all(path.is_relative_to(base) and path != base for path in paths):
        base = Path(os.path.commonpath([path.parent for path in paths]))
    link(at, base)
    return [
        (system, f"{at.name}/{path.relative_to(base)}" + (f"#{system.group}" if system.group else ""))
        for system, path in zip(systems, paths, strict=True)
    ]


def _entry(system: LabelledSystem, path: str, size: int | str, iteration: int | None = None) -> DataEntry:
    if size == "auto":
        size = min(math.ceil(ATOMS_PER_BATCH / max(1, system.natoms)), max(1, system.nframes))
    return DataEntry(system, path, size, iteration)
