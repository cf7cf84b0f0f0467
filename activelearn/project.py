"""A project: both input files decoded, and the engines they name."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activelearn import plugins
from activelearn.config import decode, dpgen, legacy, legacy_machine
from activelearn.config import machine as machine_file
from activelearn.config.base import keys
from activelearn.config.clusters import Clusters
from activelearn.config.machine import MachineFile
from activelearn.config.param import Param
from activelearn.dispatch.ledger import Digests
from activelearn.errors import ConfigError, Problem
from activelearn.explore import EXPLORERS
from activelearn.explore import GROUP as EXPLORER_GROUP
from activelearn.explore.values import Explorer
from activelearn.label import GROUP as LABELER_GROUP
from activelearn.label import LABELERS
from activelearn.label.values import Labeler
from activelearn.train import GROUP as TRAINER_GROUP
from activelearn.train import TRAINERS
from activelearn.train.values import Trainer
from activelearn.workdir import STAGES, Workdir

Modernise = Callable[[dict[str, Any], str], tuple[dict[str, Any], list[Problem]]]
"""(what a file holds, its name) -> the same in today's spelling, warnings."""


@dataclass(frozen=True)
class Project:
    """All a run needs to know."""

    workdir: Workdir
    param_file: str
    machine_file: str
    param: Param
    machine: MachineFile
    trainer: Trainer
    explorer: Explorer
    labeler: Labeler
    settings: dict[str, Any]
    """The settings of each stage, for its fingerprint."""
    digests: Digests = field(default_factory=Digests)

    def rng(self, iteration: int, stage: str, name: str, attempt: int = 0) -> np.random.Generator:
        """Return the generator that belongs to one model, task or system: nothing else draws from it."""
        key = [self.param.activelearn.seed, iteration, STAGES.index(stage), zlib.crc32(name.encode()), attempt]
        return np.random.default_rng(key)

    def fingerprint(self, stage: str) -> str:
        """Return the fingerprint of the part of param.json a stage uses."""
        return hashlib.sha256(json.dumps(self.settings[stage], sort_keys=True).encode()).hexdigest()[:16]


def load(param_path: Path, machine_path: Path, root: Path) -> tuple[Project, list[Problem]]:
    """Decode both files.

    Returns
    -------
    tuple
        The project, and warnings.

    Raises
    ------
    ConfigError
        There are errors; it has all problems of both files.
    """
    problems: list[Problem] = []
    raw = _read(param_path, legacy.param, problems)
    raw_machine = _read(machine_path, legacy_machine.machine, problems)
    machine = None
    if raw_machine is not None:
        machine, found = machine_file.decode(raw_machine, str(machine_path))
        problems += found
    if raw is None:
        raise ConfigError(problems)
    engines = {
        "model_devi_engine": _engine(
            raw, "model_devi_engine", "lammps", EXPLORERS, EXPLORER_GROUP, param_path, problems
        ),
        "fp_style": _engine(raw, "fp_style", None, LABELERS, LABELER_GROUP, param_path, problems),
    }
    if any(raw.get(key) in dpgen.REFUSED_ENGINES[key] for key in engines):
        raise ConfigError(problems)  # the rest of the file is about an engine that is not here
    trainer = plugins.load(TRAINERS, TRAINER_GROUP, "dp")
    explorer, labeler = engines["model_devi_engine"], engines["fp_style"]
    models = [Param, *(engine.Settings for engine in (trainer, explorer, labeler) if engine is not None)]
    settings, found = decode.settings(raw, models, str(param_path))
    if labeler is None or explorer is None:  # its keys are unknown only because the engine is
        known = set().union(*(keys(model) for model in models))
        found = [problem for problem in found if problem.path not in raw or problem.path in known]
    problems += found
    param = settings.get(Param)
    if isinstance(param, Param):
        problems += param.problems(str(param_path))
    complete = len(settings) == len(models) and explorer is not None and labeler is not None
    if machine is None or not complete or not isinstance(param, Param):
        raise ConfigError(problems)
    train, explore, label = (settings[engine.Settings] for engine in (trainer, explorer, labeler))
    project = Project(
        workdir=Workdir(root),
        param_file=str(param_path),
        machine_file=str(machine_path),
        param=param,
        machine=machine,
        trainer=trainer(train, param, root),
        explorer=explorer(explore, param, root),
        labeler=labeler(label, param, root),
        settings={
            "train": [train.model_dump(), param.use_ele_temp],
            "explore": [
                explore.model_dump(),
                param.use_ele_temp,
                [job.model_dump() for job in param.model_devi_jobs],
            ],
            "select": param.model_dump(exclude={"model_devi_jobs", "init_data_sys", "init_data_prefix"}),
            "label": [label.model_dump(), {key: getattr(param, key) for key in keys(Clusters)}],
        },
    )
    return project, problems


def _read(path: Path, modernise: Modernise, problems: list[Problem]) -> dict[str, Any] | None:
    """Read a file and rewrite its old spellings."""
    try:
        raw, found = modernise(decode.read(path), str(path))
    except ConfigError as error:
        problems.extend(error.problems)
        return None
    problems.extend(found)
    return raw


def _engine(
    raw: dict[str, Any], key: str, default: str | None, registry: Any, group: str, file: Path, problems: list[Problem]
) -> Any:
    """Return the engine class a key names, None (and a problem) if there is none."""
    name = raw.get(key, default)
    if name is None:
        return None  # reported as missing with the other keys
    try:
        return plugins.load(registry, group, str(name))
    except KeyError:
        known = plugins.names(registry, group)
    if name in dpgen.REFUSED_ENGINES[key]:
        message, hint = f"{name!r} of DP-GEN is not supported", f"activelearn has {', '.join(known)}"
    else:
        message = f"there is no {name!r}"
        hint = plugins.suggest(str(name), known) or f"activelearn has {', '.join(known)}"
    problems.append(Problem(str(file), key, message, hint))
    return None
