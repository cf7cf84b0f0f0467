"""Start `al run` as a user does, and kill it at a chosen moment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "activelearn", "run", "param.json", "machine.json"]


def start(root: Path, *, command=None) -> subprocess.Popen:
    """Start a driver in a session of its own."""
    with (root / "driver.out").open("ab") as out:
        return subprocess.Popen(
            command or COMMAND, cwd=root, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def run(root: Path, timeout=600) -> str:
    """Run to the end and return what was printed."""
    result = subprocess.run(COMMAND, cwd=root, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def kill_when(root: Path, condition, timeout=300) -> None:
    """Start a driver and kill it, and nothing else, with SIGKILL as soon as `condition()` holds."""
    process = start(root)
    deadline = time.monotonic() + timeout
    try:
        while not condition():
            assert process.poll() is None, (root / "driver.out").read_text()
            assert time.monotonic() < deadline, "the moment to kill never came\n" + (root / "driver.out").read_text()
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def recorded(root: Path) -> list:
    """Return the stages in the record, as (iteration, stage)."""
    file = root / "record.jsonl"
    if not file.exists():
        return []
    events = []
    for line in file.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # being written
    return [(event["iteration"], event["stage"]) for event in events if event["event"] == "stage"]


KILL_AFTER = """
import os, signal, sys
import dpdispatcher
from dpdispatcher.contexts.{module} import {context}
from dpdispatcher.submission import Job
from activelearn.cli import main

original = {owner}.{method}
calls = []

def call_and_die(*arguments, **options):
    result = original(*arguments, **options)
    calls.append(arguments)
    if len(calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

{owner}.{method} = call_and_die
sys.argv = ["al", "run", "param.json", "machine.json"]
main()
"""


def kill_after(root: Path, owner: str, method: str, number: int, context: str) -> None:
    """Run a driver that is killed right after its `number`-th call of a method of dpdispatcher."""
    module = {"LocalContext": "local_context", "LazyLocalContext": "lazy_local_context"}[context]
    code = KILL_AFTER.format(owner=owner, method=method, number=number, context=context, module=module)
    process = start(root, command=[sys.executable, "-c", code])
    assert process.wait(timeout=300) == -signal.SIGKILL, (root / "driver.out").read_text()


def kill_in_submit_loop(root: Path, number: int, context: str) -> None:
    """Kill the driver when it has submitted a job and written that down nowhere."""
    kill_after(root, "Job", "submit_job", number, context)


def kill_after_download(root: Path, context: str) -> None:
    """Kill the driver when the outputs are here and nothing says so."""
    kill_after(root, context, "download", 1, context)


def kill_after_clean(root: Path, context: str) -> None:
    """Kill the driver when dpdispatcher's folder is gone."""
    kill_after(root, context, "clean", 1, context)
