"""Classification, health and picking, against a plain restatement of the rules."""

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st

from activelearn.data import deviation as deviations
from activelearn.data.deviation import Deviation
from activelearn.data.frames import FrameRef
from activelearn.select import health, pick
from activelearn.select.trust import Kind, Levels, classify

values = st.one_of(st.floats(0, 2), st.sampled_from([0.0, 0.1, 0.3, math.nan, math.inf]))
rows = st.lists(st.tuples(st.integers(0, 10_000), values, values), max_size=40, unique_by=lambda row: row[0])
levels = st.builds(
    lambda f_lo, f_hi, v_lo, v_hi: Levels(min(f_lo, f_hi), max(f_lo, f_hi), min(v_lo, v_hi), max(v_lo, v_hi)),
    *(st.sampled_from([0.05, 0.1, 0.3, 0.5]) for _ in range(2)),
    *(st.sampled_from([0.1, 0.3, 1e10]) for _ in range(2)),
)


def make(some):
    some = sorted(some)
    return Deviation(*(np.array([row[n] for row in some], dtype=t) for n, t in ((0, int), (1, float), (2, float))))


def plain(step, f, v, level, skip):
    """The rule in words: candidate first, then accurate, else failed; what is no number fails."""
    if step < skip:
        return Kind.SKIPPED
    virial_counts = level.v_lo < 1e10
    if not math.isfinite(f) or (virial_counts and not math.isfinite(v)):
        return Kind.FAILED
    if not math.isfinite(v):
        v = 0.0
    if level.f_lo <= f < level.f_hi or level.v_lo <= v < level.v_hi:
        return Kind.CANDIDATE
    if f < level.f_lo and v < level.v_lo:
        return Kind.ACCURATE
    return Kind.FAILED


@given(rows, levels, st.sampled_from([0, 100, 20_000]))
def test_classification_is_the_plain_rule(some, level, skip):
    data = make(some)
    expected = [plain(s, f, v, level, skip) for s, f, v in zip(data.steps, data.force, data.virial, strict=True)]
    assert classify(data, level, skip).tolist() == expected


@given(rows, st.integers(1, 10), st.integers(0, 5))
def test_pick_keeps_account_of_every_frame(some, n_max, seed):
    data = make(some)
    level = Levels(0.1, 0.5, 1e10, 1e10)
    kinds = classify(data, level)
    trajectory = pick.Classified("task.000.000000", data.steps, data.force, kinds)
    bad = {FrameRef("task.000.000000", int(s)) for s in data.steps[::3]}
    result = pick.pick(
        0,
        [trajectory],
        n_max,
        np.random.default_rng(seed),
        lambda frames: {f: "bad" if f in bad else None for f in frames},
    )
    candidates = {FrameRef("task.000.000000", int(s)) for s in data.steps[kinds == Kind.CANDIDATE]}
    good = candidates - bad
    assert set(result.picked) <= good
    assert len(result.picked) == min(n_max, len(good))
    assert list(result.picked) == sorted(result.picked)
    assert result.total == len(data)
    assert sum(len(frames) for frames in result.shuffled.values()) == len(data)
    assert {frame for frame, _ in result.rejected} <= candidates & bad
    assert result.candidate == len(candidates) - len(result.rejected)


def test_selection_is_a_function_of_the_seed_and_of_nothing_else():
    steps = np.arange(0, 1000, 10)
    kinds = np.full(100, Kind.CANDIDATE, dtype=np.int8)
    one = pick.Classified("a", steps, steps * 0.0, kinds)
    two = pick.Classified("b", steps, steps * 0.0, kinds)
    first = pick.pick(0, [one, two], 10, np.random.default_rng(3))
    again = pick.pick(0, [two, one], 10, np.random.default_rng(3))
    other = pick.pick(0, [one, two], 10, np.random.default_rng(4))
    assert first.picked == again.picked
    assert first.shuffled == again.shuffled
    assert first.picked != other.picked


def test_summary_is_dpgens():
    result = pick.Pick(0, accurate=38, candidate=14, failed=10, picked=tuple(FrameRef("t", n) for n in range(14)))
    assert pick.summary(result, 20) == [
        "system 000 candidate :     14 in     62  22.58 %",
        "system 000 failed    :     10 in     62  16.13 %",
        "system 000 accurate  :     38 in     62  61.29 %",
        "system 000 accurate_ratio:   0.6129    thresholds: 1.0000 and 1.0000   "
        "eff. task min and max   -1   20   number of fp tasks:     14",
    ]


HEADER = "#       step         max_devi_v         min_devi_v         avg_devi_v  max_devi_f min_devi_f avg_devi_f\n"


@given(
    st.lists(st.tuples(st.integers(0, 50), *[st.floats(0, 1e3)] * 6), max_size=20),
    st.integers(0, 60),
    st.booleans(),
    st.integers(0, 3),
)
def test_deviation_file_cut_anywhere(tmp_path_factory, some, cut, header, atomic):
    """Rows that are whole count, the last of a repeated step wins, whatever the file ends with."""
    lines = [" ".join([str(row[0]), *(f"{x:.6e}" for x in row[1:]), *["0.1"] * atomic]) + "\n" for row in some]
    text = "".join(lines)
    text = text[: max(0, len(text) - cut)]
    file = tmp_path_factory.mktemp("d") / "model_devi.out"
    file.write_text((HEADER if header else "") + text)
    whole = text.count("\n")
    expected = {row[0]: (float(f"{row[4]:.6e}"), float(f"{row[1]:.6e}")) for row in some[:whole]}
    found = deviations.read(file)
    assert dict(zip(found.steps.tolist(), zip(found.force, found.virial, strict=True), strict=True)) == expected
    assert found.steps.tolist() == sorted(expected)


@pytest.mark.parametrize("text", ["", HEADER, "  \n", HEADER + "garbage\n", HEADER + "1 2 3\n"])
def test_deviation_file_without_rows(tmp_path, text):
    (tmp_path / "model_devi.out").write_text(text)
    assert len(deviations.read(tmp_path / "model_devi.out")) == 0
    assert len(deviations.read(tmp_path / "missing")) == 0


def test_garbage_between_rows_is_left_out(tmp_path):
    row = " 0.1 0.1 0.1 0.2 0.1 0.1\n"
    file = tmp_path / "model_devi.out"
    file.write_text(HEADER + "0" + row + "5 0.1 0.\n" + "10 nan nan nan nan nan nan\n" + "15 x y\n" + "20" + row)
    found = deviations.read(file)
    assert found.steps.tolist() == [0, 10, 20]
    assert np.isnan(found.force[1])


def test_exploded_rows_are_unhealthy():
    data = Deviation(np.arange(6), np.array([0.1, 0.0, np.nan, 0.1, 0.1, 0.1]), np.zeros(6))
    ratio = np.array([1.0, 1.0, 1.0, 3.5, 0.2, np.nan])
    assert health.unhealthy_rows(data, ratio).tolist() == [False, True, True, True, True, False]


def _overlap():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1] = atoms.positions[0] + [0.9, 0, 0]
    return atoms


def _gas():
    return Atoms("Cu8", np.random.default_rng(1).permutation(8)[:, None] * [7.0, 7.0, 7.0], cell=[60] * 3, pbc=True)


def _nan():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0, 0] = np.nan
    return atoms


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (bulk("Cu", cubic=True), None),
        (molecule("H2O"), None),
        (molecule("CH3CH2OH"), None),
        (Atoms("Cu"), None),
        (_overlap(), "Cu-Cu at 0.90 A"),
        (_gas(), "8 of 8 atoms have no neighbour"),
        (_nan(), "not finite"),
    ],
)
def test_geometry(atoms, words):
    complaint = health.complaint(atoms, 5.0)
    assert (complaint is None) == (words is None)
    assert words is None or words in complaint
