"""Finished explorations as they lie in a run's folder, and the selection stage on top of them."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from activelearn import project, stages
from activelearn.explore.values import Run
from tests.conftest import copper_param, machine

HEADER = "#       step         max_devi_v         min_devi_v         avg_devi_v" + "         max_devi_f" * 3 + "\n"


def row(step, force, virial, atomic=()):
    """One row of model_devi.out."""
    return f"{step:12d}" + "".join(f"{x:19.6e}" for x in (virial, 0, 0, force, 0, 0, *atomic)) + "\n"


@dataclass(frozen=True)
class Frame:
    """One frame of a dump; the cell is lower triangular, A."""

    cell: np.ndarray
    positions: np.ndarray
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def dump(self, step):
        (ax, _, _), (xy, by, _), (xz, yz, cz) = self.cell.tolist()
        x, y, z = self.origin.tolist()
        xs = (0.0, xy, xz, xy + xz)
        bounds = [
            (x + min(xs), x + ax + max(xs), xy),
            (y + min(0.0, yz), y + by + max(0.0, yz), xz),
            (z, z + cz, yz),
        ]
        lines = ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", str(len(self.positions))]
        lines += ["ITEM: BOX BOUNDS xy xz yz pp pp pp", *(" ".join(map(repr, bound)) for bound in bounds)]
        lines.append("ITEM: ATOMS id type x y z fx fy fz")
        for number, position in enumerate((self.positions + self.origin).tolist(), 1):
            lines.append(f"{number} 1 {' '.join(map(repr, position))} 0 0 0")
        return "\n".join(lines) + "\n"


def write_task(folder, deviations, frames=None, merged=False):
    """Write the files of one task: the text of model_devi.out, and frames by step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_devi.out").write_text(deviations)
    (folder / "job.json").write_text("{}")
    frames = frames or {}
    if merged:
        (folder / "all.lammpstrj").write_text("".join(frame.dump(step) for step, frame in sorted(frames.items())))
        return
    (folder / "traj").mkdir(exist_ok=True)
    for step, frame in frames.items():
        (folder / "traj" / f"{step}.lammpstrj").write_text(frame.dump(step))


@dataclass
class Selected:
    """What the selection stage left behind."""

    project: project.Project
    result: dict
    picked: list
    lines: list[str]
    warnings: list[str]
    folder: Path

    def audit(self, kind, system):
        """The frames of one kind, None if there is no file."""
        file = self.folder / f"{kind}.shuffled.{system:03d}.out"
        return [tuple(line.split()) for line in file.read_text().splitlines()] if file.exists() else None


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


def settings(**changes):
    """A param.json without DP-GEN's unknowns; selection as DP-GEN does it unless told otherwise."""
    return {**copper_param(), "_activelearn": {"health": False}, **changes}


def select(root, param):
    """Run the selection stage of iteration 0 over all task folders that are there."""
    (root / "param.json").write_text(json.dumps(param))
    (root / "machine.json").write_text(json.dumps(machine()))
    loaded, _ = project.load(root / "param.json", root / "machine.json", root)
    place = loaded.workdir.iteration(0)
    runs = [
        Run(f"iter.000000/01.model_devi/{task.name}", int(task.name.split(".")[1]), {}, 0)
        for task in sorted(place.explore.glob("task.*"))
    ]
    place.explore.mkdir(parents=True, exist_ok=True)
    place.runs.write_text(json.dumps([asdict(run) for run in runs]))
    handler, logger = _Lines(), logging.getLogger("activelearn")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    stage = stages.select(loaded, 0)
    try:
        next(stage)
    except StopIteration as stop:
        result = stop.value
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    return Selected(
        loaded,
        result,
        json.loads(place.picked.read_text()),
        [record.getMessage() for record in handler.records if record.levelno == logging.INFO],
        [record.getMessage() for record in handler.records if record.levelno > logging.INFO],
        place.label,
    )
