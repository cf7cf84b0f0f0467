"""From a JSON or YAML file to settings, with every problem found at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from activelearn.config import dpgen
from activelearn.config.base import keys
from activelearn.errors import ConfigError, Problem
from activelearn.plugins import suggest

OWN = "_activelearn"
PROGRAM_INPUT = ("user_fp_params", "fp_params")


class _Yaml(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as everybody expects (YAML 1.1 asks for 1.0e-3)."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read(file: Path) -> dict[str, Any]:
    """Read a JSON or YAML object; keys that start with `_` are comments, except `_activelearn`.

    Raises
    ------
    ConfigError
        The file is missing, is not JSON or YAML, or is not an object.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(str(file), "", f"cannot be read: {error.strerror}", "check the path")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(file), "", "is not UTF-8 text")]) from None
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found and not key.startswith("_"):
                twice.append(key)
            found[key] = value
        return found

    try:
        is_yaml = file.suffix in (".yaml", ".yml")
        raw = yaml.load(text, _Yaml) if is_yaml else json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError([Problem(str(file), "", f"is not valid JSON at {where}: {error.msg}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Problem(str(file), "", f"is not valid YAML: {error}")]) from None
    if twice:
        raise ConfigError([Problem(str(file), key, "is given twice", "keep one of them") for key in twice])
    if not isinstance(raw, dict):
        raise ConfigError([Problem(str(file), "", "must hold one object", 'it starts with "{"')])
    odd = [key for key in raw if not isinstance(key, str)]
    if odd:
        raise ConfigError([Problem(str(file), str(key), "is no name", "put the key into quotes") for key in odd])
    own = raw.get(OWN)
    bare = without_comments(raw)
    return {**bare, OWN: own} if own is not None else bare


def without_comments(value: Any, program: bool = False) -> Any:
    """Drop every key that starts with `_`, at any depth; but `_` alone means something in a program's input.

    Parameters
    ----------
    value
        Any JSON value.
    program
        Whether it is part of a program's input (CP2K's sections have a key `_`).
    """
    if isinstance(value, dict):
        return {
            key: without_comments(item, program or key in PROGRAM_INPUT)
            for key, item in value.items()
            if not str(key).startswith("_") or (program and key == "_")
        }
    if isinstance(value, list):
        return [without_comments(item, program) for item in value]
    return value


def settings(
    raw: Mapping[str, Any], models: Iterable[type[BaseModel]], file: str
) -> tuple[dict[type[BaseModel], BaseModel], list[Problem]]:
    """Split one object over several settings models, each taking the keys it declares.

    Returns
    -------
    tuple
        The settings that are valid, by model, and all problems, unknown keys included.
    """
    models = list(models)
    problems = [_unknown(file, key, value, models) for key, value in raw.items() if not _known(key, models)]
    found: dict[type[BaseModel], BaseModel] = {}
    for model in models:
        mine = {key: raw[key] for key in keys(model) if key in raw}
        try:
            found[model] = model.model_validate(mine)
        except ValidationError as error:
            problems += _explained(error, model, file)
    return found, [problem for problem in problems if problem is not None]


def _known(key: str, models: list[type[BaseModel]]) -> bool:
    return any(key in keys(model) for model in models)


def _unknown(file: str, key: str, value: Any, models: list[type[BaseModel]]) -> Problem | None:
    if key in dpgen.OTHER_ENGINES:
        if not value:
            return None  # it asks for nothing: nothing is missing
        return Problem(file, key, "belongs to an engine of DP-GEN that activelearn does not run", "remove it")
    known = sorted(set().union(*(keys(model) for model in models)))
    return Problem(
        file, key, "unknown key", suggest(key, known) or "remove it, or start its name with _ to keep it as a comment"
    )


def _explained(error: ValidationError, model: type[BaseModel], file: str) -> list[Problem]:
    """Turn pydantic's errors into problems, one per place."""
    problems: dict[str, Problem] = {}
    for item in error.errors():
        path, known = _path(item["loc"], model)
        value = item.get("input")
        kind = item["type"]
        if kind == "missing":
            problem = Problem(file, path, "is required but missing")
        elif kind == "extra_forbidden":
            key = str(item["loc"][-1])
            if key in dpgen.JOB_OTHER_ENGINES:
                if not value:
                    continue
                problem = Problem(
                    file, path, "belongs to an engine of DP-GEN that activelearn does not run", "remove it"
                )
            else:
                problem = Problem(file, path, "unknown key", suggest(key, known))
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = json.dumps(value, default=str)
            problem = Problem(file, path, f"{message[:1].lower()}{message[1:]}, not {shown[:80]}")
        problems.setdefault(path, problem)
    return list(problems.values())


def _path(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, list[str]]:
    """Return the JSON path of a pydantic location, and the keys allowed next to it.

    Pydantic puts the branch of a union or the name of a validator into the location; those are no part of the file.
    """
    path = ""
    here: type[BaseModel] | None = model
    known: list[str] = []
    for position, part in enumerate(loc):
        if isinstance(part, int):
            path += f"[{part}]"
            continue
        if here is not None:
            known = sorted(keys(here))
            if part in known or position == len(loc) - 1:
                path += f".{part}" if path else part
                field = next((f for n, f in here.model_fields.items() if (f.alias or n) == part), None)
                here = _nested(field.annotation) if field else None
            continue
        if part.isdigit():
            path += f".{part}"
    return path, known


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _nested(inner)
        if found:
            return found
    return None
