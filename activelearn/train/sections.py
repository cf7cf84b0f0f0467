"""The parts of DeePMD-kit's input.json that are read or changed here, also where several models share them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PARTS = ("descriptor", "fitting_net", "type_embedding")
DPA4 = ("dpa4", "sezm")


def models(given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the model, and each branch of a multi-task one, with its path."""
    model = given.get("model")
    if not isinstance(model, dict):
        return
    yield "model", model
    branches = model.get("model_dict")
    for name, branch in branches.items() if isinstance(branches, dict) else ():
        if isinstance(branch, dict):
            yield f"model.model_dict.{name}", branch


def parts(given: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield each descriptor (or fitting_net, type_embedding) once; branches may refer to one in model.shared_dict."""
    shared = given["model"].get("shared_dict") if isinstance(given.get("model"), dict) else None
    seen: set[str] = set()
    for _, model in models(given):
        part = model.get(name)
        if isinstance(part, str):
            key = part.split(":", 1)[0]
            part = shared.get(key) if isinstance(shared, dict) and key not in seen else None
            seen.add(key)
        if isinstance(part, dict):
            yield part


def descriptors(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each descriptor; of a hybrid one its components."""
    for descriptor in parts(given, "descriptor"):
        if descriptor.get("type") == "hybrid":
            listed = descriptor.get("list")
            yield from (part for part in listed if isinstance(part, dict)) if isinstance(listed, list) else ()
        else:
            yield descriptor


def cutoff(descriptor: Mapping[str, Any]) -> float | None:
    """Return the cutoff radius of a descriptor, A."""
    inner = {"dpa2": ("repinit", "rcut"), "dpa3": ("repflow", "e_rcut")}.get(str(descriptor.get("type")).lower())
    if inner:
        block = descriptor.get(inner[0])
        radius = block.get(inner[1]) if isinstance(block, dict) else None
    else:
        radius = descriptor.get("rcut")
    return float(radius) if isinstance(radius, int | float) and not isinstance(radius, bool) else None


def family(given: Mapping[str, Any]) -> str | None:
    """Return `dpa4`, `dpa4c`, `both`, or None: models that DeePMD-kit trains and exports in a way of their own."""
    found = set()
    for _, model in models(given):
        descriptor = model.get("descriptor")
        kinds = [model.get("type"), descriptor.get("type") if isinstance(descriptor, dict) else None]
        words = [kind.lower() if isinstance(kind, str) else "" for kind in kinds]
        if words[1] == "dpa4c":
            found.add("dpa4c")
        if any(word in DPA4 for word in words):
            found.add("dpa4")
    return "both" if len(found) == 2 else next(iter(found), None)


def n_steps(given: Mapping[str, Any]) -> int | None:
    """Return the training steps, under either of DeePMD-kit's names."""
    training = given.get("training")
    steps = training.get("numb_steps", training.get("stop_batch")) if isinstance(training, dict) else None
    return steps if type(steps) is int and steps > 0 else None
