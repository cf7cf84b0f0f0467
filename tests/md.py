"""Exploration with models that were never trained: all that MD and its files need, in seconds."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from activelearn import project as projects
from activelearn import stages
from activelearn.dispatch import batch
from activelearn.dispatch.batch import Site

_MODELS = """
import json, sys
import torch
from deepmd.pt.model.model import get_model

for number in range(2):
    torch.manual_seed(number)
    descriptor = {"type": "se_e2_a", "rcut": 4.0, "rcut_smth": 1.0, "sel": [48], "neuron": [4, 8], "axis_neuron": 4}
    given = {"type_map": ["Cu"], "descriptor": {**descriptor, "seed": number}, "fitting_net": {"neuron": [8, 8]}}
    model = get_model(json.loads(json.dumps(given)))
    model.eval()
    torch.jit.save(torch.jit.script(model), f"graph.{number:03d}.pth")
"""


def models(folder: Path) -> Path:
    """Write two models of copper with random weights."""
    subprocess.run([sys.executable, "-c", _MODELS], cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


def explore(project, ensemble: Path):
    """Run the explore stage of iteration 0 of a project with given models; return it and what the stage returned."""
    project.save()
    loaded = projects.load(project.root / "param.json", project.root / "machine.json", project.root)[0]
    names = tuple(file.name for file in sorted(ensemble.glob("graph.*")))
    place = loaded.workdir.iteration(0)
    place.train.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(ensemble / name, place.train / name)
    site = Site(project.root, loaded.machine.sections["explore"], None, loaded.digests)
    steps = stages.explore(loaded, 0, names)
    wanted = next(steps)
    try:
        while True:
            wanted = steps.send(batch.run(wanted, site))
    except StopIteration as stop:
        return loaded, stop.value


def runs(project):
    """Return what the stage says of its trajectories."""
    return json.loads((project.root / "iter.000000" / "01.model_devi" / "runs.json").read_text())
