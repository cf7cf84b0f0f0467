"""CP2K's input file: sections from nested objects, or a template whose cell is replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import ase
import numpy as np

TITLE = "_"
"""Key of the word that follows a section's name."""
INPUT, COORD = "input.inp", "coord.xyz"


def _defaults() -> dict[str, Any]:
    """Return what DP-GEN takes for whatever user_fp_params does not say."""
    folder = "./cp2k_basis_pp_file"
    quickstep = {
        "BASIS_SET_FILE_NAME": f"{folder}/BASIS_MOLOPT",
        "POTENTIAL_FILE_NAME": f"{folder}/GTH_POTENTIALS",
        "CHARGE": 0,
        "UKS": "F",
        "MULTIPLICITY": 1,
        "MGRID": {"CUTOFF": 400, "REL_CUTOFF": 50, "NGRIDS": 4},
        "QS": {"EPS_DEFAULT": "1.0E-12"},
        "SCF": {"SCF_GUESS": "ATOMIC", "EPS_SCF": "1.0E-6", "MAX_SCF": 50},
        "XC": {"XC_FUNCTIONAL": {TITLE: "PBE"}},
    }
    electrons = {"H": 1, "C": 4, "N": 5}
    kinds = {
        TITLE: list(electrons),
        "POTENTIAL": [f"GTH-PBE-q{n}" for n in electrons.values()],
        "BASIS_SET": ["DZVP-MOLOPT-GTH"] * len(electrons),
    }
    force_eval = {
        "METHOD": "QS",
        "STRESS_TENSOR": "ANALYTICAL",
        "DFT": quickstep,
        "SUBSYS": {"CELL": {}, "COORD": {"@include": COORD}, "KIND": kinds},
        "PRINT": {"FORCES": {TITLE: "ON"}, "STRESS_TENSOR": {TITLE: "ON"}},
    }
    return {"GLOBAL": {"PROJECT": "DPGEN"}, "FORCE_EVAL": force_eval}


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's sections over the defaults; lists and words are replaced, sections merged."""
    return _merged(_defaults(), given)


def _merged(base: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(base[key], new[key]) for key in new if _mapping(base.get(key)) and _mapping(new[key])}
    return {**base, **new, **both}


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def at(config: Mapping[str, Any], *path: str) -> Any:
    """Return what stands below a path of sections, None if nothing does."""
    here: Any = config
    for key in path:
        if not isinstance(here, Mapping) or key not in here:
            return None
        here = here[key]
    return here


def multiplicity(atoms: ase.Atoms, charge: int) -> int:
    """Return 1 for an even number of electrons, 2 for an odd one."""
    return (int(atoms.numbers.sum()) - charge) % 2 + 1


def charge(given: Mapping[str, Any]) -> int:
    """Return the charge the user gave (0 otherwise), e."""
    try:
        return int(at(given, "FORCE_EVAL", "DFT", "CHARGE") or 0)
    except (TypeError, ValueError):
        return 0


def text(given: Mapping[str, Any], atoms: ase.Atoms) -> str:
    """Return the input of one frame from user_fp_params."""
    vectors = dict(zip("ABC", cell_vectors(atoms), strict=True))
    own: dict[str, Any] = {"FORCE_EVAL": {"SUBSYS": {"CELL": vectors}}}
    if at(given, "FORCE_EVAL", "DFT", "MULTIPLICITY") is None:
        own["FORCE_EVAL"]["DFT"] = {"MULTIPLICITY": multiplicity(atoms, charge(given))}
    return "\n".join(_lines(_merged(completed(given), own), 0)) + "\n"


def _lines(section: Mapping[str, Any], depth: int) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            for one in _repeated(value):
                yield _pad(depth, f"&{key} {_word(one.get(TITLE, ''))}")
                yield from _lines({name: item for name, item in one.items() if name != TITLE}, depth + 1)
                yield _pad(depth, f"&END {key}")
        else:
            yield _pad(depth, f"{key} {_word(value)}")


def _repeated(section: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return one section, or as many as its lists are long: the n-th has the n-th value of each list."""
    lengths = {len(value) for value in section.values() if isinstance(value, list)}
    if not lengths:
        return [section]
    return [
        {key: value[n] if isinstance(value, list) else value for key, value in section.items()}
        for n in range(min(lengths))
    ]


def unequal(section: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the paths of sections whose lists have different lengths."""
    lists = {len(value) for value in section.values() if isinstance(value, list)}
    if len(lists) > 1:
        yield path
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from unequal(value, f"{path}.{key}")


def _pad(depth: int, line: str) -> str:
    return "  " * depth + line.rstrip()


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return "" if value is None else str(value)


def cell_vectors(atoms: ase.Atoms) -> list[str]:
    """Return the three cell vectors as text, A."""
    return [" ".join(f"{x:.12f}" for x in row) for row in np.asarray(atoms.cell.array)]


ABC = re.compile(r"^(?P<indent>[ \t]*)ABC\b.*$", flags=re.IGNORECASE | re.MULTILINE)


def from_template(template: str, atoms: ase.Atoms) -> str:
    """Return a template with its line `ABC ...` replaced by the three cell vectors."""
    rows = [f"{name} {row}" for name, row in zip("ABC", cell_vectors(atoms), strict=True)]
    return ABC.sub(lambda match: "\n".join(match.group("indent") + row for row in rows), template, count=1)


def coordinates(atoms: ase.Atoms) -> str:
    """Return the file that the section COORD includes; A."""
    rows = zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)
    return "\n" + "".join(f"{name} {x:.12f} {y:.12f} {z:.12f}\n" for name, (x, y, z) in rows)
