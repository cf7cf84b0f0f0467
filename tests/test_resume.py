"""The driver killed at every kind of moment: the same command goes on, nothing finished runs twice or doubled."""

import json
import os
import signal
import time

import numpy as np
import pytest

from activelearn.data import dataset
from tests import counting, driver
from tests.conftest import machine

pytestmark = pytest.mark.engines


@pytest.mark.parametrize("context", ["LazyLocalContext", "LocalContext"])
def test_killed_everywhere(project, context):
    log = project.root / "calls.log"
    project.machine = machine(context, **counting.wrap(project.root / "bin", log))
    project.param["model_devi_jobs"][0].update(nsteps=200, temps=[300, 600])
    project.save()
    root = project.root
    iteration = root / "iter.000000"

    def running(section):
        return lambda: log.exists() and any(c["section"] == section and c["end"] is None for c in counting.calls(log))

    def training():
        return running("train")() and (iteration / "00.train" / "batch.json").exists()

    driver.kill_in_submit_loop(root, 1, context)
    driver.kill_when(root, training)
    driver.kill_when(root, lambda: (0, "train") in driver.recorded(root))  # between two stages
    if not (iteration / "01.model_devi" / "batch.json").exists():
        driver.kill_in_submit_loop(root, 2, context)
    driver.kill_when(root, running("model_devi"))
    driver.kill_after_download(root, context)
    driver.kill_when(root, lambda: (0, "explore") in driver.recorded(root))
    driver.kill_when(root, running("fp"))
    driver.kill_after_clean(root, context)
    assert (0, "label") not in driver.recorded(root)
    driver.run(root)

    stages = [(0, "train"), (0, "explore"), (0, "select"), (0, "label"), (1, "train")]
    assert driver.recorded(root) == stages
    found = counting.calls(log)
    assert counting.overlapping(found) == []
    assert counting.succeeded_twice(found) == []
    assert sum(c["section"] == "model_devi" and c["code"] == 0 for c in found) == 4
    assert sum(c["section"] == "train" and c["arguments"].startswith("--pt freeze") for c in found) == 4
    assert sum(c["section"] == "fp" and c["code"] == 0 for c in found) == 1
    (new,) = dataset.find(iteration / "02.fp" / "data.000")
    assert new.nframes == 4
    assert (root / "record.dpgen").read_text().split("\n")[:-1] == [f"0 {n}" for n in range(9)] + ["1 0", "1 1", "1 2"]
    assert not list(root.rglob("batch.json"))
    if context == "LocalContext":
        assert list((root / "work").iterdir()) == []


def test_finished_run_does_nothing_and_more_jobs_continue_it(project):
    log = project.root / "calls.log"
    project.machine = machine(**counting.wrap(project.root / "bin", log))
    project.save()
    driver.run(project.root)
    calls = len(counting.calls(log))
    driver.run(project.root)
    assert len(counting.calls(log)) == calls
    project.param["model_devi_jobs"].append({**project.param["model_devi_jobs"][0], "temps": [500]})
    project.save()
    driver.run(project.root)
    assert driver.recorded(project.root)[-1] == (2, "train")
    trained = json.loads((project.root / "iter.000002" / "00.train" / "000" / "input.json").read_text())
    assert len(trained["training"]["training_data"]["systems"]) == 3


def kill_program(process, root, name, condition):
    """Wait for a moment, then kill the program of a section (not the driver, not the job)."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, (root / "driver.out").read_text()
        time.sleep(0.02)
    os.kill(int((root / f"{name}.pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("context", ["LazyLocalContext", "LocalContext"])
def test_killed_programs_continue_where_they_were(project, context):
    """dp and lmp are killed: a training goes on from its checkpoint, a trajectory loses and repeats no row."""
    root = project.root
    project.param["model_devi_jobs"] = [
        {"sys_idx": [0], "temps": [300], "trj_freq": 5, "nsteps": 3000, "ensemble": "nvt"}
    ]
    project.param["sys_configs"] = [["structures/00/POSCAR"]]
    project.param["model_devi_clean_traj"] = False
    project.param["default_training_param"]["training"].update(numb_steps=400, save_freq=50)
    project.machine = machine(context)
    for section, program in (("train", "dp"), ("model_devi", "lmp")):
        script = root / f"{program}.sh"
        note = (
            f"echo $$ > {root}/{program}.pid"
            if program == "lmp"
            else f'[ "${{PWD##*/}}" = 000 ] && echo $$ > {root}/dp.pid'
        )
        script.write_text(f'#!/bin/bash\n{note}\nexec {program} "$@"\n')
        script.chmod(0o755)
        project.machine[section]["command"] = str(script)
    project.save()

    def there(pattern):
        return lambda: any(root.glob(f"**/{pattern}"))

    process = driver.start(root)
    kill_program(process, root, "dp", there("00[0]/model.ckpt-100.pt"))
    kill_program(process, root, "lmp", there("task.000.000000/dpgen.restart.[1-9]*00"))
    assert process.wait(timeout=300) == 0, (root / "driver.out").read_text()
    said = (root / "driver.out").read_text()
    assert said.count("killed from outside by SIGKILL") == 2

    model = root / "iter.000000" / "00.train" / "000"
    steps = [
        int(line.split()[0]) for line in (model / "lcurve.out").read_text().splitlines() if not line.startswith("#")
    ]
    assert steps.count(1) == 1  # never from the start again
    assert max(steps) == 400
    assert (model / "checkpoint").read_text().strip() == "model.ckpt-400.pt"

    task = root / "iter.000000" / "01.model_devi" / "task.000.000000"
    rows = [line.split() for line in (task / "model_devi.out").read_text().splitlines() if not line.startswith("#")]
    assert [int(row[0]) for row in rows] == list(range(0, 3001, 5))
    assert all(len(row) == 7 for row in rows)
    with (task / "all.lammpstrj").open() as dump:
        dumped = [int(next(dump)) for line in dump if line.startswith("ITEM: TIMESTEP")]
    assert dumped == list(range(0, 3001, 5))
    assert json.loads((root / "iter.000000" / "01.model_devi" / "runs.json").read_text())[0]["n_frames"] == 601
    labels = dataset.find(root / "iter.000000" / "02.fp" / "data.000")
    assert np.isfinite(labels[0].array("force")).all()
