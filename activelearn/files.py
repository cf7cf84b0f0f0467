"""Write files so that a crash leaves the old or the new content, and nothing changes without need."""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_if_different(path: Path, text: str) -> None:
    """Write `text` unless the file holds it already: doing it twice equals doing it once."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_lines_if_different(path: Path, pieces: Iterable[str]) -> None:
    """Do the same with a text that comes in pieces, never holding all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(pieces)
    if path.is_file() and filecmp.cmp(temporary, path, shallow=False):
        temporary.unlink()
    else:
        temporary.replace(path)


def link(path: Path, target: Path | str) -> None:
    """Make `path` a symbolic link to `target`, replacing a link that points elsewhere."""
    if path.is_symlink():
        if str(path.readlink()) == str(target):
            return
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def relative_link(path: Path, target: Path) -> None:
    """Link to another place inside the run, so that the run can be moved."""
    link(path, os.path.relpath(target, path.parent))


def move_aside(folder: Path) -> Path:
    """Rename a folder that is in the way to .bk000, .bk001, ..., as DP-GEN does; return its new name."""
    number = 0
    while (aside := folder.with_name(f"{folder.name}.bk{number:03d}")).exists():
        number += 1
    folder.rename(aside)
    return aside


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line, on disk when this returns; a torn last line is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(json.dumps(value).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read a file of JSON lines.

    Returns
    -------
    tuple
        The objects, and the number of lines that are torn or not an object.
    """
    values: list[dict[str, Any]] = []
    torn = 0
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return values, torn
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            torn += 1
            continue
        if isinstance(value, dict):
            values.append(value)
        else:
            torn += 1
    return values, torn
