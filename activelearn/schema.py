"""A JSON Schema of param.json, made from the settings models: what an editor needs to complete and explain keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from activelearn import plugins
from activelearn.config import legacy
from activelearn.config.param import Param
from activelearn.explore import EXPLORERS
from activelearn.explore import GROUP as EXPLORER_GROUP
from activelearn.label import GROUP as LABELER_GROUP
from activelearn.label import LABELERS
from activelearn.train import GROUP as TRAINER_GROUP
from activelearn.train import TRAINERS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/{model}"
UNIT = re.compile(r",\s(eV/atom|eV/A|eV|kbar|bar|ps|fs|K|A|u|percent|Ry)(?=[.;,)\s]|$)")
"""A description ends with the unit of its key, if it has one: "Temperatures, K."."""


def build() -> Schema:
    """Return the schema: every key of every engine, with description, unit and default."""
    shared: list[type[BaseModel]] = [Param, *(model for _, model in _models(TRAINERS, TRAINER_GROUP))]
    schema: Schema = {
        "$schema": DIALECT,
        "title": "param.json of activelearn and DP-GEN",
        "type": "object",
        "properties": {},
        "required": [],
        "patternProperties": {"^_": {"description": "A comment."}},
        "additionalProperties": False,
        "allOf": [],
        "$defs": {},
    }
    for model in shared:
        part = _part(model, schema)
        schema["properties"] |= part["properties"]
        schema["required"] += part["required"]
    engines = {
        "model_devi_engine": _models(EXPLORERS, EXPLORER_GROUP),
        "fp_style": _models(LABELERS, LABELER_GROUP),
    }
    for key, models in engines.items():
        found = list(models)
        schema["properties"][key] = {**schema["properties"][key], "enum": [name for name, _ in found]}
        _add_engines(schema, key, found)
    for old, new in legacy.RENAMED.items():
        schema["properties"].setdefault(old, _deprecated(f"Called {new} now."))
    for dead, why in legacy.DEAD.items():
        schema["properties"].setdefault(dead, _deprecated(f"Ignored: {why}."))
    for old, new in legacy.JOB_DEFAULTS.items():
        schema["properties"].setdefault(old, _deprecated(f"A key of each exploration job now: {new}."))
    job = schema["$defs"]["ExplorationJob"]["properties"]
    for old, new in legacy.RENAMED_IN_JOB.items():
        job.setdefault(old, _deprecated(f"Called {new} now."))
    for place in _objects(schema):
        if place.get("additionalProperties") is False:
            place.setdefault("patternProperties", {"^_": {"description": "A comment."}})
    return schema


def _models(registry: Mapping[str, str], group: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name in plugins.names(registry, group):
        yield name, plugins.load(registry, group, name).Settings


def _part(model: type[BaseModel], schema: Schema) -> Schema:
    """Return properties and required keys of one model; what they refer to goes into the definitions of `schema`."""
    made = model.model_json_schema(ref_template=REF)
    schema["$defs"] |= made.pop("$defs", {})
    for place in _objects(made):
        for key, value in place.get("properties", {}).items():
            _explain(key, value)
    for definition in schema["$defs"].values():
        for key, value in definition.get("properties", {}).items():
            _explain(key, value)
    return {"properties": made["properties"], "required": made.get("required", [])}


def _explain(key: str, value: Schema) -> None:
    value.pop("title", None)
    found = UNIT.search(value.get("description", key))
    if found:
        value["unit"] = found[1]


def _add_engines(schema: Schema, key: str, models: list[tuple[str, type[BaseModel]]]) -> None:
    """Add the keys of the engines one key chooses from; each is required, and means what it means, with its engine."""
    parts = {name: _part(model, schema) for name, model in models}
    owners: dict[str, list[Schema]] = {}
    for part in parts.values():
        for name, value in part["properties"].items():
            if value not in owners.setdefault(name, []):
                owners[name].append(value)
    for name, values in owners.items():
        told = " Or: ".join(dict.fromkeys(value.get("description", "") for value in values))
        schema["properties"][name] = values[0] if len(values) == 1 else {"description": told, "anyOf": values}
    default = schema["properties"][key].get("default")
    for name, part in parts.items():
        chosen: Schema = {"properties": {key: {"const": name}}}
        if name != default:
            chosen["required"] = [key]
        shared = {prop: value for prop, value in part["properties"].items() if len(owners[prop]) > 1}
        then = {"properties": shared, "required": part["required"]}
        schema["allOf"].append({"if": chosen, "then": {word: value for word, value in then.items() if value}})


def _deprecated(text: str) -> Schema:
    return {"description": text, "deprecated": True}


def _objects(value: Any) -> Iterator[Schema]:
    """Yield every JSON object inside a value."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)
