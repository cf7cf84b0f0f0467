"""Trainings that start from old models, with real programs and data of every form."""

import json
import os
import signal
import time
from pathlib import Path

import dpdata
import h5py
import pytest

from tests import counting, driver
from tests.conftest import machine
from tests.systems import copper, labelled

pytestmark = pytest.mark.engines


def weights(folder):
    import torch

    return torch.load(folder / "model.ckpt.pt", map_location="cpu", weights_only=True)["model"]


def distance(one, other):
    """Return the largest difference between the weights of two models."""
    return max(float((one[k] - other[k]).abs().max()) for k in one if hasattr(one[k], "abs") and one[k].numel())


def test_second_training_goes_on_from_the_first(project):
    """Its killed task restarts from its own checkpoint, not from the old model again."""
    root, log = project.root, project.root / "calls.log"
    frames = dpdata.LabeledSystem(str(root / "init" / "cu"), fmt="deepmd/npy")
    with h5py.File(root / "init" / "cu.hdf5", "w") as file:
        for name in ("one", "more/two"):
            frames.to("deepmd/hdf5", file.create_group(name))
    labelled(copper(77)).to("deepmd/npy/mixed", str(root / "init" / "mixed"))
    project.param.update(
        init_data_sys=["cu.hdf5", "mixed"],
        sys_configs=[["structures/00/POSCAR"]],
        training_reuse_iter=1,
        training_reuse_start_lr=1e-6,
        training_reuse_numb_steps=300,
    )
    project.param["model_devi_jobs"][0].update(nsteps=10)
    given = project.param["default_training_param"]
    given["learning_rate"].update(stop_lr=1e-8)
    given["training"].update(save_freq=50)
    project.machine = machine("LocalContext", **counting.wrap(root / "bin", log))
    project.save()
    kill_once(driver.start(root), root, log)

    first, second = (root / f"iter.00000{n}" / "00.train" for n in (0, 1))
    asked = {}
    for call in counting.calls(log):
        if call["section"] == "train" and "train input.json" in call["arguments"]:
            name = "/".join([Path(call["folder"]).parts[-1], "init" if "--init-model" in call["arguments"] else "-"])
            asked.setdefault(name, []).append("--restart" in call["arguments"])
    assert asked == {"000/-": [False, True], "001/-": [False], "000/init": [False], "001/init": [False]}

    models = [[weights(stage / f"00{n}") for n in (0, 1)] for stage in (first, second)]
    assert distance(models[0][0], models[0][1]) > 0.1
    for n in (0, 1):
        assert distance(models[0][n], models[1][n]) < 0.01  # nothing but many small steps away
        assert distance(models[0][n], models[1][n]) > 0
    given = json.loads((second / "000" / "input.json").read_text())["training"]
    assert given["numb_steps"] == 300
    data = given["training_data"]
    assert data["systems"] == [
        "../data.init/cu.hdf5#/more/two",
        "../data.init/cu.hdf5#/one",
        "../data.init/mixed",
        "../data.iters/iter.000000/02.fp/data.000/Cu8",
    ]
    old = 9 / (9 + 10 * 3)
    assert data["auto_prob"] == f"prob_sys_size; 0:3:{old:f}; 3:4:{1 - old:f}"
    steps = [int(row.split()[0]) for row in (second / "000" / "lcurve.out").read_text().splitlines() if row[0] != "#"]
    assert (steps.count(1), max(steps)) == (1, 300)


def kill_once(process, root, log):
    """Kill `dp` of the second training when it has a checkpoint."""
    while process.poll() is None:
        started = [c for c in counting.calls(log) if "--init-model" in c["arguments"]] if log.exists() else []
        mine = [c for c in started if c["folder"].endswith("/000")]
        if mine and any(Path(mine[0]["folder"]).glob("model.ckpt-100.pt")):
            os.killpg(os.getpgid(dp_of(Path(mine[0]["folder"]))), signal.SIGKILL)
            break
        time.sleep(0.02)
    assert process.wait(timeout=300) == 0, (root / "driver.out").read_text()


def dp_of(folder):
    """Return the process that trains in a folder."""
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cwd").resolve() == folder and b"--init-model" in (entry / "cmdline").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"nothing trains in {folder}")
