"""The journal, its mirror, the ledger, the wrapper and the lock, as files."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from activelearn import lock
from activelearn.dispatch import wrapper
from activelearn.dispatch.ledger import Digests, Ledger
from activelearn.dispatch.task import Failure, Retry
from activelearn.errors import ActiveLearnError, DispatchError, RecordError
from activelearn.record import Done, Position, Record
from activelearn.report import status
from activelearn.workdir import STAGES, Workdir


def filled(tmp_path, stages=((0, "train"), (0, "explore"), (0, "select"), (0, "label"), (1, "train"))):
    record = Record.open(Workdir(tmp_path))
    for iteration, stage in stages:
        record.start(iteration, stage)
        record.append(Done(iteration, stage, {"n": iteration}, 1.5))
    return record


def test_record_survives_a_new_start(tmp_path):
    filled(tmp_path)
    again = Record.open(Workdir(tmp_path))
    assert again.get(0, "label") == Done(0, "label", {"n": 0}, 1.5)
    assert again.get(1, "explore") is None
    again.ahead()
    assert (tmp_path / "record.dpgen").read_text().splitlines() == [f"0 {n}" for n in range(9)] + ["1 0", "1 1", "1 2"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_torn_last_line_is_done_again(tmp_path, cut):
    filled(tmp_path, [(0, "train"), (0, "explore")])
    text = (tmp_path / "record.jsonl").read_text()
    (tmp_path / "record.jsonl").write_text(text[:-cut])
    again = Record.open(Workdir(tmp_path))
    assert again.get(0, "train")
    assert bool(again.get(0, "explore")) == (cut == 1)
    again.append(Done(0, "explore", {"n": 5}, 1.0))
    assert Record.open(Workdir(tmp_path)).get(0, "explore").result == {"n": 5}


def test_unknown_events_are_kept_and_skipped(tmp_path):
    filled(tmp_path, [(0, "train")])
    with (tmp_path / "record.jsonl").open("a") as stream:
        stream.write('{"event": "from the future", "x": 1}\n')
    again = Record.open(Workdir(tmp_path))
    again.append(Done(0, "explore", {}, 1.0))
    assert "from the future" in (tmp_path / "record.jsonl").read_text()


def test_newer_format_is_refused(tmp_path):
    (tmp_path / "record.jsonl").write_text('{"event": "format", "version": 99}\n')
    with pytest.raises(RecordError, match="update"):
        Record.open(Workdir(tmp_path))


def test_mirror_is_completed_after_a_crash(tmp_path):
    filled(tmp_path)
    file = tmp_path / "record.dpgen"
    whole = file.read_text()
    file.write_text(whole[: whole.index("0 5")])
    past = time.time() - 100
    os.utime(file, (past, past))
    Record.open(Workdir(tmp_path)).ahead()
    assert file.read_text() == whole


def test_mirror_rolled_back_by_hand_is_refused(tmp_path):
    filled(tmp_path)
    file = tmp_path / "record.dpgen"
    file.write_text("0 0\n0 1\n0 2\n")
    future = time.time() + 100
    os.utime(file, (future, future))
    with pytest.raises(RecordError, match=r"delete .*record\.dpgen"):
        Record.open(Workdir(tmp_path)).ahead()


def write_dpgen(folder, *lines):
    (folder / "record.dpgen").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("number", range(9))
def test_lead_of_dpgen(tmp_path, number):
    write_dpgen(tmp_path, *(f"0 {n}" for n in range(9)), *(f"1 {n}" for n in range(number + 1)))
    lead = Record.open(Workdir(tmp_path)).ahead()
    assert lead.position == Position(1, number)
    ends = {"train": 2, "explore": 4, "select": 6, "label": 8}
    finished = [(1, stage) for stage in STAGES if number >= ends[stage]]
    assert list(lead.stages) == [(0, stage) for stage in STAGES] + finished
    now = next((stage for stage in STAGES if number < ends[stage]), None)
    assert lead.position.current == ((1, now) if now else (2, "train"))


def test_dpgen_that_went_on_after_us_is_ahead_by_what_it_did(tmp_path):
    record = filled(tmp_path, [(0, "train"), (0, "explore")])
    write_dpgen(tmp_path, "0 0", "0 1", "0 2")
    assert record.ahead() is None
    write_dpgen(tmp_path, *(f"0 {n}" for n in range(6)))  # it began the exploration anew
    assert record.ahead().stages == ((0, "explore"),)
    record.adopt(record.ahead().position)
    assert Record.open(Workdir(tmp_path)).ahead() is None
    write_dpgen(tmp_path, *(f"0 {n}" for n in range(9)))
    assert Record.open(Workdir(tmp_path)).ahead().stages == ((0, "explore"), (0, "select"), (0, "label"))


def test_what_dpgen_does_again_does_not_count_any_more(tmp_path):
    record = filled(tmp_path, [(0, "train"), (0, "explore"), (0, "select")])
    write_dpgen(tmp_path, "0 0", "0 1", "0 2", "0 3")
    record.adopt(record.ahead().position)
    for known in (record, Record.open(Workdir(tmp_path))):
        assert list(known.done) == [(0, "train")]
        assert not known.settled
    record.settle()
    assert Record.open(Workdir(tmp_path)).settled


def test_only_the_last_line_counts(tmp_path):
    """As in DP-GEN: people delete lines, or write the one they want to go on from."""
    write_dpgen(tmp_path, "2 4")
    record = Record.open(Workdir(tmp_path))
    lead = record.ahead()
    assert lead.position == Position(2, 4)
    assert lead.stages == (*((i, s) for i in (0, 1) for s in STAGES), (2, "train"), (2, "explore"))
    for iteration, stage in lead.stages:
        record.append(Done(iteration, stage, {}, 0.0))
    record.adopt(lead.position)
    again = Record.open(Workdir(tmp_path))
    assert again.ahead() is None
    again.append(Done(2, "select", {}, 0.0))
    again.append(Done(2, "label", {}, 0.0))
    assert (tmp_path / "record.dpgen").read_text().splitlines() == [f"{i} {n}" for i in range(3) for n in range(9)]


def test_last_line_without_an_end_is_a_line(tmp_path):
    (tmp_path / "record.dpgen").write_text("0 0\n0 1")  # the rest was deleted in an editor
    assert Record.open(Workdir(tmp_path)).ahead().position == Position(0, 1)


def test_status_shows_the_stage_in_progress(tmp_path):
    record = filled(tmp_path, [(0, "train")])
    record.start(0, "explore")
    found = status.collect(Workdir(tmp_path))
    assert found.current == "0 explore"
    assert found.rows[0].seconds == {"train": 1.5}


def test_ledger_keeps_the_last_word(tmp_path):
    ledger = Ledger.open(tmp_path)
    ledger.ran({"a": ("d1", 0, 2.0), "b": ("d2", None, 0.0)}, 1, {})
    ledger.judged("a", {"frames": 3})
    ledger.judged("b", Failure("killed", Retry.NOW, "x"))
    ledger.ran({"b": ("d2", 0, 1.0)}, 2, {})
    with (tmp_path / "ledger.jsonl").open("a") as stream:
        stream.write('{"event": "judged", "task": "b", "do')  # the driver dies here
    again = Ledger.open(tmp_path)
    assert again.attempt == 2
    assert again.entries["a"].done
    assert again.entries["b"].verdict is None
    again.judged("b", {"frames": 4})
    assert Ledger.open(tmp_path).entries["b"].verdict == {"frames": 4}


def test_digest_is_of_contents_and_command_alone(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    digests = Digests()
    first = digests.of_inputs("dp train", [("x", tmp_path / "a")])
    assert digests.of_inputs("dp train", [("x", tmp_path / "b")]) == first
    assert digests.of_inputs("dp train --y", [("x", tmp_path / "a")]) != first
    assert digests.of_inputs("dp train", [("y", tmp_path / "a")]) != first
    (tmp_path / "a").write_text("22")
    assert digests.of_inputs("dp train", [("x", tmp_path / "a")]) != first
    with pytest.raises(DispatchError, match="cannot be read"):
        digests.of_inputs("", [("x", tmp_path / "missing")])


def start_wrapper(folder, script, attempt=1, digest="d"):
    (folder / ".al.sh").write_text(wrapper.text(".al", script, "log", None))  # in place, as an upload does
    return subprocess.Popen(["bash", ".al.sh", digest, str(attempt)], cwd=folder)


def command_started(folder):
    lock_file = folder / ".al.lock"
    return lock_file.exists() and len(lock_file.read_text().splitlines()) == 2


@pytest.mark.parametrize("code", [0, 3])
def test_wrapper_says_how_the_command_ended(tmp_path, code):
    assert start_wrapper(tmp_path, f"echo out; echo err >&2\nexit {code}").wait(10) == 0
    assert wrapper.read_status(tmp_path / ".al.status").code == code
    assert (tmp_path / "log").read_text() == "out\nerr\n"
    assert not (tmp_path / ".al.lock").exists()


def test_wrapper_runs_an_attempt_once_and_another_again(tmp_path):
    for attempt in (1, 1, 2):
        start_wrapper(tmp_path, "echo run", attempt).wait(10)
    start_wrapper(tmp_path, "echo run", 2, "other").wait(10)
    assert (tmp_path / "log").read_text() == "run\n" * 3


def test_two_copies_do_not_run_beside_each_other(tmp_path):
    script = "echo start; sleep 1; echo end"
    copies = [start_wrapper(tmp_path, script) for _ in range(8)]
    assert [copy.wait(30) for copy in copies] == [0] * 8
    assert (tmp_path / "log").read_text() == "start\nend\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".al.sh", ".al.status", "log"]


def test_many_copies_clear_the_lock_of_a_killed_one_once(tmp_path):
    first = start_wrapper(tmp_path, "sleep 60")
    while not command_started(tmp_path):
        time.sleep(0.02)
    group = int((tmp_path / ".al.lock").read_text().split()[-1])
    first.kill()
    first.wait()
    os.killpg(group, signal.SIGKILL)
    text = wrapper.text(".al", "echo start; sleep 1; echo end", "log", None)
    (tmp_path / ".al.sh").write_text(text)
    command = ["bash", ".al.sh", "d", "2"]
    copies = [subprocess.Popen(command, cwd=tmp_path) for _ in range(8)]
    assert [copy.wait(30) for copy in copies] == [0] * 8
    assert (tmp_path / "log").read_text() == "start\nend\n"


def test_lock_of_a_killed_wrapper_is_held_while_its_command_lives(tmp_path):
    first = start_wrapper(tmp_path, "echo start; sleep 3; echo end")
    while not command_started(tmp_path):
        time.sleep(0.02)
    first.kill()
    first.wait()
    assert start_wrapper(tmp_path, "echo again", 2).wait(60) == 0
    assert (tmp_path / "log").read_text() == "start\nend\nagain\n"


def test_terminated_wrapper_ends_its_command_and_says_so(tmp_path):
    process = start_wrapper(tmp_path, "sleep 60 & sleep 60; echo not reached")
    while not command_started(tmp_path):
        time.sleep(0.02)
    time.sleep(0.2)
    process.terminate()
    process.wait(20)
    assert wrapper.read_status(tmp_path / ".al.status").code > 128
    assert "not reached" not in (tmp_path / "log").read_text()


def test_one_driver_at_a_time(tmp_path):
    file = tmp_path / "al.lock"
    code = "import time; from pathlib import Path; from activelearn import lock\n"
    code += f"with lock.hold(Path({str(file)!r})): time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code])
    while not (file.exists() and file.read_text()):
        time.sleep(0.02)
    with pytest.raises(ActiveLearnError, match=f"process {other.pid}"), lock.hold(file):
        pass
    other.kill()
    other.wait()
    with lock.hold(file):  # its holder is dead
        assert json.loads(file.read_text())["pid"] == os.getpid()
    assert not file.exists()


def test_lock_of_another_computer_counts_until_it_is_silent(tmp_path):
    file = tmp_path / "al.lock"
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "boot": "", "start": ""}))
    with pytest.raises(ActiveLearnError, match="elsewhere"), lock.hold(file):
        pass
    past = time.time() - lock.DEAD - 1
    os.utime(file, (past, past))
    with lock.hold(file):
        pass
