"""INCAR: the few tags the labeler must know, and MAGMOM given per element."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from activelearn.errors import Problem


def tags(text: str) -> dict[str, str]:
    """Return the tags of an INCAR by upper-case name, comments dropped; the last of several counts."""
    return {match.group("key").upper(): match.group("value").strip() for match in _assignments(text)}


def _assignments(text: str) -> Iterator[re.Match[str]]:
    """Yield each `KEY = value`; several may share a line, separated by semicolons."""
    for statement in re.finditer(r"(?P<code>[^#!;\n]*)(?:[#!][^\n]*)?[;\n]?", text):
        match = re.match(r"\s*(?P<key>[A-Za-z_]\w*)\s*=\s*(?P<value>.*)", statement.group("code"))
        if match:
            yield match


def check(file: str, key: str, text: str, type_map: Sequence[str], needs_spacing: bool = True) -> list[Problem]:
    """Return what the labeler misses in an INCAR; KSPACING only where the k mesh follows from it."""
    found = tags(text)
    problems = []
    if not needs_spacing:
        pass
    elif "KSPACING" not in found:
        problems.append(Problem(file, key, "the INCAR has no KSPACING", "add for example KSPACING = 0.2"))
    elif spacing(found) is None:
        problems.append(Problem(file, key, f"KSPACING = {found['KSPACING']} is no positive number (1/A)"))
    if "KGAMMA" not in found:
        problems.append(Problem(file, key, "the INCAR has no KGAMMA", "add KGAMMA = .TRUE. (mesh centred at Gamma)"))
    elif gamma(found) is None:
        problems.append(Problem(file, key, f"KGAMMA = {found['KGAMMA']} is neither true nor false"))
    if _word(found, "NSW", "0") not in ("0", "1"):
        message = f"NSW = {found['NSW']}: a label is a single point"
        problems.append(Problem(file, key, message, "write NSW = 0"))
    moves = _word(found, "NSW", "0") == "1" and _word(found, "IBRION", "0") == "0"
    if _word(found, "ISIF", "0" if moves else "2") == "0":
        message = "ISIF = 0 (the default with NSW = 1) computes no stress: the labels will have no virial"
        problems.append(Problem(file, key, message, "write ISIF = 2", "warning"))
    if found.get("MAGMOM", "").endswith("\\"):
        problems.append(Problem(file, key, "MAGMOM goes on in the next line", "write it in one line"))
    elif "MAGMOM" in found and "*" not in found["MAGMOM"] and len(found["MAGMOM"].split()) < len(type_map):
        message = f"MAGMOM has {len(found['MAGMOM'].split())} values for {len(type_map)} elements of type_map"
        problems.append(Problem(file, key, message, "give one value per element (expanded per atom), or one per atom"))
    return problems


def _word(found: Mapping[str, str], tag: str, default: str) -> str:
    """Return the first word of a tag's value."""
    return next(iter(found.get(tag, "").split()), default)


def spacing(found: Mapping[str, str]) -> float | None:
    """Return KSPACING, 1/A, None unless it is a positive number."""
    try:
        value = float(found["KSPACING"].split()[0].lower().replace("d", "e"))
    except (KeyError, ValueError, IndexError):
        return None
    return value if value > 0 else None


def gamma(found: Mapping[str, str]) -> bool | None:
    """Return KGAMMA, None if it is not a truth value."""
    match = re.match(r"\.?([TtFf])", found.get("KGAMMA", ""))
    return match.group(1).upper() == "T" if match else None


def with_magmom(text: str, counts: Mapping[str, int], type_map: Sequence[str]) -> str:
    """Return the INCAR with MAGMOM written per atom, if it was given per element of type_map; else unchanged.

    Parameters
    ----------
    text
        The INCAR.
    counts
        Number of atoms of each element in the frame.
    type_map
        Elements, the order of the values.
    """
    match = next((m for m in _assignments(text) if m.group("key").upper() == "MAGMOM"), None)
    if match is None:
        return text
    values = match.group("value").split()
    if len(values) != len(type_map) or any("*" in value for value in values):
        return text
    moments = dict(zip(type_map, values, strict=True))
    expanded = " ".join(f"{counts[name]}*{moments[name]}" for name in type_map if counts.get(name))
    return re.sub(
        r"(?im)^(?P<before>[^#!\n]*?\bMAGMOM\s*=\s*)[^#!;\n]*",
        lambda m: f"{m.group('before')}{expanded} ",
        text,
        count=1,
    ).replace(f"{expanded} \n", f"{expanded}\n")


def with_tags(text: str, new: Mapping[str, str]) -> str:
    """Return the INCAR with some tags set; the old statements of these tags are dropped, the rest stays as it is."""
    lines = []
    for line in text.splitlines():
        code, mark, comment = re.match(r"([^#!]*)([#!]?)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
        statements = code.split(";")
        kept = [part for part in statements if part.partition("=")[0].strip().upper() not in new]
        if len(kept) == len(statements):
            lines.append(line)
        elif any(part.strip() for part in kept) or comment:
            lines.append(";".join(kept) + mark + comment)
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in new.items())]) + "\n"
