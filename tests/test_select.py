"""Picking, health, and the reading of deviations; the classification is in test_classification.py."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st

from activelearn.data import deviation as deviations
from activelearn.data.deviation import Deviation
from activelearn.data.frames import FrameRef
from activelearn.select import frames as frames_module
from activelearn.select import health, pick, trust
from activelearn.select.frames import gather
from activelearn.select.pick import Quota
from activelearn.select.summary import summary
from activelearn.select.trust import Adaptive, Kind, Levels

FIRST_RELEASE = ((60, 810, 840, 990), (170, 190, 280, 350, 420, 900))


def table(*trajectories):
    """Frames of tasks a, b, ...: each a list of force deviations, every 10 steps."""
    return gather(
        (task, Deviation(np.arange(len(force)) * 10, np.array(force, dtype=float), np.zeros(len(force))), None)
        for task, force in zip("abcdefgh", trajectories, strict=False)
    )


@given(st.lists(st.floats(0, 0.6), max_size=40), st.integers(0, 10), st.integers(0, 5), st.sampled_from([-1, 3]))
def test_other_candidates_take_the_place_of_sick_ones(force, n_max, seed, n_min):
    frames = table(force)
    kinds = trust.classify(frames, Levels(0.1, 0.5, 1e10, 1e10))
    bad = {frames.ref(row) for row in range(0, len(frames), 3)}
    looked_at = []

    def check(refs):
        looked_at.extend(refs)
        return {ref: "bad" if ref in bad else None for ref in refs}

    result = pick.pick(0, frames, kinds, Quota(n_max, n_min), np.random.default_rng(seed), check)
    candidates = {frames.ref(row) for row in np.flatnonzero(kinds == Kind.CANDIDATE)}
    good, number = candidates - bad, min(n_max, len(candidates - bad))
    assert set(result.chosen) <= good
    assert len(result.chosen) == (number if number >= n_min else 0)
    assert list(result.chosen) == sorted(result.chosen)
    assert [number for number, _, _ in result.picked] == list(range(len(result.chosen)))
    assert [frames.ref(row) for _, row, _ in result.picked] == list(result.chosen)
    assert {ref for ref, _ in result.rejected} == bad & set(looked_at)
    assert len(looked_at) == len(set(looked_at)) <= number + len(result.rejected)
    assert result.count(Kind.CANDIDATE) == len(candidates) - len(result.rejected)
    assert sum(result.count(kind) for kind in Kind) == result.total == len(force)
    for kind, rows in result.order.items():
        assert sorted(rows) == np.flatnonzero(result.kinds == kind).tolist()


def test_without_backfill_the_numbers_of_sick_frames_stay_empty():
    frames = table([0.2] * 6)
    kinds = np.full(6, Kind.CANDIDATE, dtype=np.int8)
    check = {FrameRef("a", step): "bad" if step in (10, 40) else None for step in range(0, 60, 10)}
    result = pick.pick(0, frames, kinds, Quota(9), np.random.default_rng(0), lambda _: check, backfill=False)
    assert [(number, ref.step) for number, _, ref in result.picked] == [(0, 0), (2, 20), (3, 30), (5, 50)]
    assert [ref.step for ref in result.left_out] == [10, 40]
    assert result.count(Kind.CANDIDATE) == 6
    missing = pick.pick(0, frames, kinds, Quota(9), np.random.default_rng(0), lambda _: {}, backfill=False)
    assert set(missing.left_out.values()) == {"the frame is not in the trajectory"}


def test_selection_is_a_function_of_the_seed_and_of_nothing_else():
    deviation = Deviation(np.arange(0, 1000, 10), np.zeros(100), np.zeros(100))
    kinds = np.full(200, Kind.CANDIDATE, dtype=np.int8)

    def chosen(names, seed):
        frames = gather((name, deviation, None) for name in names)
        result = pick.pick(0, frames, kinds, Quota(10), np.random.default_rng(seed))
        return result.chosen, result.order[Kind.CANDIDATE].tolist()

    first = chosen("ab", 3)
    assert first == chosen("ba", 3)
    assert first[0] != chosen("ab", 4)[0]
    assert first[0] == (  # what the first release picked: a run that goes on goes on with the same frames
        *(FrameRef("a", step) for step in FIRST_RELEASE[0]),
        *(FrameRef("b", step) for step in FIRST_RELEASE[1]),
    )


def test_frames_the_health_rules_do_not_believe_fail_and_are_not_ranked():
    sick = np.array([False, True, False, True])
    some = Deviation(np.arange(4), np.array([0.1, 0.4, 0.3, 0.0]), np.zeros(4))
    frames = gather([("a", some, sick)], skip=1)
    assert frames.step.tolist() == [1, 2, 3]
    fixed = trust.classify(frames, Levels(0.2, 0.5, 1e10, 1e10))
    ranked, levels = trust.adapt(frames, Levels(9, 0.5, 9, 1e10), Adaptive(1, 0, 0.0, 0.0))
    assert fixed.tolist() == ranked.tolist() == [Kind.FAILED, Kind.CANDIDATE, Kind.FAILED]
    assert levels == Levels(0.3, 0.5, 1e10, 1e10)


def test_audit_files_are_streamed_and_go_with_the_wish_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(frames_module, "LINES_AT_ONCE", 3)
    frames = table([0.0] * 4, [0.2] * 10)
    kinds = trust.classify(frames, Levels(0.1, 0.5, 1e10, 1e10))
    result = pick.pick(0, frames, kinds, Quota(2), np.random.default_rng(0))

    def file(kind, system):
        return tmp_path / f"{kind}.{system}"

    pick.write_audit(result, file)
    before = {path.name: (path.read_text(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert sorted(before["rest_accurate.0"][0].splitlines()) == [f"a {step}" for step in (0, 10, 20, 30)]
    assert sorted(before["candidate.0"][0].splitlines()) == sorted(f"b {10 * n}" for n in range(10))
    assert before["rest_failed.0"][0] == ""
    pick.write_audit(result, file)
    assert {path.name: (path.read_text(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    pick.write_audit(result, file, wanted=False)
    assert not list(tmp_path.iterdir())


def test_summary_is_dpgens():
    frames = table([0.2] * 14 + [0.9] * 10 + [0.0] * 38)
    kinds = trust.classify(frames, Levels(0.1, 0.5, 1e10, 1e10))
    assert summary(pick.pick(0, frames, kinds, Quota(20), np.random.default_rng(0))) == [
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
