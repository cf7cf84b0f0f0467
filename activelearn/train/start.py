"""What a training starts from, if not from nothing: checkpoints, frozen models, pretrained models."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from activelearn.errors import EngineError, Problem, about_files
from activelearn.files import link, relative_link
from activelearn.train.settings import DeepMDSettings
from activelearn.train.values import TrainingJob
from activelearn.workdir import Workdir

FROZEN = ("training_init_frozen_model", "training_finetune_model")
FLAGS = {"training_init_frozen_model": "--init-frz-model", "training_finetune_model": "--finetune"}


@dataclass(frozen=True)
class Start:
    """How the trainings of one iteration start."""

    flag: str = ""
    """Argument of `dp train`, empty to start from nothing."""
    files: tuple[Mapping[str, Path], ...] = ()
    """For each model: files it gets below `old/`, by name."""

    def lay(self, folder: Path, number: int, root: Path) -> tuple[str, ...]:
        """Link the files for one model's task; return their names relative to its folder."""
        if not self.files:
            return ()
        for name, target in self.files[number].items():
            absolute = Path(os.path.abspath(target))  # noqa: PTH100  keep symbolic links
            inside = absolute.is_relative_to(os.path.abspath(root))  # noqa: PTH100
            (relative_link if inside else link)(folder / "old" / name, absolute)
        return tuple(f"old/{name}" for name in self.files[number])


def of(job: TrainingJob, settings: DeepMDSettings, root: Path) -> Start:
    """Return how the trainings of one iteration start.

    Raises
    ------
    EngineError
        A checkpoint is not there (any more).
    """
    if settings.starts_from_checkpoints(job.iteration):
        if job.previous is not None:
            folders = [job.previous / f"{number:03d}" for number in range(settings.numb_models)]
        else:
            folders = iteration_0(settings, root)
        found = [settings.backend.find(folder) for folder in folders]
        missing = [folder for folder, files in zip(folders, found, strict=True) if not files]
        if missing or len(found) != settings.numb_models:
            where = missing[0] if missing else root
            names = ", ".join(settings.backend.checkpoint)
            raise EngineError(
                f"{where} has no checkpoint ({names}) to start from\n"
                "    -> training_init_model (or training_reuse_iter) asks for it: put it back, or take the key out"
            )
        return Start(" --init-model old/model.ckpt", tuple(found))
    for key in FROZEN if job.iteration == 0 else ():
        files = getattr(settings, key)
        if files:
            paths = [root / os.path.expanduser(file) for file in files]  # noqa: PTH111
            name = f"init{_suffix(files)}"
            return Start(f" {FLAGS[key]} old/{name}", tuple({name: path} for path in paths))
    return Start()


def iteration_0(settings: DeepMDSettings, root: Path) -> list[Path]:
    """Return the folders iteration 0 starts from: what each pattern matches, sorted, in the order of the patterns."""
    found: list[Path] = []
    for pattern in settings.training_iter0_model_path or ():
        base = os.path.expanduser(pattern)  # noqa: PTH111
        found += [root / name for name in sorted(glob.glob(base, root_dir=root))]  # noqa: PTH207  absolute ones too
    return found


def _suffix(files: list[str]) -> str:
    return Path(files[0]).suffix.lower()


def problems(settings: DeepMDSettings, root: Path, file: str) -> list[Problem]:
    """Return what is wrong with the models iteration 0 is to start from."""
    found: list[Problem] = []
    asked = [key for key in FROZEN if getattr(settings, key) is not None]
    checkpoints = settings.starts_from_checkpoints(0)
    if len(asked) + checkpoints > 1:
        names = ", ".join([*(["training_init_model"] if checkpoints else []), *asked])
        found.append(Problem(file, asked[-1], f"{names} exclude each other", "keep one of them"))
    if Workdir(root).iteration(0).explore.is_dir():
        return found  # it has been trained: they may be gone
    path = "training_iter0_model_path"
    if checkpoints:
        found += about_files(_checkpoint_problems(settings, root, file, path))
    elif settings.training_iter0_model_path is not None:
        hint = "write training_init_model: true as well, or remove it"
        found.append(Problem(file, path, "has no effect without training_init_model", hint, "warning"))
    for key in asked:
        found += _frozen_problems(key, getattr(settings, key), settings, root, file)
    return found


def _checkpoint_problems(settings: DeepMDSettings, root: Path, file: str, path: str) -> Iterator[Problem]:
    folders = iteration_0(settings, root)
    if len(folders) != settings.numb_models:
        message = f"{len(folders)} folders found for {settings.numb_models} models"
        yield Problem(file, path, message, "name one folder with a checkpoint per model")
    for folder in folders:
        if not settings.backend.find(folder):
            names = ", ".join(settings.backend.checkpoint)
            yield Problem(file, path, f"{folder} has no checkpoint ({names})", "check train_backend")


def _frozen_problems(key: str, files: list[str], settings: DeepMDSettings, root: Path, file: str) -> list[Problem]:
    found = []
    if len(files) != settings.numb_models:
        found.append(Problem(file, key, f"{len(files)} files for {settings.numb_models} models", "name one per model"))
    suffixes = {Path(name).suffix.lower() for name in files}
    if len(suffixes) != 1 or "" in suffixes:
        found.append(Problem(file, key, "the files must have one suffix in common, such as .pb or .pth"))
    for place, name in enumerate(files):
        if not (root / os.path.expanduser(name)).exists():  # noqa: PTH111
            found += about_files([Problem(file, f"{key}[{place}]", f"{name} does not exist", "check the path")])
    return found
