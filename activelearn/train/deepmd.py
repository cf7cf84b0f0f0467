"""DeePMD-kit: input.json, `dp train`, `dp freeze`, `dp compress`, and `dp test` on held-out data in the same task."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.data import dataset
from activelearn.dispatch.task import Batch, Failure, Retry, Task, Verdict
from activelearn.errors import Problem
from activelearn.files import write_if_different
from activelearn.log import tail
from activelearn.train import lcurve
from activelearn.train.values import TrainingJob

LEARNED_NOTHING = 0.95
"""A model whose force error on its training data is this share of the forces themselves is no model."""
SMALL_FORCE, NONSENSE_FORCE = 0.05, 1.0
"""Data with forces below the first (eV/A) say nothing about that; then only an error above the second counts."""
NONSENSE_ENERGY = 10.0
"""An energy error above this (eV/atom) on the training data is no model's."""


@dataclass(frozen=True)
class Backend:
    """How `dp` is called for one of its backends, and what it leaves."""

    flag: str
    suffix: str
    checkpoint: str
    """Shell test: is there a checkpoint?"""
    restart: str
    """Shell text: the checkpoint to restart from."""
    leftovers: tuple[str, ...]
    """Checkpoint files."""


BACKENDS = {
    "tensorflow": Backend("", ".pb", "[ -s model.ckpt.index ]", "model.ckpt", ("checkpoint", "model.ckpt*")),
    "pytorch": Backend(
        "--pt ",
        ".pth",
        '[ -s checkpoint ] && [ -s "$(cat checkpoint)" ]',
        '"$(cat checkpoint)"',
        ("checkpoint", "model.ckpt-*.pt"),
    ),
}


class DeepMDSettings(Settings):
    """Keys of param.json that concern training."""

    numb_models: Annotated[int, Field(ge=2)] = 4
    """Number of models of the ensemble; their disagreement is the model deviation."""
    train_backend: Literal["tensorflow", "pytorch"] = "tensorflow"
    """DeePMD-kit backend."""
    default_training_param: dict[str, Any]
    """DeePMD-kit's input.json; data, seeds and file names in it are set here."""
    dp_train_skip_neighbor_stat: bool = False
    """Skip DeePMD-kit's count of neighbours before training."""
    dp_compress: bool = False
    """Compress the frozen models and explore with the compressed ones."""


class DeepMD:
    """An ensemble of DeePMD models."""

    Settings = DeepMDSettings

    def __init__(self, settings: DeepMDSettings, param: Param) -> None:
        self.settings = settings
        self.type_map = list(param.type_map)
        self.backend = BACKENDS[settings.train_backend]

    @property
    def n_models(self) -> int:
        """Number of models of the ensemble, M."""
        return self.settings.numb_models

    def check(self, file: str) -> list[Problem]:
        """Return what is wrong with default_training_param, as far as it can be seen from outside."""
        where = "default_training_param"
        given = self.settings.default_training_param
        problems = [
            Problem(file, f"{where}.{part}", "is missing: DeePMD-kit's input.json needs it")
            for part in ("model", "learning_rate", "loss", "training")
            if not isinstance(given.get(part), dict)
        ]
        if problems:
            return problems
        training = given["training"]
        problems += self._check_parts(file, where)
        if self.n_steps is None:
            problems.append(
                Problem(file, f"{where}.training.numb_steps", "must be the number of training steps (a whole number)")
            )
        names = given["model"].get("type_map")
        if names is not None and names != self.type_map:
            problems.append(
                Problem(
                    file, f"{where}.model.type_map", f"{names} differs from type_map {self.type_map}", "make them equal"
                )
            )
        if isinstance(training.get("systems"), list) and training["systems"]:
            problems.append(
                Problem(
                    file,
                    f"{where}.training.systems",
                    "is ignored: init_data_sys says what is trained on",
                    level="warning",
                )
            )
        return problems

    def _check_parts(self, file: str, where: str) -> Iterator[Problem]:
        """Yield the parts of input.json that are read or changed here and do not have the form they must have."""
        given = self.settings.default_training_param
        model, training = given["model"], given["training"]
        for key in ("fitting_net", "type_embedding"):
            if key in model and not isinstance(model[key], dict):
                yield Problem(file, f"{where}.model.{key}", "must be an object")
        if not isinstance(training.get("training_data", {}), dict):
            yield Problem(file, f"{where}.training.training_data", "must be an object", 'for example {"batch_size": 1}')
        descriptor = model.get("descriptor")
        if not isinstance(descriptor, dict):
            yield Problem(file, f"{where}.model.descriptor", "must be an object")
            return
        parts = descriptor.get("list") if descriptor.get("type") == "hybrid" else [descriptor]
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            yield Problem(file, f"{where}.model.descriptor.list", "must be a list of descriptors")
            return
        for part in parts:
            rcut, sel = part.get("rcut"), part.get("sel", "auto")
            if rcut is not None and (isinstance(rcut, bool) or not isinstance(rcut, int | float) or rcut <= 0):
                yield Problem(file, f"{where}.model.descriptor.rcut", f"must be a positive number (A), not {rcut!r}")
            if not isinstance(sel, str) and not all(type(n) is int for n in (sel if isinstance(sel, list) else [sel])):
                message = f"must be whole numbers, not {sel!r}"
                yield Problem(file, f"{where}.model.descriptor.sel", message, "one per element of type_map")

    @property
    def n_steps(self) -> int | None:
        """Training steps, under either of DeePMD-kit's names."""
        training = self.settings.default_training_param["training"]
        steps = training.get("numb_steps", training.get("stop_batch"))
        return steps if type(steps) is int and steps > 0 else None

    def cutoff(self) -> float | None:
        """Return the largest cutoff radius of the descriptor, A."""
        radii = [part["rcut"] for part in self._descriptors() if isinstance(part.get("rcut"), int | float)]
        return float(max(radii)) if radii else None

    def check_neighbours(self, file: str, neighbours: Mapping[str, int]) -> list[Problem]:
        """Warn where `sel` is smaller than the most neighbours of an element found within the cutoff."""
        needed = [neighbours.get(name, 0) for name in self.type_map]
        problems = []
        for part in self._descriptors():
            sel = part.get("sel")
            if isinstance(sel, list) and len(sel) != len(self.type_map) and str(part.get("type", "")).startswith("se_"):
                message = f"has {len(sel)} numbers for {len(self.type_map)} elements of type_map"
                problems.append(
                    Problem(file, "default_training_param.model.descriptor.sel", message, f"write {needed}")
                )
                continue
            small = (
                any(have < need for have, need in zip(sel, needed, strict=False))
                if isinstance(sel, list)
                else isinstance(sel, int) and sel < sum(needed)
            )
            if small:
                advised = [_advised(n) for n in needed] if isinstance(sel, list) else _advised(sum(needed))
                problems.append(
                    Problem(
                        file,
                        "default_training_param.model.descriptor.sel",
                        f"{sel} is smaller than the neighbours found within {part.get('rcut')} A: {needed}",
                        f'write "sel": {advised}',
                        "warning",
                    )
                )
        return problems

    def _descriptors(self) -> list[dict[str, Any]]:
        model = self.settings.default_training_param.get("model")
        descriptor = model.get("descriptor") if isinstance(model, dict) else None
        if not isinstance(descriptor, dict):
            return []
        parts = descriptor.get("list") if descriptor.get("type") == "hybrid" else [descriptor]
        return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []

    def graph_name(self, number: int) -> str:
        """Return the name by which explorers and users know model `number`."""
        return f"graph.{number:03d}{self.backend.suffix}"

    def model_file(self, number: int) -> str:
        """Return the frozen (and compressed) model of task `number`, relative to the stage's folder."""
        kind = "frozen_model_compressed" if self.settings.dp_compress else "frozen_model"
        return f"{number:03d}/{kind}{self.backend.suffix}"

    def batch(self, job: TrainingJob) -> Batch:
        """Write input.json of each model and return the training tasks."""
        tasks = []
        for number, seeds in enumerate(job.seeds):
            name = f"{number:03d}"
            text = json.dumps(self.input(job, seeds), indent=2)
            write_if_different(job.folder / name / "input.json", text + "\n")
            if job.heldout:
                listing = "".join(f"../{entry.link}\n" for entry in job.heldout)
                write_if_different(job.folder / name / "heldout.txt", listing)
            tasks.append(
                Task(
                    name=name,
                    forward=("input.json", *(("heldout.txt",) if job.heldout else ())),
                    outputs=self._outputs(bool(job.heldout)),
                    result=(Path(self.model_file(number)).name,),
                    restart=self.backend.leftovers,
                    continued=("lcurve.out",),
                )
            )
        reference = dataset.rms_force(entry.system for entry in job.data)
        common = [f"{entry.link}/{file}" for entry in (*job.data, *job.heldout) for file in entry.system.files()]
        return Batch(
            folder=job.folder,
            tasks=tuple(tasks),
            script=lambda command, _: self.script(command, bool(job.heldout)),
            verify=lambda task, code: self.verify(job.folder / task.name, code, reference),
            log="train.log",
            common=tuple(common),
            what="model",
        )

    def input(self, job: TrainingJob, seeds: Sequence[int]) -> dict[str, Any]:
        """Return DeePMD-kit's input.json of one model."""
        given = copy.deepcopy(self.settings.default_training_param)
        model, training = given["model"], given["training"]
        model["type_map"] = self.type_map
        descriptor = model["descriptor"]
        for part in descriptor["list"] if descriptor.get("type") == "hybrid" else [descriptor]:
            part["seed"] = seeds[0]
        for place, key in ((1, "fitting_net"), (2, "type_embedding")):
            if isinstance(model.get(key), dict):
                model[key]["seed"] = seeds[place]
        training["seed"] = seeds[3]
        training.pop("systems", None)
        asked = training.get("training_data", {}).get("batch_size")
        mixed = isinstance(asked, str) and asked.startswith("mixed:")
        training["training_data"] = {
            **training.get("training_data", {}),
            "systems": [f"../{entry.link}" for entry in job.data],
            "batch_size": asked if mixed else [entry.batch_size for entry in job.data],
        }
        training.pop("batch_size", None)
        training["disp_file"] = "lcurve.out"
        training["save_ckpt"] = "model.ckpt"
        return given

    def script(self, command: str, heldout: bool) -> str:
        """Return the shell text of one training task: train (or restart), freeze, compress, test."""
        dp = f"{command} {self.backend.flag}".rstrip()
        skip = " --skip-neighbor-stat" if self.settings.dp_train_skip_neighbor_stat else ""
        frozen = f"frozen_model{self.backend.suffix}"
        compressed = f"frozen_model_compressed{self.backend.suffix}"
        lines = [
            f"if {self.backend.checkpoint}; then",
            f"  {dp} train input.json --restart {self.backend.restart}{skip} || exit",
            "else",
            "  rm -f lcurve.out",
            f"  {dp} train input.json{skip} || exit",
            "fi",
            f"{dp} freeze -o {frozen} || exit",
        ]
        if self.settings.dp_compress:
            # without neighbour statistics in the model, dp makes them from the data of input.json
            data = " -t input.json" if skip else ""
            lines.append(f"{dp} compress -i {frozen} -o {compressed}{data} || exit")
        if heldout:
            final = compressed if self.settings.dp_compress else frozen
            lines.append(f"{dp} test -m {shlex.quote(final)} -f heldout.txt -n 0 > test.log 2>&1")
        return "\n".join(lines)

    def _outputs(self, heldout: bool) -> tuple[str, ...]:
        suffix = self.backend.suffix
        compressed = (f"frozen_model_compressed{suffix}",) if self.settings.dp_compress else ()
        return (f"frozen_model{suffix}", *compressed, "lcurve.out", *(("test.log",) if heldout else ()))

    def verify(self, folder: Path, code: int | None, reference: float) -> Verdict:
        """Accept a model only if its training ended, with finite errors that are smaller than those of no model.

        Parameters
        ----------
        folder
            Folder of the task.
        code
            Exit status of the task.
        reference
            Root mean square force of the training data, eV/A.
        """
        detail = tail(folder / "train.log")
        row = lcurve.last_row(folder / "lcurve.out")
        bad = lcurve.not_finite(row)
        if bad or (code not in (0, None) and "NaN detected" in detail):
            return Failure(f"training diverged: {', '.join(bad) or 'the loss'} is not finite", Retry.NEVER, detail)
        force = lcurve.late_error(folder / "lcurve.out", "rmse_f")
        energy = lcurve.late_error(folder / "lcurve.out", "rmse_e")
        limit = LEARNED_NOTHING * reference if reference > SMALL_FORCE else NONSENSE_FORCE
        if (force is not None and force >= limit) or (energy is not None and energy > NONSENSE_ENERGY):
            message = (
                f"training diverged: on the training data, whose forces are {reference:.3g} eV/A, the errors are"
                f" {force or 0:.3g} eV/A and {energy or 0:.3g} eV/atom (lower learning_rate.start_lr, or train longer)"
            )
            return Failure(message, Retry.NEVER, tail(folder / "lcurve.out", 6))
        if code != 0:
            tested = folder / "test.log"
            return Failure(
                f"dp ended with exit status {code}", Retry.LATER, tail(tested) if tested.exists() else detail
            )
        missing = [name for name in self._outputs(False) if not _filled(folder / name)]
        if missing:
            return Failure(f"{', '.join(missing)} was not written", Retry.LATER, detail)
        heldout = lcurve.heldout_errors(folder / "test.log")
        bad = lcurve.not_finite(heldout)
        if bad:
            message = f"training diverged: the error on held-out data is not finite ({', '.join(bad)})"
            return Failure(message, Retry.NEVER, tail(folder / "test.log"))
        return {
            "steps": int(row.get("step", 0)),
            "rmse_e": row.get("rmse_e_trn", row.get("rmse_e")),
            "rmse_f": row.get("rmse_f_trn", row.get("rmse_f")),
            "heldout": heldout,
        }


def _filled(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _advised(neighbours: int) -> int:
    """Return a size with room for a denser frame, as a multiple of 4."""
    return -(-int(neighbours * 1.1 + 1) // 4) * 4
