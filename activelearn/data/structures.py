"""Starting structures: the files behind sys_configs."""

from __future__ import annotations

import contextlib
import glob
import io
import os
from pathlib import Path
from typing import Any

import dpdata
import numpy as np


def expand(root: Path, prefix: str, patterns: list[str]) -> list[tuple[str, list[Path]]]:
    """Expand file patterns in the order given, the matches of each pattern sorted (as DP-GEN does).

    Returns
    -------
    list
        Each pattern with its matches.
    """
    found = []
    for pattern in patterns:
        full = os.path.join(glob.escape(str(root)), os.path.expanduser(prefix), os.path.expanduser(pattern))  # noqa: PTH111, PTH118
        found.append((pattern, [Path(match) for match in sorted(glob.glob(full))]))  # noqa: PTH207
    return found


def read(file: Path, fmt: str, type_map: list[str]) -> Any:
    """Read one structure as a dpdata.System whose atom types count in `type_map`.

    Raises
    ------
    ValueError
        The file cannot be read as `fmt`, holds no frame, or has an element that type_map lacks.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            system = dpdata.System(str(file), fmt=fmt)
    except NotImplementedError:
        raise ValueError(f"dpdata has no format {fmt!r}") from None
    except Exception as error:
        raise ValueError(f"cannot be read as {fmt}: {type(error).__name__}: {error}") from error
    if system.get_nframes() == 0:
        raise ValueError("holds no structure")
    present = elements(system)
    missing = [name for name in present if name not in type_map]
    if missing:
        raise ValueError(f"has {', '.join(missing)}, which type_map {type_map} lacks")
    system.apply_type_map(type_map)
    if not np.all(np.isfinite(system["coords"])) or abs(np.linalg.det(system["cells"][0])) < 1e-6:
        raise ValueError("has coordinates that are not finite or a cell without volume")
    return system


def elements(system: Any) -> list[str]:
    """Return the elements that occur in a dpdata system, in its own order."""
    return [name for name, count in zip(system["atom_names"], system["atom_numbs"], strict=True) if count]


def to_atoms(system: Any) -> Any:
    """Return the first frame of a dpdata system as ase.Atoms, periodic unless the system is not."""
    atoms = system.to_ase_structure()[0]
    atoms.calc = None
    atoms.pbc = not system.nopbc
    return atoms
