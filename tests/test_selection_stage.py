"""The selection stage on explorations that were written by hand, and its keys in `al check`."""

import numpy as np
import pytest
from ase.build import bulk

from tests import exploration
from tests.exploration import Frame
from tests.test_wrong_inputs import problems

CELL = bulk("Cu", cubic=True).repeat(2)
TASK = "iter.000000/01.model_devi/task.000.000000"


def copper(factor=(1, 1, 1)):
    """Copper, stretched along the edges of its cell."""
    return Frame(CELL.cell.array * factor, CELL.positions * factor)


def write(root, rows, frames, merged=False):
    text = "".join(exploration.row(10 * n, f, v) for n, (f, v) in enumerate(rows))
    exploration.write_task(root / TASK, text, {10 * n: frame for n, frame in enumerate(frames)}, merged)


LONG = [4, 7, 9]
"""Rows of the frames whose cell is 1.5 times as long as it is wide."""


@pytest.fixture
def explored(tmp_path):
    """Twelve candidates, three of them in a long cell, in one file or in one per frame."""

    def make(merged):
        root = tmp_path / f"{merged}"
        frames = [copper((1.5, 1, 1) if n in LONG else (1, 1, 1)) for n in range(12)]
        write(root, [(0.2, 0.0)] * 12, frames, merged)
        return root

    return make


def param(**changes):
    return exploration.settings(
        model_devi_f_trust_lo=0.1, model_devi_f_trust_hi=0.5, fp_skip_bad_box="length_ratio:1.2", **changes
    )


@pytest.mark.parametrize("merged", [False, True])
def test_without_health_rules_bad_boxes_leave_holes(explored, merged):
    found = exploration.select(explored(merged), param(model_devi_merge_traj=merged, fp_task_max=99))
    assert [(item["label"][-2:], item["step"]) for item in found.picked] == [
        (f"{n:02d}", 10 * n) for n in range(12) if n not in LONG
    ]
    assert found.lines[-4] == "system 000 skipped      3 confs with bad box,      9 remains"
    assert [line.split(" rejected ")[1] for line in found.lines[-3:]] == [
        f"{TASK} step {10 * n}: bad box: length_ratio is 1.500" for n in LONG
    ]
    assert found.result["candidate"] == 12
    assert found.result["systems"]["000"]["rejected"] == 3


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("task_min", [-1, 9, 10])
def test_with_health_rules_others_take_the_place_of_bad_boxes(explored, merged, task_min):
    given = param(model_devi_merge_traj=merged, fp_task_max=9, _activelearn={"health": True})
    given["model_devi_jobs"][0]["task_min"] = task_min
    found = exploration.select(explored(merged), given)
    picked = [(item["label"][-1:], item["step"]) for item in found.picked]
    good = [10 * n for n in range(12) if n not in LONG]
    rejected = found.result["systems"]["000"]["rejected"]
    if task_min == 10:  # more than fp_task_max: DP-GEN, too, labels nothing then
        assert picked == []
        assert rejected == 0
    else:
        assert picked == [(f"{n}", step) for n, step in enumerate(good)]
        assert 0 < rejected <= 3
    assert (found.result["candidate"], found.result["failed"]) == (12 - rejected, rejected)


def test_a_cluster_needs_vacuum(tmp_path):
    """The vacuum is what the cell leaves; atoms that have left the cell count where they come in again."""
    cell = np.diag([10.0, 12.0, 14.0])
    near = np.array([[4.0, 4, 4], [6, 6, 6], [5, 5, 5]])
    frames = [Frame(cell, near), Frame(cell, near - np.array([5.0, 0, 0])), Frame(cell, near, np.array([3.0, -8, 1]))]
    write(tmp_path, [(0.2, 0.0)] * 3, frames)
    given = exploration.settings(model_devi_f_trust_lo=0.1, model_devi_f_trust_hi=0.5, fp_cluster_vacuum=7.5)
    found = exploration.select(tmp_path, given)
    assert [(item["label"][-1:], item["step"]) for item in found.picked] == [("0", 0), ("2", 20)]
    assert "system 000 skipped      1 confs with bad cluster,      2 remains" in found.lines


def test_what_should_not_pass_without_a_word(tmp_path):
    rows = [(0.9, 0.2), (0.2, 0.0), (np.nan, 0.2), (np.inf, np.nan), (0.0, 0.0), (0.2, np.nan), (0.6, 0.6)]
    write(tmp_path, rows, [])
    given = exploration.settings(model_devi_f_trust_lo=0.1, model_devi_f_trust_hi=0.5, fp_task_max=1)
    off = exploration.select(tmp_path, given)
    assert [line for line in off.warnings if "not a number" in line] == [
        "system 000: the deviation of 2 frames is not a number; they count as failed"
    ]
    assert (off.result["candidate"], off.result["failed"], off.result["accurate"]) == (2, 4, 1)
    given.update(model_devi_v_trust_lo=0.1, model_devi_v_trust_hi=0.5)
    on = exploration.select(tmp_path, given)
    assert (on.result["candidate"], on.result["failed"], on.result["accurate"]) == (2, 4, 1)
    assert on.warnings == [
        "system 000: the deviation of 3 frames is not a number; they count as failed",
        "system 000: 1 candidates have a force deviation of 0.5 eV/A (model_devi_f_trust_hi) or more; their virial"
        " deviation made them candidates, as in DP-GEN",
        "system 000: 57 % of the frames failed; look at the MD before trusting the rest",
    ]


def test_selection_can_be_repeated(explored):
    root, given = explored(True), param(fp_task_max=4)
    first = exploration.select(root, given)
    again = exploration.select(root, given)
    assert first.picked == again.picked
    assert first.audit("candidate", 0) == again.audit("candidate", 0) != sorted(again.audit("candidate", 0))
    brief = exploration.select(root, {**given, "detailed_report_make_fp": False})
    assert brief.picked == first.picked
    assert brief.audit("candidate", 0) is None


def job(**keys):
    return lambda param: param["model_devi_jobs"][0].update(keys)


def top(**keys):
    return lambda param: param.update(keys)


WRONG = {
    "misspelt criterion": (top(fp_skip_bad_box="length_ratio:5;hight_ratio:5"), "fp_skip_bad_box", "'height_ratio'"),
    "criterion without number": (top(fp_skip_bad_box="length_ratio"), "fp_skip_bad_box", "positive number"),
    "criterion with a word": (top(fp_skip_bad_box="min_distance:near"), "fp_skip_bad_box", "'near'"),
    "criterion with commas": (top(fp_skip_bad_box="length_ratio:5,tilt_ratio:5"), "fp_skip_bad_box", "positive number"),
    "no vacuum": (top(fp_cluster_vacuum=0), "fp_cluster_vacuum", "greater than 0"),
    "negative share": (top(model_devi_perc_candi_f=-1.0), "model_devi_perc_candi_f", "greater than"),
    "negative number of candidates": (top(model_devi_numb_candi_v=-1), "model_devi_numb_candi_v", "greater than"),
    "job's level of a system missing": (
        job(model_devi_f_trust_hi={}), "model_devi_jobs[0].model_devi_f_trust_hi", '"0"',
    ),
    "job's levels swapped": (
        job(model_devi_f_trust_lo=0.3, model_devi_f_trust_hi=0.2), "model_devi_jobs[0].model_devi_f_trust_lo", "swap",
    ),
    "virial level of a system missing": (top(model_devi_v_trust_hi={}), "model_devi_v_trust_hi", '"0"'),
    "task_min is a word": (job(task_min="few"), "model_devi_jobs[0].task_min", "few"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_keys_are_found_by_check(project, case):
    change, path, words = WRONG[case]
    change(project.param)
    errors = problems(project)["errors"]
    assert [error["path"] for error in errors] == [path]
    assert words in errors[0]["message"] + " " + errors[0]["hint"]


RIGHT = {
    "adaptive: lower levels play no part": top(
        model_devi_adapt_trust_lo=True,
        model_devi_f_trust_lo=0.9,
        model_devi_f_trust_hi=0.3,
        model_devi_perc_candi_f=2.5,
    ),
    "all criteria": top(
        fp_skip_bad_box="length_ratio:5; height_ratio:5;wrap_ratio:0.5;tilt_ratio:0.5;min_distance:1.0;min_dist:.9;"
    ),
    "levels of the job alone": lambda param: (
        param.update(model_devi_f_trust_lo=5.0, model_devi_f_trust_hi=1.0),
        job(model_devi_f_trust_lo={"0": 0.1}, model_devi_f_trust_hi=[0.3], task_min=3)(param),
    ),
    "explore only": top(fp_task_max=0),
    "nothing asked for": top(fp_skip_bad_box=None, fp_cluster_vacuum=None, use_clusters=False, cluster_minify=False),
    "soft end": top(fp_accurate_threshold=0.95, fp_accurate_soft_threshold=0.5, detailed_report_make_fp=False),
}


@pytest.mark.parametrize("case", RIGHT)
def test_good_keys_pass(project, case):
    RIGHT[case](project.param)
    answer = problems(project)
    assert answer["errors"] == answer["warnings"] == []


def test_odd_values_are_warned_about(project):
    project.param.update(
        fp_accurate_threshold=0.5, fp_accurate_soft_threshold=0.9,
        model_devi_adapt_trust_lo=True, model_devi_perc_candi_f=0.2,
    )  # fmt: skip
    answer = problems(project)
    assert answer["ok"]
    assert {warning["path"] for warning in answer["warnings"]} == {
        "fp_accurate_soft_threshold",
        "model_devi_perc_candi_f",
    }
    assert "write 20" in next(w["hint"] for w in answer["warnings"] if "perc" in w["path"])
