"""The selection stage against the rules in plain words: a loop over the lines of the files."""

import math
import shutil

from hypothesis import given, settings
from hypothesis import strategies as st

from activelearn.config.selection import OFF
from tests import exploration
from tests.exploration import HEADER

VALUES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, math.nan, math.inf)
LEVELS = (0.05, 0.1, 0.2, 0.3)
deviations = st.sampled_from(VALUES) | st.floats(0, 0.6)


@st.composite
def files(draw):
    """The text of one model_devi.out: steps repeat after a restart, the end may be torn off."""
    atomic = draw(st.integers(0, 2))
    steps = draw(st.lists(st.integers(0, 12), max_size=8))
    if draw(st.booleans()):
        steps = sorted(set(steps))
    rows = [
        exploration.row(10 * step, draw(deviations), draw(deviations), [draw(deviations) for _ in range(atomic)])
        for step in steps
    ]
    if rows and draw(st.booleans()):
        rows.insert(draw(st.integers(0, len(rows))), draw(st.sampled_from(["WARNING: hot atoms\n", "10 0.1 0.2\n"])))
    text = (HEADER if draw(st.booleans()) else "") + "".join(rows)
    return text[: len(text) - draw(st.sampled_from([0, 0, 1, 7, 30, 150]))] if text else text


@st.composite
def pairs(draw, n_systems, off):
    """The two trust levels of one kind, in the spellings of DP-GEN; by system."""
    if off and draw(st.booleans()):
        return None, None, [(OFF, OFF)] * n_systems
    each = [
        sorted(draw(st.lists(st.sampled_from(LEVELS), min_size=2, max_size=2, unique=True))) for _ in range(n_systems)
    ]
    form = draw(st.sampled_from(["number", "list", "dict"]))
    if form == "number":
        each = each[:1] * n_systems
        return *each[0], each
    los, his = zip(*each, strict=True)
    if form == "list":
        return list(los), list(his), each
    return *({str(n): value for n, value in enumerate(side)} for side in (los, his)), each


@st.composite
def cases(draw):
    """Explorations of some systems, and settings."""
    n_systems = draw(st.integers(1, 3))
    param = exploration.settings(sys_configs=[["structures/*"]] * n_systems)
    job = {**param["model_devi_jobs"][0], "sys_idx": draw(st.permutations(range(n_systems)))}
    expected = {}
    for kind in "fv":
        lo, hi, each = draw(pairs(n_systems, off=kind == "v"))
        expected[kind] = each
        place = param
        if lo is not None and draw(st.booleans()):
            place = job
            param.update({f"model_devi_{kind}_trust_lo": 0.01, f"model_devi_{kind}_trust_hi": 9.0})
        if lo is not None:
            place.update({f"model_devi_{kind}_trust_lo": lo, f"model_devi_{kind}_trust_hi": hi})
    param.update(
        model_devi_jobs=[job],
        model_devi_skip=draw(st.sampled_from([0, 0, 15, 50, 500])),
        fp_task_max=draw(st.integers(0, 9)),
    )
    job["task_min"] = draw(st.sampled_from([-1, 0, 2, 5]))
    param["fp_accurate_threshold"] = draw(st.sampled_from([1.0, 0.8, 0.5]))
    if draw(st.booleans()):
        param["fp_accurate_soft_threshold"] = draw(st.sampled_from([0.1, 0.4, 0.9]))
    if draw(st.booleans()):
        param.update(
            model_devi_adapt_trust_lo=True,
            model_devi_numb_candi_f=draw(st.integers(0, 4)),
            model_devi_numb_candi_v=draw(st.integers(0, 4)),
            model_devi_perc_candi_f=draw(st.sampled_from([0.0, 12.5, 50.0, 100.0])),
            model_devi_perc_candi_v=draw(st.sampled_from([0.0, 12.5, 50.0])),
        )
    trees = [draw(st.lists(files(), max_size=3)) for _ in range(n_systems)]
    return param, expected, trees


def plain_rows(text):
    """Complete rows; of a step that comes twice the last one counts."""
    rows = {}
    for line in text.split("\n")[:-1]:
        words = line.split()
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            continue
        if len(numbers) >= 7:
            rows[int(numbers[0])] = (numbers[4], numbers[1])
    return rows


def plain_fixed(rows, f_levels, v_levels):
    """Candidate if one of the two is in its range; failed if one is beyond; else accurate. No number fails."""
    (f_lo, f_hi), (v_lo, v_hi) = f_levels, v_levels
    kinds = {}
    for name, (f, v) in rows.items():
        if v_lo >= OFF and not math.isfinite(v):
            v = 0.0
        if not (math.isfinite(f) and math.isfinite(v)):
            kinds[name] = "failed"
        elif f_lo <= f < f_hi or v_lo <= v < v_hi:
            kinds[name] = "candidate"
        elif f >= f_hi or v >= v_hi:
            kinds[name] = "failed"
        else:
            kinds[name] = "accurate"
    return kinds


def plain_adaptive(rows, f_hi, v_hi, param):
    """Failed above the upper levels; of the others the largest by force and the largest by virial are candidates."""
    by_virial = v_hi < OFF or param["model_devi_numb_candi_v"] > 0 or param["model_devi_perc_candi_v"] > 0
    kinds, forces, virials = {}, [], []
    for name, (f, v) in rows.items():
        if not by_virial and not math.isfinite(v):
            v = 0.0
        if not (math.isfinite(f) and math.isfinite(v)) or f > f_hi or v > v_hi:
            kinds[name] = "failed"
        else:
            kinds[name] = "accurate"
            forces.append((f, name))
            virials.append((v, name))
    for letter, values in (("f", forces), ("v", virials)):
        number = max(
            param[f"model_devi_numb_candi_{letter}"], int(param[f"model_devi_perc_candi_{letter}"] / 100 * len(values))
        )
        for _, name in sorted(values, reverse=True)[:number]:
            kinds[name] = "candidate"
    return kinds


def plain_number(kinds, param):
    """How many frames are picked."""
    of = {kind: list(kinds.values()).count(kind) for kind in ("accurate", "candidate", "failed")}
    hard = param["fp_accurate_threshold"]
    soft = param.get("fp_accurate_soft_threshold", hard)
    ratio, most = of["accurate"] / len(kinds), param["fp_task_max"]
    if ratio >= soft:
        most = int(most * (ratio - hard) / (soft - hard)) if ratio < hard else 0
    number = min(most, of["candidate"])
    return number if number >= param["model_devi_jobs"][0]["task_min"] else 0


@settings(max_examples=150, deadline=None)
@given(cases())
def test_selection_is_the_plain_rule(tmp_path_factory, case):
    param, levels, trees = case
    root = tmp_path_factory.mktemp("select")
    for system, texts in enumerate(trees):
        for number, text in enumerate(texts):
            name = f"iter.000000/01.model_devi/task.{system:03d}.{number:06d}"
            exploration.write_task(root / name, text)
    found = exploration.select(root, param)
    for system, texts in enumerate(trees):
        rows = {
            (f"iter.000000/01.model_devi/task.{system:03d}.{number:06d}", step): values
            for number, text in enumerate(texts)
            for step, values in plain_rows(text).items()
            if step >= param["model_devi_skip"]
        }
        f_levels, v_levels = levels["f"][system], levels["v"][system]
        if param.get("model_devi_adapt_trust_lo"):
            kinds = plain_adaptive(rows, f_levels[1], v_levels[1], param)
        else:
            kinds = plain_fixed(rows, f_levels, v_levels)
        counts = found.result["systems"][f"{system:03d}"]
        for kind, file in (("accurate", "rest_accurate"), ("candidate", "candidate"), ("failed", "rest_failed")):
            expected = sorted(name for name in kinds if kinds[name] == kind)
            assert counts[kind] == len(expected)
            listed = found.audit(file, system)
            assert (listed is None) == (not rows)
            assert sorted((task, int(step)) for task, step in listed or ()) == expected
        picked = [item for item in found.picked if item["system"] == system]
        assert [item["label"] for item in picked] == [f"task.{system:03d}.{n:06d}" for n in range(len(picked))]
        names = [(item["task"], item["step"]) for item in picked]
        assert names == sorted(names)
        assert len(set(names)) == len(names) == (plain_number(kinds, param) if rows else 0)
        assert all(kinds[name] == "candidate" for name in names)
        assert [item["max_devi_f"] for item in picked] == [rows[name][0] for name in names]
    shutil.rmtree(root)
