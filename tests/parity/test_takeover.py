"""Runs that DP-GEN began, stopped at any stage, and that `al run` goes on with; and the way back."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from activelearn.data import dataset
from activelearn.workdir import STAGES
from tests import counting, driver
from tests.conftest import SHARED
from tests.parity import runs

STARTS_WITH = {"train": 0, "model_devi": 3, "fp": 6}
"""The last line of record.dpgen while the tasks of a section run."""

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def snapshots(dpgen, tmp_path_factory):
    """Copies of one iteration of DP-GEN, taken right before and after it recorded each of its stages."""
    base = tmp_path_factory.mktemp("dpgen")
    project = runs.project(base / "run")
    process = runs.start(project.root, base / "copies")
    assert process.wait(600) == 0, (project.root / "dpgen.out").read_text()[-3000:]
    return base / "copies"


def labels(root):
    """Return the energies in the data of iteration 0, sorted."""
    systems = dataset.find(root / "iter.000000" / "02.fp" / "data.000")
    return np.sort(np.concatenate([system.array("energy").ravel() for system in systems]))


@pytest.mark.parametrize("when", ["", ".before"], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("stage", range(9))
def test_goes_on_from_any_stage(snapshots, stage, when, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(snapshots / f"0.{stage}{when}", root, symlinks=True)
    log = snapshots.parent / "run" / "calls.log"  # the copies use the programs of the original
    before = len(counting.calls(log))
    driver.kill_when(root, lambda: len(runs.lines(root)) >= 9 and (0, "label") in driver.recorded(root))

    mine = [call for call in counting.calls(log)[before:] if "/iter.000000/" in call["folder"]]
    ran = {section: [call["section"] for call in mine].count(section) for section in ("train", "model_devi", "fp")}
    trained = stage >= 1
    explored = stage >= 4
    labelled = stage >= 7
    assert ran["train"] == (0 if trained else 4)  # dp train and dp freeze, two models
    assert ran["model_devi"] == (0 if explored else 2)
    assert ran["fp"] == (0 if labelled else 4)
    assert runs.lines(root)[:9] == [f"0 {number}" for number in range(9)]
    assert len(labels(root)) == 4
    if labelled:
        np.testing.assert_array_equal(labels(root), labels(snapshots / "0.8"))


def test_what_ran_under_other_settings_runs_again(snapshots, tmp_path):
    """The dynamics is over, but param.json asks for another temperature now."""
    root = tmp_path / "run"
    shutil.copytree(snapshots / "0.4.before", root, symlinks=True)
    param = json.loads((root / "param.json").read_text())
    param["model_devi_jobs"][0]["temps"] = [500]
    (root / "param.json").write_text(json.dumps(param))
    log = snapshots.parent / "run" / "calls.log"
    before = len(counting.calls(log))
    driver.kill_when(root, lambda: (0, "explore") in driver.recorded(root))
    assert [call["section"] for call in counting.calls(log)[before:]].count("model_devi") == 2
    assert "ran under other settings" in (root / "al.log").read_text()
    task = root / "iter.000000" / "01.model_devi" / "task.000.000000"
    assert json.loads((task / "job.json.dpgen").read_text())["temps"] == 300


def test_trajectories_that_dpgen_deleted_are_not_needed(snapshots, tmp_path):
    """DP-GEN deletes them before it records that it has collected the labels."""
    root = tmp_path / "run"
    shutil.copytree(snapshots / "0.7", root, symlinks=True)
    for folder in (root / "iter.000000" / "01.model_devi").glob("task.*/traj"):
        shutil.rmtree(folder)
    driver.kill_when(root, lambda: len(runs.lines(root)) >= 9 and (0, "label") in driver.recorded(root))
    np.testing.assert_array_equal(labels(root), labels(snapshots / "0.8"))


def test_beside_a_living_dpgen_nothing_is_done(snapshots, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(snapshots / "0.5", root, symlinks=True)
    (tmp_path / "dpgen").write_text("import time; time.sleep(60)")
    living = subprocess.Popen([sys.executable, tmp_path / "dpgen", "run", "param.json", "machine.json"], cwd=root)
    try:
        stopped = subprocess.run(driver.COMMAND, cwd=root, capture_output=True, text=True, check=False)
    finally:
        living.kill()
        living.wait()
    assert stopped.returncode == 1
    assert f"DP-GEN runs here: process {living.pid}" in stopped.stderr


def test_a_label_that_did_not_converge_is_not_made_again(snapshots, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(snapshots / "0.7", root, symlinks=True)
    task = root / "iter.000000" / "02.fp" / "task.000.000001"
    fail = {"VASP_STANDIN_FAIL": task.name, "VASP_STANDIN_FAIL_HOW": "unconverged"}
    subprocess.run(
        [sys.executable, runs.STANDIN], cwd=task, env={**os.environ, **fail}, check=False, capture_output=True
    )
    param = json.loads((root / "param.json").read_text())
    (root / "param.json").write_text(json.dumps({**param, "ratio_failed": 0.5}))
    log = snapshots.parent / "run" / "calls.log"
    before = len(counting.calls(log))
    driver.kill_when(root, lambda: len(runs.lines(root)) >= 9 and (0, "label") in driver.recorded(root))
    assert not [call for call in counting.calls(log)[before:] if call["section"] == "fp"]
    assert len(labels(root)) == 3
    status = subprocess.run(
        [*driver.COMMAND[:3], "status"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert "task.000.000001 failed: not converged" in status


@pytest.mark.parametrize(("context", "with_jobs"), [("LocalContext", False), ("LazyLocalContext", True)])
def test_killed_in_each_stage_and_back(dpgen, context, with_jobs, tmp_path):
    """DP-GEN is killed while it trains, explores and labels; `al run` goes on each time; DP-GEN ends the run."""
    project = runs.project(tmp_path / "run", context)
    root, jobs = project.root, project.param["model_devi_jobs"]
    log = root / "calls.log"
    jobs[0].update(nsteps=200)

    def running(section, iteration):
        started = f"{iteration} {STARTS_WITH[section]}"

        def there():
            calls = counting.calls(log) if log.exists() else []
            busy = any(call["section"] == section and call["end"] is None for call in calls)
            return busy and runs.lines(root)[-1:] == [started]

        return there

    for iteration, section in enumerate(("train", "model_devi", "fp")):
        if iteration:
            jobs.append(dict(jobs[0]))
            project.save()
        runs.kill_when(root, running(section, iteration), with_jobs, VASP_SLEEP="2")
        if with_jobs:
            counting.end_killed(log)
        if section != "fp":
            driver.run(root)
            assert runs.lines(root)[-1] == f"{iteration + 1} 2"
    trainer = root / "bin" / "train"
    trainer.rename(root / "bin" / "away")  # the run stops behind the labels
    stopped = subprocess.run(driver.COMMAND, cwd=root, capture_output=True, text=True, check=False)
    assert "command not found" in stopped.stderr
    assert runs.lines(root)[-1] == "2 8"
    (root / "bin" / "away").rename(trainer)
    jobs.append(dict(jobs[0]))
    project.save()
    runs.run(root)
    assert runs.lines(root)[-1] == "4 2"
    driver.run(root)  # and back again: there is nothing left to do
    assert driver.recorded(root)[-5:] == [*((3, stage) for stage in STAGES), (4, "train")]

    found = counting.calls(log)
    assert counting.overlapping(found) == []
    assert counting.succeeded_twice(found) == []
    for iteration in range(4):
        folder = root / f"iter.{iteration:06d}" / "02.fp"
        assert len(list(folder.glob("task.*"))) == 4
        frames = [frame for system in dataset.find(folder / "data.000") for frame in system.array("energy").ravel()]
        assert len(set(frames)) == 4


@pytest.fixture
def sshd(tmp_path):
    """A real sshd on loopback; gives the remote_profile of machine.json."""
    if shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("sshd is not installed (openssh-server)")
    folder = tmp_path / "sshd"
    scripts = SHARED / "scripts"
    text = subprocess.run([scripts / "start-sshd.sh", folder], capture_output=True, text=True, check=True).stdout
    values = dict(re.findall(r"(\w+)=(\S+)", text))
    yield {
        "hostname": "127.0.0.1",
        "port": int(values["SSHD_PORT"]),
        "username": values["SSHD_USER"],
        "key_filename": values["SSHD_KEY"],
        "look_for_keys": False,
    }
    subprocess.run([scripts / "stop-sshd.sh", folder], check=True)


@pytest.mark.shared
def test_jobs_behind_ssh_are_waited_for(dpgen, sshd, tmp_path):
    project = runs.project(tmp_path / "run", "LocalContext")
    root, log = project.root, project.root / "calls.log"
    for section in ("train", "model_devi", "fp"):
        project.machine[section]["machine"] |= {
            "context_type": "SSHContext",
            "remote_root": str(root / "work"),
            "remote_profile": sshd,
        }
    project.save()

    def training():
        return log.exists() and len(counting.calls(log)) == 2 and list((root / "work").glob("*/*.json"))

    runs.kill_when(root, training, with_jobs=False)
    driver.kill_when(root, lambda: (0, "train") in driver.recorded(root))
    found = counting.calls(log)
    assert [call["arguments"].split()[1] for call in found] == ["train", "train", "freeze", "freeze"]
    assert counting.overlapping(found) == []
    assert "waiting for 2 job(s) that DP-GEN left running" in (root / "al.log").read_text()
