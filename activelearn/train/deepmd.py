"""DeePMD-kit: input.json, `dp train`, `dp freeze`, `dp compress`, and `dp test` on held-out data in the same task."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from activelearn.config.param import Param
from activelearn.data import dataset
from activelearn.data.labelled import LabelledSystem
from activelearn.dispatch.task import Batch, Task, Verdict
from activelearn.errors import Problem
from activelearn.files import relative_link, write_if_different
from activelearn.train import backends, checks, inputs, one_h5, sections, start, verdict
from activelearn.train.settings import DeepMDSettings
from activelearn.train.values import DataEntry, TrainingJob

EXPORT = "export"
"""Folder of the tasks that export models where they are used."""
EXPORT_LOG = "model_export.log"


class DeepMD:
    """An ensemble of DeePMD models."""

    Settings = DeepMDSettings

    def __init__(self, settings: DeepMDSettings, param: Param, root: Path = Path()) -> None:
        self.settings = settings
        self.param = param
        self.root = root
        self.backend = settings.backend

    @property
    def n_models(self) -> int:
        """Number of models of the ensemble, M."""
        return self.settings.numb_models

    def check(self, file: str, version: str = "") -> list[Problem]:
        """Return what is wrong with the settings, as far as it can be seen from outside."""
        explorer = self.param.model_devi_engine
        return list(checks.problems(self.settings, self.param.type_map, explorer, version, self.root, file))

    def cutoff(self) -> float | None:
        """Return the largest cutoff radius of the descriptors, A."""
        parts = [part for member in self.settings.members for part in sections.descriptors(member)]
        return max((radius for part in parts if (radius := sections.cutoff(part)) is not None), default=None)

    def check_neighbours(self, file: str, neighbours: Mapping[str, int]) -> list[Problem]:
        """Warn where `sel` is smaller than the most neighbours of an element found within the cutoff."""
        return list(checks.neighbours(self.settings, self.param.type_map, neighbours, file))

    def check_data(self, file: str, systems: Iterable[LabelledSystem]) -> list[Problem]:
        """Return data whose types the models would take for other elements."""
        return list(checks.data(self.settings, self.param.type_map, systems, file))

    def graph_name(self, number: int) -> str:
        """Return the name by which explorers and users know model `number`."""
        return f"graph.{number:03d}{self.settings.suffix}"

    def model_file(self, number: int) -> str:
        """Return the exported (and compressed) model of task `number`, relative to the stage's folder."""
        return f"{number:03d}/{self._model}"

    def links(self, folder: Path) -> dict[str, str]:
        """Return the links that make trained models known, target by name, relative to the stage's folder."""
        found = {}
        for number in range(self.n_models):
            task = f"{number:03d}"
            found[self.graph_name(number)] = self.model_file(number)
            if self.settings.exported_apart:
                found |= {f"{task}/{name}": f"{EXPORT}/{task}/{name}" for name in self._models}
            # checkpoints under the names that the next iteration, or DP-GEN, starts from
            files = self.backend.find(folder / task).items()
            found |= {f"{task}/{name}": f"{task}/{path.name}" for name, path in files if path.name != name}
        return found

    @property
    def _models(self) -> tuple[str, ...]:
        """The files `dp freeze` and `dp compress` write."""
        kinds = ("frozen_model", *(("frozen_model_compressed",) if self.settings.dp_compress else ()))
        return tuple(f"{kind}{self.settings.suffix}" for kind in kinds)

    @property
    def _model(self) -> str:
        """The file that is explored with."""
        return self._models[-1]

    def batch(self, job: TrainingJob) -> Batch:
        """Write input.json of each model and return the training tasks.

        Raises
        ------
        EngineError
            There is nothing where the models are to start from.
        """
        beginning = start.of(job, self.settings, self.root)
        common = self._common(job)
        table = self.settings.srtab_file_path
        tasks = []
        for number, seeds in enumerate(job.seeds):
            name = f"{number:03d}"
            folder = job.folder / name
            functions = self.settings.model_devi_activation_func
            function = functions[number] if functions else None
            text = json.dumps(inputs.render(self.settings.members[number], common, seeds, function), indent=2)
            write_if_different(folder / "input.json", text + "\n")
            forward = ["input.json", *beginning.lay(folder, number, self.root)]
            if job.heldout:
                write_if_different(folder / "heldout.txt", "".join(f"../{entry.link}\n" for entry in job.heldout))
                forward.append("heldout.txt")
            if table:
                source = self.root / os.path.expanduser(table)  # noqa: PTH111
                shutil.copyfile(source, folder / source.name)
                forward.append(source.name)
            tasks.append(self._task(name, tuple(forward), bool(job.heldout)))
        reference = dataset.rms_force(entry.system for entry in job.data)
        shared = [one_h5.write(job.folder, job.data)] if self.settings.one_h5 else _files(job.data)
        return Batch(
            folder=job.folder,
            tasks=tuple(tasks),
            script=lambda command, _: self.script(command, bool(job.heldout), beginning.flag),
            verify=lambda task, code: self.verify(job.folder / task.name, code, reference),
            log="train.log",
            common=tuple(dict.fromkeys([*shared, *_files(job.heldout)])),
            what="model",
        )

    def verify(self, folder: Path, code: int | None, reference: float) -> Verdict:
        """Look at what a training left in `folder`: the model's errors, or why it is no model."""
        return verdict.trained(folder, code, reference, self._outputs)

    def export(self, job: TrainingJob) -> Batch | None:
        """Return the tasks that export the trained models where they are used; None if training did it."""
        if not self.settings.exported_apart:
            return None
        folder = job.folder / EXPORT
        (checkpoint,) = self.backend.checkpoint
        tasks = []
        for number in range(self.n_models):
            name = f"{number:03d}"
            relative_link(folder / name / checkpoint, self.backend.find(job.folder / name)[checkpoint])
            tasks.append(Task(name, forward=(checkpoint,), outputs=self._models, result=(self._model,)))
        return Batch(
            folder=folder,
            tasks=tuple(tasks),
            script=lambda command, _: "\n".join(self._export(f"{command} {self.backend.flag}".rstrip())),
            verify=lambda task, code: verdict.exported(folder / task.name, code, self._models, EXPORT_LOG),
            log=EXPORT_LOG,
            what="model export",
            section="export",
        )

    def _common(self, job: TrainingJob) -> inputs.Common:
        settings = self.settings
        reuse, shares = None, None
        if settings.reuses(job.iteration):
            reuse = inputs.Reuse(
                settings.training_reuse_numb_steps,
                settings.training_reuse_start_lr,
                settings.training_reuse_start_pref_e,
                settings.training_reuse_start_pref_f,
            )
            if job.iteration > 0:
                share = settings.old_share(job.n_old_frames, job.n_new_frames)
                shares = inputs.probabilities(job.n_old, len(job.data), share)
        if settings.one_h5:
            systems = [f"../{one_h5.NAME}#{one_h5.inside(entry)}" for entry in job.data]
        else:
            systems = [f"../{entry.link}" for entry in job.data]
        return inputs.Common(
            systems=tuple(systems),
            batch_sizes=tuple(entry.batch_size for entry in job.data),
            type_map=tuple(self.param.type_map),
            legacy=job.deepmd_version.split(".")[0] == "1",
            ele_temp=self.param.use_ele_temp,
            reuse=reuse,
            probabilities=shares,
        )

    def script(self, command: str, heldout: bool, beginning: str = "") -> str:
        """Return the shell text of one training task: train (or restart), freeze, compress, test."""
        dp = f"{command} {self.backend.flag}".rstrip()
        skip = " --skip-neighbor-stat" if self.settings.dp_train_skip_neighbor_stat else ""
        lines = [
            f"last=$({self.backend.last})",
            f'if [ -n "$last" ] && [ -s "$last{"" if self.backend.shown else self.backend.ends[0]}" ]; then',
            f'  {dp} train input.json --restart "$last"{skip} || exit',
            "else",
            "  rm -f lcurve.out",
            f"  {dp} train input.json{skip}{beginning} || exit",
            "fi",
        ]
        if not self.settings.exported_apart:
            lines += self._export(dp)
        if heldout:
            tested = '"$(cat checkpoint)"' if self.settings.exported_apart else shlex.quote(self._model)
            lines.append(f"{dp} test -m {tested} -f heldout.txt -n 0 > test.log 2>&1")
        return "\n".join(lines)

    def _export(self, dp: str) -> list[str]:
        lines = [f"{backends.freeze(self.backend, self.settings.suffix, dp, self.settings.members)} || exit"]
        if self.settings.dp_compress:
            # without neighbour statistics in the model, dp makes them from the data of input.json
            skip = self.settings.dp_train_skip_neighbor_stat and not self.settings.exported_apart
            frozen, compressed = self._models
            lines.append(f"{dp} compress -i {frozen} -o {compressed}{' -t input.json' if skip else ''} || exit")
        return lines

    @property
    def _outputs(self) -> tuple[str, ...]:
        """What a training task must have written."""
        return ("lcurve.out",) if self.settings.exported_apart else (*self._models, "lcurve.out")

    def _task(self, name: str, forward: tuple[str, ...], heldout: bool) -> Task:
        return Task(
            name=name,
            forward=forward,
            outputs=(*self._outputs, *(("test.log",) if heldout else ())),
            result=("checkpoint",) if self.settings.exported_apart else (self._model,),
            restart=self.backend.leftovers,
            continued=("lcurve.out",),
        )


def _files(entries: tuple[DataEntry, ...]) -> list[str]:
    """Return the files of labelled systems, relative to the stage's folder."""
    found = []
    for entry in entries:
        if entry.system.group:
            found.append(entry.link.partition("#")[0])
        else:
            found += [f"{entry.link}/{file}" for file in entry.system.files()]
    return found
