"""Pseudopotential files listed in fp_pp_files, and the elements they are for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from activelearn.errors import Problem
from activelearn.label import upf


def titel(potcar: Path) -> str | None:
    """Return the element a VASP POTCAR says it is for, from its TITEL line."""
    with potcar.open(errors="replace") as stream:
        for line in stream:
            match = re.search(r"TITEL\s*=\s*\S+\s+([A-Z][a-z]?)", line)
            if match:
                return match.group(1)
    return None


def check(
    file: str, type_map: Sequence[str], folder: Path, names: Sequence[str], kind: str, elements: set[str]
) -> list[Problem]:
    """Compare fp_pp_files with type_map: one file per element, there, and for the right element.

    Parameters
    ----------
    file
        The param file, for messages.
    type_map
        Elements.
    folder
        fp_pp_path.
    names
        fp_pp_files.
    kind
        "POTCAR" or "UPF".
    elements
        Elements that really occur.
    """
    if len(names) != len(type_map):
        message = f"{len(names)} files for {len(type_map)} elements of type_map"
        return [Problem(file, "fp_pp_files", message, "list one file per element, in the order of type_map")]
    problems = []
    read = titel if kind == "POTCAR" else upf.element
    for place, (name, element) in enumerate(zip(names, type_map, strict=True)):
        path = folder / name
        where = f"fp_pp_files[{place}]"
        if not path.is_file():
            problems.append(Problem(file, where, f"{path} does not exist", f"put the {kind} of {element} there"))
            continue
        found = read(path)
        if found is None:
            problems.append(Problem(file, where, f"{path} does not say which element it is for (not a {kind}?)"))
        elif found != element and element in elements:
            message = f"{path} is for {found}, but element {place} of type_map is {element}"
            problems.append(Problem(file, where, message, f"list the files in the order {list(type_map)}"))
        elif found != element:
            message = f"{path} is for {found}, but element {place} of type_map is {element} (which no structure has)"
            problems.append(Problem(file, where, message, level="warning"))
    return problems
