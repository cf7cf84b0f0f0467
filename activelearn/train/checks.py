"""What can be said about the training settings before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from activelearn.data.labelled import LabelledSystem
from activelearn.errors import Problem, about_files
from activelearn.train import backends, sections, start
from activelearn.train.settings import DeepMDSettings

WHERE = "default_training_param"
NEEDS = (3, 2)
"""DeePMD-kit that has the exportable backend and pt2 models."""


def problems(
    settings: DeepMDSettings, type_map: Sequence[str], explorer: str, version: str, root: Path, file: str
) -> Iterator[Problem]:
    """Yield what is wrong.

    Parameters
    ----------
    settings
        The training settings.
    type_map
        Elements of param.json.
    explorer
        What the models are used with (model_devi_engine).
    version
        deepmd_version of machine.json, empty if it says nothing.
    root
        The run's folder.
    file
        Name of param.json in messages.
    """
    given = settings.default_training_param
    if isinstance(given, list) and len(given) != settings.numb_models:
        message = f"{len(given)} entries for {settings.numb_models} models"
        yield Problem(file, WHERE, message, "write one per model (numb_models), or a single object for all")
        return
    several = isinstance(given, list)
    broken = False
    for number, member in enumerate(given if isinstance(given, list) else [given]):
        for problem in _member(member, f"{WHERE}[{number}]" if several else WHERE, type_map, file):
            broken = broken or problem.level == "error"
            yield problem
    yield from _backend(settings, explorer, version, file)
    yield from start.problems(settings, root, file)
    yield from _files(settings, root, file)
    if not broken:
        yield from _family(settings, explorer, file)
        yield from _committee(settings, type_map, file)
        yield from _activation(settings, file)
        yield from _weights(settings, file)


def _member(given: Mapping[str, Any], where: str, type_map: Sequence[str], file: str) -> Iterator[Problem]:
    """Yield the parts of one input.json that are missing or do not have the form they must have."""
    missing = [part for part in ("model", "learning_rate", "loss", "training") if not isinstance(given.get(part), dict)]
    for part in missing:
        yield Problem(file, f"{where}.{part}", "is missing: DeePMD-kit's input.json needs it")
    if missing:
        return
    model, training = given["model"], given["training"]
    yield from _model(model, f"{where}.model", type_map, file)
    if not isinstance(training.get("training_data", {}), dict):
        yield Problem(file, f"{where}.training.training_data", "must be an object", 'for example {"batch_size": 1}')
    if sections.n_steps(given) is None:
        yield Problem(file, f"{where}.training.numb_steps", "must be the number of training steps (a whole number)")
    if isinstance(training.get("systems"), list) and training["systems"]:
        message = "is ignored: init_data_sys says what is trained on"
        yield Problem(file, f"{where}.training.systems", message, level="warning")


def _model(model: Mapping[str, Any], where: str, type_map: Sequence[str], file: str) -> Iterator[Problem]:
    for key in ("fitting_net", "type_embedding"):
        if not isinstance(model.get(key, {}), dict | str):
            yield Problem(file, f"{where}.{key}", "must be an object")
    names = model.get("type_map")
    if isinstance(names, str):
        names = None  # a name in shared_dict
    if names is not None and not (isinstance(names, list) and set(type_map) <= {str(name) for name in names}):
        message = f"{names} lacks elements of type_map {list(type_map)}"
        yield Problem(file, f"{where}.type_map", message, "make them equal, or leave it out")
    if isinstance(model.get("model_dict"), dict) or str(model.get("type", "standard")) != "standard":
        return
    descriptor = model.get("descriptor")
    if not isinstance(descriptor, dict):
        yield Problem(file, f"{where}.descriptor", "must be an object")
        return
    parts = descriptor.get("list") if descriptor.get("type") == "hybrid" else [descriptor]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        yield Problem(file, f"{where}.descriptor.list", "must be a list of descriptors")
        return
    for part in parts:
        rcut, sel = part.get("rcut"), part.get("sel", "auto")
        if rcut is not None and (isinstance(rcut, bool) or not isinstance(rcut, int | float) or rcut <= 0):
            yield Problem(file, f"{where}.descriptor.rcut", f"must be a positive number (A), not {rcut!r}")
        if not isinstance(sel, str) and not all(type(n) is int for n in (sel if isinstance(sel, list) else [sel])):
            message = f"must be whole numbers, not {sel!r}"
            yield Problem(file, f"{where}.descriptor.sel", message, "one per element of type_map")


def _backend(settings: DeepMDSettings, explorer: str, version: str, file: str) -> Iterator[Problem]:
    backend, kind = settings.backend, settings.format
    if kind not in backend.formats:
        hint = f"{backend.name} has {', '.join(backend.formats)}"
        yield Problem(file, "model_format", f"{backend.name} exports no {kind} models", hint)
        return
    if kind == "pte" and explorer == "lammps":
        yield Problem(file, "model_format", "LAMMPS cannot read pte models", 'write "pt2"')
    newer = backend.name == "pytorch-exportable" or kind == backends.PT2
    if newer and version and _number(version) < NEEDS:
        key = "model_format" if kind == backends.PT2 and settings.model_format else "train_backend"
        message = f"needs DeePMD-kit 3.2, but machine.json says deepmd_version {version}"
        yield Problem(file, key, message, 'write "deepmd_version": "3.2" there, if it is')
    if backend.name == "pytorch-exportable" and settings.training_init_frozen_model is not None:
        message = "pytorch-exportable cannot start from a frozen model"
        yield Problem(file, "training_init_frozen_model", message, "use training_finetune_model or a checkpoint")
    if backend.name == "pytorch" and kind == backends.PT2 and settings.dp_compress:
        yield Problem(file, "dp_compress", "the pytorch backend cannot compress pt2 models", "write false")


def _files(settings: DeepMDSettings, root: Path, file: str) -> Iterator[Problem]:
    table = settings.srtab_file_path
    if table is not None and not (root / os.path.expanduser(table)).is_file():  # noqa: PTH111
        yield from about_files([Problem(file, "srtab_file_path", f"{table} does not exist", "check the path")])


def _weights(settings: DeepMDSettings, file: str) -> Iterator[Problem]:
    """Yield a word about the loss of weighted forces, which DeePMD-kit 3.2.0 cannot train with in PyTorch."""
    losses = [member["loss"] for member in settings.members]
    if settings.train_backend == "pytorch" and any(
        loss.get("start_pref_pf") and loss.get("limit_pref_pf") for loss in losses
    ):
        message = "weighs forces by atom_pref: DeePMD-kit 3.2.0 stops there in PyTorch (one weight instead of three)"
        hint = "train with TensorFlow, or set start_pref_pf and limit_pref_pf to 0"
        yield Problem(file, f"{WHERE}.loss.start_pref_pf", message, hint, "warning")


def _family(settings: DeepMDSettings, explorer: str, file: str) -> Iterator[Problem]:
    """Yield what does not go together with DPA4 and DPA4C models."""
    families = {sections.family(member) for member in settings.members}
    if "both" in families or {"dpa4", "dpa4c"} <= families:
        message = "dpa4 and dpa4c need different backends"
        yield Problem(file, WHERE, message, "keep one kind of them")
        return
    for name, wanted in (("dpa4", "pytorch"), ("dpa4c", "pytorch-exportable")):
        if name not in families:
            continue
        if settings.train_backend != wanted:
            yield Problem(file, "train_backend", f"{name} is trained with {wanted}", f'write "{wanted}"')
        elif explorer == "lammps" and settings.format != backends.PT2:
            yield Problem(file, "model_format", f"LAMMPS reads {name} models as pt2 only", 'write "pt2"')
    if settings.train_backend == "pytorch" and settings.format == backends.PT2 and None in families:
        yield Problem(file, "model_format", "pytorch exports only dpa4 models as pt2", 'write "pth"')
    for member in settings.members:
        if sections.family(member) == "dpa4c":
            keys = ("use_compile", "enable_tf32")
            wrong = [f"{at}.{key}" for at, model in sections.models(member) for key in keys if key in model]
            hint = "dpa4c has training.enable_compile and training.enable_tf32"
        elif sections.family(member) == "dpa4":
            wrong = [f"training.{key}" for key in ("enable_compile", "enable_tf32") if key in member["training"]]
            hint = "dpa4 has model.use_compile and model.enable_tf32"
        else:
            continue
        if wrong:
            yield Problem(file, f"{WHERE}.{wrong[0]}", "is at the wrong place", hint)
            return


def _committee(settings: DeepMDSettings, type_map: Sequence[str], file: str) -> Iterator[Problem]:
    """Yield what keeps different models from being compared with each other."""
    members = settings.members
    if settings.format == backends.PT2 and len({sections.family(member) is None for member in members}) > 1:
        yield Problem(file, WHERE, "pt2 models of different kinds cannot be used together", "use one architecture")
    first = _signature(members[0], type_map)
    for number, member in enumerate(members[1:], start=1):
        mine = _signature(member, type_map)
        for name, value in first.items():
            if mine[name] != value:
                message = f"{name} is {mine[name]}, but {value} in the first model: their forces cannot be compared"
                yield Problem(file, f"{WHERE}[{number}]", message, "make them equal")


def _signature(given: Mapping[str, Any], type_map: Sequence[str]) -> dict[str, Any]:
    """Return what all models of an ensemble must have in common."""
    nets = list(sections.parts(given, "fitting_net"))
    radii = [radius for part in sections.descriptors(given) if (radius := sections.cutoff(part)) is not None]
    return {
        "type_map": [list(model.get("type_map") or type_map) for _, model in sections.models(given)],
        "the cutoff": max(radii, default=None),
        "the type of fitting_net": sorted({str(net.get("type", "ener")) for net in nets} or {"ener"}),
        "numb_fparam": sorted({int(net.get("numb_fparam") or 0) for net in nets} or {0}),
        "numb_aparam": sorted({int(net.get("numb_aparam") or 0) for net in nets} or {0}),
    }


def _activation(settings: DeepMDSettings, file: str) -> Iterator[Problem]:
    functions, key = settings.model_devi_activation_func, "model_devi_activation_func"
    if functions is not None and len(functions) != settings.numb_models:
        message = f"{len(functions)} entries for {settings.numb_models} models"
        yield Problem(file, key, message, "write one per model")


def neighbours(
    settings: DeepMDSettings, type_map: Sequence[str], found: Mapping[str, int], file: str
) -> Iterator[Problem]:
    """Compare `sel` with the most neighbours of each element found within the cutoff."""
    given = settings.default_training_param
    seen: set[str] = set()
    for number, member in enumerate(given if isinstance(given, list) else [given]):
        where = f"{WHERE}[{number}]" if isinstance(given, list) else WHERE
        names = member["model"].get("type_map") or type_map
        for part in sections.descriptors(member):
            problem = _sel(part, [found.get(name, 0) for name in names], len(names), where, file)
            if problem and problem.message not in seen:
                seen.add(problem.message)
                yield problem


def data(
    settings: DeepMDSettings, type_map: Sequence[str], systems: Iterable[LabelledSystem], file: str
) -> Iterator[Problem]:
    """Yield systems whose types a model would take for other elements: they name none, and its type_map is its own."""
    maps = [member["model"].get("type_map") or type_map for member in settings.members]
    if all(list(names[: len(type_map)]) == list(type_map) for names in maps):
        return
    for system in systems:
        if system.type_names() is None:
            message = f"{system} has no type_map.raw, and the models have a type_map of their own"
            yield Problem(file, "init_data_sys", message, f"write type_map.raw: {' '.join(type_map)}")


def _sel(part: Mapping[str, Any], needed: list[int], n_types: int, where: str, file: str) -> Problem | None:
    sel, path = part.get("sel"), f"{where}.model.descriptor.sel"
    if isinstance(sel, list) and len(sel) != n_types and str(part.get("type", "")).startswith("se_"):
        message = f"has {len(sel)} numbers for {n_types} elements of type_map"
        return Problem(file, path, message, f"write {needed}")
    if isinstance(sel, list):
        small = any(have < need for have, need in zip(sel, needed, strict=False))
    else:
        small = type(sel) is int and sel < sum(needed)
    if not small:
        return None
    advised = [_advised(n) for n in needed] if isinstance(sel, list) else _advised(sum(needed))
    message = f"{sel} is smaller than the neighbours found within {part.get('rcut')} A: {needed}"
    return Problem(file, path, message, f'write "sel": {advised}', "warning")


def _advised(count: int) -> int:
    """Return a size with room for a denser frame, as a multiple of 4."""
    return -(-int(count * 1.1 + 1) // 4) * 4


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])
