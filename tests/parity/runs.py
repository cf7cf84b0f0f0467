"""Runs of DP-GEN itself: a project both engines can run, and drivers that are watched, copied or killed."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import counting
from tests.conftest import Project, machine
from tests.parity.conftest import PYTHON
from tests.test_vasp_standin import potcar

STANDIN = Path(__file__).parents[1] / "standins" / "vasp_std.py"

RUN = """
import shutil, sys
from dpdispatcher.submission import Submission
Submission.run_submission.__kwdefaults__["check_interval"] = 0.3  # 30 s otherwise
from dpgen.generator import run
copies = sys.argv[1:]
record = run.record_iter
def watched(file, iteration, stage):
    if copies:
        shutil.copytree(".", f"{copies[0]}/{iteration}.{stage}.before", symlinks=True)
    record(file, iteration, stage)
    if copies:
        shutil.copytree(".", f"{copies[0]}/{iteration}.{stage}", symlinks=True)
run.record_iter = watched
run.run_iter("param.json", "machine.json")
"""


def project(root, context="LazyLocalContext"):
    """Copper, labelled by the stand-in for VASP; every start of dp, lmp and vasp is written to calls.log."""
    made = Project(root)
    (root / "potcars").mkdir()
    (root / "potcars" / "Cu").write_text(potcar("Cu"))
    (root / "INCAR").write_text("PREC = A\nENCUT = 400\nISMEAR = 0\nKSPACING = 0.5\nKGAMMA = .TRUE.\n")
    del made.param["user_fp_params"]
    made.param.update(
        fp_style="vasp", fp_pp_path="potcars", fp_pp_files=["Cu"], fp_incar="INCAR", model_devi_clean_traj=False
    )
    made.param["default_training_param"]["training"].update(numb_steps=200, disp_freq=50, save_freq=50)
    vasp = root / "vasp.sh"
    vasp.write_text(f"#!/bin/bash\nsleep ${{VASP_SLEEP:-0}}\nexec {shlex.quote(sys.executable)} {STANDIN}\n")
    vasp.chmod(0o755)
    made.machine = machine(context, **counting.wrap(root / "bin", root / "calls.log", fp=str(vasp)))
    made.machine["fp"]["resources"]["group_size"] = 1
    if context == "LocalContext":
        (root / "work").mkdir()
    made.save()
    return made


def start(root, copies=None, **environment):
    """Start DP-GEN in a session of its own; the run is copied to `copies` before and after each stage is recorded."""
    with (root / "dpgen.out").open("ab") as out:
        return subprocess.Popen(
            [PYTHON, "-c", RUN, *([str(copies)] if copies else [])],
            cwd=root,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
        )


def run(root, copies=None):
    """Run DP-GEN to its end."""
    assert start(root, copies).wait(600) == 0, (root / "dpgen.out").read_text()[-3000:]


def kill_when(root, condition, with_jobs, **environment):
    """Start DP-GEN and kill it as soon as `condition()` holds, alone or with all its jobs."""
    process = start(root, **environment)
    deadline = time.monotonic() + 300
    try:
        while not condition():
            assert process.poll() is None, (root / "dpgen.out").read_text()[-3000:]
            assert time.monotonic() < deadline, "the moment to kill never came"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        for number in working_below(root) if with_jobs else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def working_below(root):
    """Return the processes whose folder is below the run's: the jobs and what they started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            folder = (process / "cwd").readlink()
            if folder != root and folder.is_relative_to(root):
                found.append(int(process.name))
    return found


def lines(root):
    """Return the lines of record.dpgen."""
    file = root / "record.dpgen"
    return file.read_text().splitlines() if file.exists() else []
