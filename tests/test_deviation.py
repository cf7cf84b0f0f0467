"""Deviation files as they come from machines: torn, restarted, with NaN, with columns per atom, one per bead."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activelearn.data import beads, deviation, forces
from tests.systems import copper
from tests.test_inputs import write_dump

HEADER = "#       step         max_devi_v         min_devi_v         avg_devi_v  max_devi_f min_devi_f avg_devi_f\n"

values = st.one_of(st.floats(0, 1e6), st.just(math.nan), st.just(math.inf))
columns = st.tuples(*[values] * 6)


def line(step, row, n_atoms=0):
    return f"{step:12d}" + "".join(f"{value:19.6e}" for value in (*row, *[0.25] * n_atoms)) + "\n"


def told(row):
    """The numbers of a row that are used, as they are printed: force, virial."""
    return float(f"{row[3]:.6e}"), float(f"{row[0]:.6e}")


def same(found, expected):
    """Compare with {step: (force, virial)}, NaN being NaN; steps increase strictly."""
    assert found.steps.dtype == np.int64
    assert found.steps.tolist() == sorted(expected)
    pairs = [expected[step] for step in sorted(expected)]
    np.testing.assert_array_equal(found.force, [force for force, _ in pairs])
    np.testing.assert_array_equal(found.virial, [virial for _, virial in pairs])
    assert len(found) == len(expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("deviation")


@given(st.dictionaries(st.integers(0, 10**9), columns, max_size=6), st.integers(0, 40), st.booleans())
def test_whole_files(folder, rows, n_atoms, header):
    """NaN and infinity are kept, whatever the number of rows and of columns per atom."""
    file = folder / "whole.out"
    text = "".join(line(step, row, n_atoms) for step, row in sorted(rows.items()))
    file.write_text((HEADER if header else "") + text)
    same(deviation.read(file), {step: told(row) for step, row in rows.items()})


@given(st.lists(columns, min_size=1, max_size=5), st.integers(0, 3), st.integers(0, 10**4))
def test_files_cut_anywhere(folder, rows, n_atoms, keep):
    """Rows that end with their line count; the torn one at the end does not."""
    text = HEADER + "".join(line(5 * place, row, n_atoms) for place, row in enumerate(rows))
    text = text[: keep % (len(text) + 1)]
    file = folder / "cut.out"
    file.write_text(text)
    whole = max(0, text.count("\n") - 1)
    same(deviation.read(file), {5 * place: told(row) for place, row in enumerate(rows[:whole])})


@given(
    st.lists(columns, min_size=3, max_size=8),
    st.integers(1, 7),
    st.integers(0, 3),
    st.lists(columns, min_size=3, max_size=8),
    st.booleans(),
    st.integers(1, 17),
)
def test_restarted_files(folder, before, again, n_atoms, after, torn, words):
    """A restart writes rows again, perhaps right behind a torn one: the last whole row of a step counts."""
    again = min(again, len(before))
    text = HEADER + "".join(line(place, row, n_atoms) for place, row in enumerate(before))
    if torn:  # cut in or after one of its numbers, so that the next row follows in the same line
        last = line(len(before), before[0], n_atoms)
        text += last[: 12 + 19 * min(words, 5 + n_atoms) - 3]
    text += "".join(line(again + place, row, n_atoms) for place, row in enumerate(after))
    expected = {place: told(row) for place, row in enumerate(before)}
    expected |= {again + place: told(row) for place, row in enumerate(after) if not (torn and place == 0)}
    file = folder / "restarted.out"
    file.write_text(text)
    same(deviation.read(file), expected)


@pytest.mark.parametrize("text", ["", HEADER, "\n\n", HEADER + "1 2 3\n", "a b c d e f g\n", HEADER + "5 1 1 1 1 1 1"])
def test_files_without_a_row(folder, text):
    (folder / "empty.out").write_text(text)
    same(deviation.read(folder / "empty.out"), {})


def bead_files(folder, rows):
    """Write rows (by bead) as files, the names padded as LAMMPS does."""
    for file in folder.glob("model_devi*.out"):
        file.unlink()
    for name, some in zip(beads.names(len(rows)), rows, strict=True):
        text = "".join(line(10 * place, row) for place, row in enumerate(some))
        (folder / f"model_devi{name}.out").write_text(HEADER + text)


@given(st.lists(st.lists(columns, max_size=4), min_size=1, max_size=12))
def test_beads_follow_one_another(folder, rows):
    """Every row of every bead has a step of its own, which leads back to bead and step; beads may be of any length."""
    bead_files(folder, rows)
    stride = 10 * max(0, *(len(some) - 1 for some in rows)) + 1
    expected = {
        bead * stride + 10 * place: told(row) for bead, some in enumerate(rows) for place, row in enumerate(some)
    }
    found = beads.joined(folder)
    same(found, expected)
    several = beads.find(folder)
    assert several.names == beads.names(len(rows))
    for bead, name in enumerate(several.names):
        for place in range(len(rows[bead])):
            assert several.own_step(bead * stride + 10 * place) == (name, 10 * place)
    back = several.by_bead(found.steps.tolist())
    assert sum(len(steps) for steps in back.values()) == len(found)


def test_what_dpgen_joined_is_not_read_as_a_bead(folder):
    """DP-GEN writes model_devi.out beside the beads' files and stops when it reads them again."""
    rows = [[(0.1,) * 6], [(0.2,) * 6]]
    bead_files(folder, rows)
    (folder / "model_devi.out").write_text(HEADER + line(0, (9.0,) * 6) + line(1, (9.0,) * 6))
    (folder / "model_devi_avgf.out").write_text(line(0, (9.0,) * 6))
    assert beads.joined(folder).force.tolist() == [0.1, 0.2]
    for file in folder.glob("model_devi?.out"):
        file.unlink()
    assert beads.joined(folder) is None
    assert beads.find(folder) is None


@pytest.mark.parametrize(
    ("number", "first", "last"), [(1, "1", "1"), (9, "1", "9"), (10, "01", "10"), (99, "01", "99")]
)
def test_names_of_beads(number, first, last):
    names = beads.names(number)
    assert (names[0], names[-1], len(names)) == (first, last, number)


@pytest.mark.parametrize("merged", [True, False])
def test_mean_force_counts_each_step_once(tmp_path, merged):
    atoms = copper(1)
    (tmp_path / "traj").mkdir()
    for step in (0, 10, 20, 10):  # forces (number of the atom, 0, step)
        file = tmp_path / "all.lammpstrj" if merged else tmp_path / "traj" / f"{step}.lammpstrj"
        if not merged:
            file.unlink(missing_ok=True)
        write_dump(file, [step], atoms)
    with (tmp_path / "all.lammpstrj" if merged else tmp_path / "traj" / "30.lammpstrj").open("a") as torn:
        torn.write("ITEM: TIMESTEP\n30\nITEM: NUMBER OF ATOMS\n8\nITEM: BOX")
    squares = [n**2 + step**2 for step in (0, 10, 20) for n in range(8)]
    assert forces.rms(tmp_path) == pytest.approx(math.sqrt(sum(squares) / len(squares)))


def test_mean_force_of_nothing_is_unknown(tmp_path):
    assert math.isnan(forces.rms(tmp_path))
    write_dump(tmp_path / "all.lammpstrj", [0], copper(1))
    text = (tmp_path / "all.lammpstrj").read_text()
    (tmp_path / "all.lammpstrj").write_text(text.replace("fx fy fz", "vx vy vz"))
    assert math.isnan(forces.rms(tmp_path))
