"""Pseudopotential files listed in fp_pp_files, and the elements they are for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from activelearn.errors import Problem, about_files
from activelearn.label import upf

END = "End of Dataset"
"""Last line of the dataset of one element in a POTCAR."""


def titel(dataset: str) -> str | None:
    """Return the element a dataset of a VASP POTCAR says it is for, from its TITEL line."""
    match = re.search(r"TITEL\s*=\s*\S+\s+([A-Z][a-z]?)", dataset)
    return match.group(1) if match else None


def datasets(potcar: Path) -> list[str]:
    """Return the datasets of a POTCAR, one per element: a file may hold several, one behind the other.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    text = potcar.read_text(errors="replace").rstrip() + "\n"
    *whole, rest = re.split(rf"(?<={END})[^\n]*\n", text)
    return [f"{part}\n" for part in whole] + ([rest] if rest.strip() else [])


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
    hint = "list one file per element, in the order of type_map"
    if len(names) > len(type_map) or (kind != "POTCAR" and len(names) < len(type_map)):
        return [Problem(file, "fp_pp_files", f"{len(names)} files for {len(type_map)} elements of type_map", hint)]
    problems: list[Problem] = []
    found: list[tuple[int, str | None]] = []
    for place, name in enumerate(names):
        path = folder / name
        if not path.is_file():
            message = f"{path} does not exist"
            problems.append(
                Problem(file, f"fp_pp_files[{place}]", message, f"put the {kind} of {type_map[place]} there")
            )
            found.append((place, type_map[place]))
        elif kind == "POTCAR":
            found += [(place, titel(text)) for text in datasets(path)]
        else:
            found.append((place, upf.element(path)))
    if len(found) == len(type_map):
        problems += _compared(
            file, type_map, [(place, folder / names[place], element) for place, element in found], kind, elements
        )
    elif not problems:
        message = f"the files are for {len(found)} elements, type_map has {len(type_map)}"
        problems.append(Problem(file, "fp_pp_files", message, hint))
    return about_files(problems)


def _compared(
    file: str, type_map: Sequence[str], found: Iterable[tuple[int, Path, str | None]], kind: str, elements: set[str]
) -> Iterator[Problem]:
    """Yield files that are for another element than the one they stand for in type_map."""
    for number, (place, path, element) in enumerate(found):
        wanted, where = type_map[number], f"fp_pp_files[{place}]"
        message = f"{path} is for {element}, but element {number} of type_map is {wanted}"
        if element is None:
            yield Problem(file, where, f"{path} does not say which element it is for (not a {kind}?)")
        elif element != wanted and wanted in elements:
            yield Problem(file, where, message, f"list the files in the order {list(type_map)}")
        elif element != wanted:
            yield Problem(file, where, f"{message} (which no structure has)", level="warning")
