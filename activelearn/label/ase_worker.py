"""Label frames with an ASE calculator. Needs only numpy, ase and the calculator; is forwarded with the frames.

Usage: python ase_worker.py calculator.json TASK [TASK ...]
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError, get_calculator_class, names

FRAME, LABEL, ERROR = "frame.xyz", "label.json", "error.log"
EXTERNAL = {"tblite": "tblite.ase:TBLite"}


def target(name: str) -> str | None:
    """Return `module:Class` of a calculator; None when nobody knows the name."""
    if ":" in name:
        return name
    if name.lower() in EXTERNAL:
        return EXTERNAL[name.lower()]
    if name.lower() in names:
        return f"ase.calculators:{name.lower()}"
    return None


def make(name: str, kwargs: dict[str, Any]) -> Any:
    """Return the calculator."""
    where = target(name)
    if where is None:
        raise ValueError(f"{name!r} is no calculator of ASE")
    module, _, attribute = where.partition(":")
    if module == "ase.calculators":
        return get_calculator_class(attribute)(**kwargs)
    return getattr(importlib.import_module(module), attribute)(**kwargs)


def label(folder: Path, calculator: Any) -> None:
    """Label the frame in `folder`: energy (eV), forces (eV/A) and, for periodic cells, stress (eV/A^3)."""
    atoms = ase.io.read(folder / FRAME)
    atoms.calc = calculator
    result = {
        "symbols": atoms.get_chemical_symbols(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "energy": float(atoms.get_potential_energy()),
        "forces": atoms.get_forces().tolist(),
    }
    if atoms.pbc.all():
        with contextlib.suppress(PropertyNotImplementedError):
            result["stress"] = atoms.get_stress(voigt=False).tolist()
    temporary = folder / (LABEL + ".new")
    temporary.write_text(json.dumps(result))
    temporary.replace(folder / LABEL)


def labelled(result: dict[str, Any]) -> Any:
    """Return the content of a label file as a dpdata.LabeledSystem of one frame."""
    import dpdata

    symbols = list(dict.fromkeys(result["symbols"]))
    cell = np.array(result["cell"])
    data = {
        "atom_names": symbols,
        "atom_numbs": [result["symbols"].count(name) for name in symbols],
        "atom_types": np.array([symbols.index(name) for name in result["symbols"]]),
        "orig": np.zeros(3),
        "cells": cell[None],
        "coords": np.array(result["positions"])[None],
        "energies": np.array([result["energy"]]),
        "forces": np.array(result["forces"])[None],
    }
    if not any(result["pbc"]):
        data["nopbc"] = True
    if "stress" in result:
        data["virials"] = -np.array(result["stress"])[None] * abs(np.linalg.det(cell))
    return dpdata.LabeledSystem(data=data)


def main(arguments: list[str]) -> int:
    """Label every frame that has no label yet; one that fails does not stop the others."""
    settings = json.loads(Path(arguments[0]).read_text())
    failed = 0
    for name in arguments[1:]:
        folder = Path(name)
        if (folder / LABEL).exists():
            continue
        (folder / ERROR).unlink(missing_ok=True)
        try:
            label(folder, make(settings["calculator"], settings["kwargs"]))
        except Exception:  # noqa: BLE001  any failure belongs to this frame alone
            (folder / ERROR).write_text(traceback.format_exc())
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
