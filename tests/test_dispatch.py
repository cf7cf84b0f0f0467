"""Batches of shell tasks through dpdispatcher: run once, follow, retry, refuse, forget nothing."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from activelearn.config.machine import Section
from activelearn.dispatch import batch as batches
from activelearn.dispatch.batch import Site
from activelearn.dispatch.ledger import Digests, Ledger
from activelearn.dispatch.task import Batch, Failure, Retry, Task
from activelearn.errors import DispatchError


@pytest.fixture(params=["LazyLocalContext", "LocalContext"])
def site(request, tmp_path):
    machine = {"batch_type": "Shell", "context_type": request.param, "remote_root": "./work", "retry_count": 2}
    section = Section(
        "cat", machine, {"number_node": 1, "cpu_per_node": 1, "gpu_per_node": 0, "queue_name": "", "group_size": 1}
    )
    return Site(tmp_path, section, None, Digests())


def with_resources(site, **changes):
    return replace(site, section=replace(site.section, resources={**site.section.resources, **changes}))


def make(tmp_path, n=3, script="echo ran >> runs; echo $(cat input) > out", grouped=False):
    folder = tmp_path / "iter.000000" / "02.fp"
    tasks = []
    for number in range(n):
        task = Task(
            f"task.{number}",
            forward=("input",),
            outputs=("out", "runs"),
            result=("out",),
            continued=("runs",),
            restart=("runs",),
        )
        (folder / task.name).mkdir(parents=True, exist_ok=True)
        if not (folder / task.name / "input").exists():
            (folder / task.name / "input").write_text(f"{number}\n")
        tasks.append(task)

    def verify(task, code):
        file = folder / task.name / "out"
        if not file.exists():
            return Failure(f"no output ({code})", Retry.LATER, "")
        return {"value": file.read_text().strip()}

    def render(command, some):
        if not grouped:
            return script
        return "\n".join(f"( cd {task.name}; {script} )" for task in some)

    return Batch(folder, tuple(tasks), render, verify, "log", grouped=grouped)


def runs(batch):
    found = {}
    for task in batch.tasks:
        file = batch.folder / task.name / "runs"
        found[task.name] = len(file.read_text().split()) if file.exists() else 0
    return found


def values(outcome):
    return {name: facts["value"] for name, facts in outcome.done.items()}


@pytest.mark.parametrize("grouped", [False, True])
def test_done_tasks_are_not_run_again(site, tmp_path, grouped):
    batch = make(tmp_path, grouped=grouped)
    site = with_resources(site, group_size=2, para_deg=1)
    for _ in range(2):
        outcome = batches.run(batch, site)
        assert values(outcome) == {"task.0": "0", "task.1": "1", "task.2": "2"}
        assert not outcome.failed
    assert runs(batch) == {"task.0": 1, "task.1": 1, "task.2": 1}
    assert not (batch.folder / "batch.json").exists()
    leftovers = [
        file.name for file in batch.folder.rglob("*") if "_tag_finished" in file.name or "_job_id" in file.name
    ]
    assert leftovers == []


def test_changed_inputs_and_deleted_outputs_run_again(site, tmp_path):
    batch = make(tmp_path)
    batches.run(batch, site)
    (batch.folder / "task.1" / "input").write_text("new\n")
    (batch.folder / "task.2" / "out").unlink()
    assert values(batches.run(batch, site)) == {"task.0": "0", "task.1": "new", "task.2": "2"}
    assert runs(batch)["task.0"] == 1


def test_machine_changes_do_not_run_anything_again_but_forwarded_files_do(site, tmp_path):
    table = tmp_path / "table.txt"
    table.write_text("1")
    site = replace(site, section=replace(site.section, forward=("table.txt",)))
    batch = make(tmp_path, n=1, script="echo ran >> runs; cat table.txt > out")
    assert values(batches.run(batch, site)) == {"task.0": "1"}
    other = with_resources(replace(site, section=replace(site.section, command="dog")), group_size=7, queue_name="x")
    batches.run(batch, other)
    assert runs(batch) == {"task.0": 1}
    table.write_text("22")
    assert values(batches.run(batch, other)) == {"task.0": "22"}


def test_old_output_is_no_result_of_a_job_that_never_started(site, tmp_path):
    batch = make(tmp_path, n=1)
    batches.run(batch, site)
    (batch.folder / "task.0" / "input").write_text("new\n")
    broken = with_resources(site, prepend_script=["exit 1"])
    outcome = batches.run(batch, broken)
    assert list(outcome.failed) == ["task.0"]
    assert "killed from outside" in outcome.failed["task.0"].cause
    assert values(batches.run(batch, site)) == {"task.0": "new"}


def test_killed_tasks_are_retried_and_failed_ones_wait_for_the_user(site, tmp_path):
    batch = make(
        tmp_path, n=2, script='echo ran >> runs; if [ "$(cat input)" = 0 ]; then kill -KILL $BASHPID; else exit 3; fi'
    )
    outcome = batches.run(batch, site)
    assert outcome.failed["task.0"].cause == "killed from outside by SIGKILL"
    assert outcome.failed["task.1"].cause == "no output (3)"
    assert runs(batch) == {"task.0": 3, "task.1": 1}  # retry_count 2
    batches.run(batch, site)
    assert runs(batch)["task.1"] == 2
    assert Ledger.open(batch.folder).entries["task.1"].code == 3


def test_incurable_failures_are_not_repeated(site, tmp_path):
    batch = replace(make(tmp_path, n=1), verify=lambda task, code: Failure("nonsense", Retry.NEVER))
    for _ in range(2):
        assert batches.run(batch, site).failed["task.0"].cause == "nonsense"
    assert runs(batch) == {"task.0": 1}


def test_salvage_keeps_what_a_task_killed_too_often_wrote(site, tmp_path):
    batch = make(tmp_path, n=1, script="echo half > out; kill -KILL $BASHPID")
    batch = replace(
        batch,
        verify=lambda task, code: Failure("killed", Retry.NOW),
        salvage=lambda task, code: {"value": (batch.folder / task.name / "out").read_text().strip()},
    )
    assert values(batches.run(batch, site)) == {"task.0": "half"}


def test_program_crash_is_not_taken_for_a_kill(site, tmp_path):
    batch = make(tmp_path, n=1, script="echo ran >> runs; kill -SEGV $BASHPID")
    assert batches.run(batch, site).failed["task.0"].cause == "no output (139)"
    assert runs(batch) == {"task.0": 1}


def test_refused_submission_is_mended_in_machine_json(site, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    batch = make(tmp_path)
    slurm = replace(site, section=replace(site.section, machine={**site.section.machine, "batch_type": "Slurm"}))
    with pytest.raises(DispatchError, match="invalid partition"):
        batches.run(batch, slurm)
    assert values(batches.run(batch, site)) == {"task.0": "0", "task.1": "1", "task.2": "2"}


def test_secrets_reach_the_job_and_no_file_of_ours(site, tmp_path):
    site = with_resources(site, envs={"MY_TOKEN": "s3cr3t"})
    batch = make(tmp_path, n=1, script='echo "$MY_TOKEN" | tr a-z A-Z > out')
    seen = []
    original = batches.write_atomic

    def spy(path: Path, text: str) -> None:
        seen.append(text)
        original(path, text)

    batches.write_atomic = spy
    try:
        assert values(batches.run(batch, site)) == {"task.0": "S3CR3T"}
    finally:
        batches.write_atomic = original
    assert seen
    assert all("s3cr3t" not in text for text in seen)
    for file in batch.folder.rglob("*"):
        assert not file.is_file() or "s3cr3t" not in file.read_text(), file


def test_what_is_in_flight_is_followed_with_the_old_machine(site, tmp_path):
    batch = make(tmp_path, n=1)
    digests = {"task.0": batches.digest(batch.tasks[0], batch, site)}
    request = batches._request(batch, batch.tasks, digests, 1, site)
    (batch.folder / "batch.json").write_text(json.dumps(request))
    gone = replace(site, section=replace(site.section, machine={**site.section.machine, "batch_type": "PBS"}))
    batches.follow(batch.folder, gone)
    assert values(batches.run(batch, gone)) == {"task.0": "0"}
    assert runs(batch) == {"task.0": 1}


def test_unreachable_machine_does_not_forget_what_is_in_flight(site, tmp_path):
    """Jobs may be out there: only a request that is new can be dropped."""
    batch = make(tmp_path, n=1)
    where = {"batch_type": "Shell", "context_type": "SSHContext", "remote_root": "/tmp/none"}
    where["remote_profile"] = {"hostname": "127.0.0.1", "port": 1, "username": "nobody"}
    away = replace(site, section=replace(site.section, machine=where))
    with pytest.raises(DispatchError, match=r"mend machine\.json"):
        batches.run(batch, away)
    assert not (batch.folder / "batch.json").exists()
    digests = {"task.0": batches.digest(batch.tasks[0], batch, site)}
    request = batches._request(batch, batch.tasks, digests, 1, away)
    (batch.folder / "batch.json").write_text(json.dumps(request))
    with pytest.raises(DispatchError, match="follows the jobs that are out"):
        batches.follow(batch.folder, away)
    assert (batch.folder / "batch.json").exists()
