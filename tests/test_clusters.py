"""Clusters: atoms as candidates, molecules cut out around them, labels and weights of what was cut out."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from activelearn import stages
from activelearn.config.clusters import Clusters
from activelearn.data import beads, clusters, dataset, deviation
from activelearn.data.bonds import bonds
from activelearn.data.frames import FrameRef
from activelearn.dispatch.task import Outcome
from activelearn.errors import EngineError
from activelearn.label.values import weighted
from tests import exploration, molecules, outputs
from tests.molecules import chain, in_box, water_box
from tests.test_wrong_inputs import problems

TASK = "iter.000000/01.model_devi/task.000.000000"
BOX = [20.0, 12.0, 13.0]


def cut(atoms, centre, cutoff, hard=None, minify=False):
    rule = Clusters(cluster_cutoff=cutoff, cluster_cutoff_hard=hard, cluster_minify=minify)
    return clusters.cut(atoms, bonds(atoms), centre, rule)


def centre_of(cluster):
    (found,) = np.flatnonzero(cluster.get_array("atom_pref"))
    return found


def from_centre(cluster):
    """Symbols and places relative to the centre, in one order."""
    places = (cluster.positions - cluster.positions[centre_of(cluster)]).round(5) + 0.0
    return sorted(zip(cluster.get_chemical_symbols(), map(tuple, places.tolist()), strict=True))


def same(one, other):
    ours, theirs = from_centre(one), from_centre(other)
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    np.testing.assert_allclose([place for _, place in ours], [place for _, place in theirs], atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 11), st.floats(1.2, 4.5), st.booleans(), st.sampled_from([None, 5.0]), st.integers(0, 2**32 - 1))
def test_faces_of_the_cell_make_no_difference(centre, cutoff, minify, hard, seed):
    """Wherever a molecule crosses the faces of its cell, rectangular or not, the same cluster is cut out."""
    rng = np.random.default_rng(seed)
    free = chain(12)
    free.positions += rng.normal(scale=0.02, size=free.positions.shape)
    skew = np.diag([32.0, 20.0, 20.0]) + np.tril(rng.uniform(-4, 4, size=(3, 3)), -1)
    expected = cut(free, centre, cutoff, hard, minify)
    found = cut(in_box(free, skew, rng.uniform(-30, 30, size=3)), centre, cutoff, hard, minify)
    assert not found.pbc.any()
    same(found, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 11), st.floats(0.5, 6.0), st.integers(0, 2**32 - 1))
def test_a_cut_alkane_is_an_alkane(centre, cutoff, seed):
    """Each bond that is cut ends in a hydrogen 1.09 A away: whatever the cutoff, no valence stays open."""
    rng = np.random.default_rng(seed)
    frame = in_box(chain(12), [36.0, 20.0, 20.0], rng.uniform(-20, 20, size=3))
    cluster = cut(frame, centre, cutoff, minify=True)
    carbon, hydrogen = (cluster.get_chemical_symbols().count(name) for name in "CH")
    assert hydrogen == 2 * carbon + 2
    found = bonds(cluster)
    assert len(set(found.molecules())) == 1
    assert np.bincount(np.concatenate([found.first, found.second])).tolist() == [
        4 if name == "C" else 1 for name in cluster.symbols
    ]
    distance = frame.get_distances(centre, range(len(frame)), mic=True)
    assert carbon == np.count_nonzero((distance < cutoff) & (frame.numbers == 6))


def test_a_long_molecule_is_whole_and_not_torn():
    """Dodecane is longer than half the cell; without minify it is taken as it is, in one piece."""
    whole = cut(in_box(chain(12), BOX, (11, 11.8, 12.9)), 0, 3.5)
    assert str(whole.symbols) == "C12H26"
    assert np.ptp(whole.positions[:, 0]) > 15
    assert len(set(bonds(whole).molecules())) == 1


def test_hard_cutoff_drops_atoms_without_ends():
    frame = in_box(chain(12), BOX)
    distance = frame.get_distances(5, range(len(frame)), mic=True)
    hard = cut(frame, 5, 3.0, hard=5.0)
    assert len(hard) == np.count_nonzero(distance < 5.0)
    both = cut(frame, 5, 2.6, hard=2.7, minify=True)  # the outer neighbours are beyond the hard cutoff
    assert len(both) == np.count_nonzero(distance < 2.6)


@pytest.mark.parametrize("cutoff", [1.2, 2.9, 4.0])
def test_water_comes_in_molecules(cutoff):
    frame = water_box()
    for centre in (0, 1, 41, 80):
        cluster = cut(frame, centre, cutoff)
        near = frame.get_distances(centre, range(len(frame)), mic=True) < cutoff
        assert len(cluster) == 3 * len(set(np.flatnonzero(near) // 3))
        assert set(np.bincount(bonds(cluster).molecules())) == {3}
        assert cluster.symbols[centre_of(cluster)] == frame.symbols[centre]
        assert (np.linalg.norm(cluster.positions - cluster.positions[centre_of(cluster)], axis=1) < cutoff).sum() == (
            near.sum()
        )


def test_a_double_bond_is_not_cut():
    """Where one would be, the molecule is whole, and gets no hydrogen for bonds that would have been cut elsewhere."""
    frame = in_box(molecule("butadiene"), [15.0] * 3, (7, 7, 7))
    inner = [n for n, name in enumerate(frame.symbols) if name == "C"]
    for centre in inner:
        found = cut(frame, centre, 1.2, minify=True)
        assert str(found.symbols.formula.convert("hill")) == "C4H6", centre
        assert len(set(bonds(found).molecules())) == 1
    kept = [cut(frame, centre, 1.4, minify=True).symbols.formula.count() for centre in inner]
    assert {"C": 2, "H": 4} in kept  # a vinyl group, cut off at the single bond


@pytest.mark.parametrize("name", ["C6H6", "C5H5N"])
def test_an_aromatic_ring_is_not_cut(name):
    frame = in_box(molecule(name), [15.0] * 3, (7, 7, 7))
    for centre in np.flatnonzero(frame.numbers > 1):
        for cutoff in (1.3, 2.0, 2.6):
            found = cut(frame, centre, cutoff, minify=True)
            assert found.symbols.formula.count() == frame.symbols.formula.count()


def test_a_hydrogen_shared_by_two_belongs_to_the_nearer():
    found = bonds(Atoms("OHO", [[0, 0, 0], [0, 0, 1.0], [0, 0, 2.1]]))
    assert list(zip(found.first, found.second, strict=True)) == [(0, 1)]
    assert found.vector.tolist() == [[0, 0, 1]]
    assert len(bonds(Atoms("He2", [[0, 0, 0], [0, 0, 9]])).first) == 0


def test_weights_follow_the_atoms_through_any_order():
    cluster = cut(in_box(chain(3), [15.0] * 3), 1, 9.0)
    label = {"atom_names": ["H", "C"], "atom_types": np.array([1, 0, 1, 1, *[0] * 7])}

    class Label(dict):
        data = {}

    found = weighted(Label(label), cluster).data["atom_pref"]
    assert found.shape == (1, 11)
    assert np.flatnonzero(found[0]).tolist() == [2]  # the second carbon


def test_deviations_of_atoms_through_restarts_and_beads(tmp_path):
    """Of a step the last whole row counts; beads follow one another."""
    first = exploration.row(0, 9.0, 0, (1.0, 2.0)) + exploration.row(5, 9.0, 0, (0.0, 0.0))
    (tmp_path / "model_devi1.out").write_text(first + exploration.row(5, 9.0, 0, (3.0, 4.0)) + "10 0.5")
    (tmp_path / "model_devi2.out").write_text(first + exploration.row(5, 9.0, 0, (np.nan, 6.0)) + "10 0 0")
    found = beads.joined(tmp_path, atomic=True)
    assert found.steps.tolist() == [0, 5, 6, 11]
    np.testing.assert_array_equal(found.atomic, [[1, 2], [3, 4], [1, 2], [np.nan, 6]])
    assert beads.joined(tmp_path).atomic is None
    assert deviation.read(tmp_path / "none.out", atomic=True).atomic.shape == (0, 0)


def explored(root, deviations, merged=True, n=6):
    frames = [in_box(chain(n), BOX, (3.0 * k, 1, 2)) for k in range(len(deviations))]
    molecules.write(root / TASK, frames, deviations, merged)
    return frames


def test_atoms_are_candidates(tmp_path):
    """lo <= deviation < hi of the atom; what is not a number fails; early steps and the virial do not count."""
    deviations = np.full((3, 20), 0.1)
    deviations[0, :5] = 0.3
    deviations[1, :5] = (0.2, 0.4, 0.5, 0.25, np.nan)
    deviations[2, 19] = 0.3999
    explored(tmp_path, deviations)
    given = molecules.settings(model_devi_skip=5, model_devi_v_trust_lo=0.0, model_devi_v_trust_hi=0.1)
    found = exploration.select(tmp_path, given)
    picks = {(item["label"], item["step"], item["atom"]): item["max_devi_f"] for item in found.picked}
    assert picks == {
        ("task.000.000000", 10, 0): 0.2,
        ("task.000.000001", 10, 3): 0.25,
        ("task.000.000002", 20, 19): 0.3999,
    }
    assert {kind: found.result[kind] for kind in ("candidate", "failed", "accurate")} == {
        "candidate": 3, "failed": 3, "accurate": 34,
    }  # fmt: skip
    assert sorted(found.audit("candidate", 0)) == [(TASK, "10", "0"), (TASK, "10", "3"), (TASK, "20", "19")]
    assert sorted(found.audit("rest_failed", 0)) == [(TASK, "10", str(n)) for n in (1, 2, 4)]
    assert "system 000 candidate :      3 in     40   7.50 %" in found.lines
    assert found.warnings == ["system 000: the deviation of 1 atoms is not a number; they count as failed"]


def test_sick_frames_have_no_candidates(tmp_path):
    """The health of a frame decides about all its atoms; others take their places."""
    frames = explored(tmp_path, np.full((3, 20), 0.3))
    frames[1].positions[1] = frames[1].positions[0] + 0.1
    molecules.write(tmp_path / TASK, frames, np.full((3, 20), 0.3), merged=True)
    given = molecules.settings(fp_task_max=30, _activelearn={"health": True})
    found = exploration.select(tmp_path, given)
    assert len(found.picked) == 30
    assert {item["step"] for item in found.picked} == {0, 20}
    assert 0 < found.result["failed"] <= 20
    assert any(line.startswith(f"system 000 rejected {TASK} step 10 atom ") for line in found.lines)


def test_deviations_of_atoms_that_are_not_there(tmp_path):
    frames = [in_box(chain(2), BOX)]
    exploration.write_task(tmp_path / TASK, exploration.row(0, 0.3, 0.0), {0: molecules.Frame(frames[0])})
    with pytest.raises(EngineError, match="no deviations of single atoms"):
        exploration.select(tmp_path, molecules.settings())


def labelled(root, param, merged=True):
    """Select and label; Gaussian's output is written for it."""
    deviations = np.full((2, 20), 0.1)
    deviations[0, [0, 2, 9]] = deviations[1, [5, 19]] = 0.3
    frames = explored(root, deviations, merged)
    found = exploration.select(root, param)
    stage = stages.label(found.project, 0)
    batch = next(stage)
    done = {}
    for task in batch.tasks:
        lines = (batch.folder / task.name / "input").read_text().splitlines()
        rows = [line.split() for line in lines[lines.index("DPGEN") + 3 :] if line.strip()]
        atoms = Atoms([row[0] for row in rows], [[float(x) for x in row[1:4]] for row in rows])
        forces = np.random.default_rng(len(done)).normal(size=(len(atoms), 3)).round(6)
        (batch.folder / task.name / "output").write_text(outputs.gaussian_log(atoms, -40.5 - len(done), forces))
        done[task.name] = batch.verify(task, 0)
        assert "natoms" in done[task.name], done[task.name]
    with pytest.raises(StopIteration) as end:
        stage.send(Outcome(done))
    return found, frames, end.value.value


@pytest.mark.parametrize("merged", [True, False])
def test_from_deviations_to_training_data(tmp_path, merged):
    param = molecules.settings(cluster_cutoff=1.9, cluster_minify=True, use_atom_pref=True)
    param["fp_task_max"] = 5
    found, frames, result = labelled(tmp_path, param, merged)
    assert result["systems"] == {"000": 5}
    expected = {
        FrameRef(item["task"], item["step"], item["atom"]): frames[item["step"] // 10][item["atom"]].symbol
        for item in found.picked
    }
    assert sorted(expected.values()) == ["C", "C", "C", "H", "H"]
    systems = dataset.find(found.folder / "data.000")
    centres = []
    for system in systems:
        names = np.array(system.type_names())[system.types()]
        weights = system.array("atom_pref")
        assert weights.shape == (system.nframes, system.natoms)
        assert set(weights.sum(axis=1)) == {1}
        assert not system.periodic
        assert not system.has("set.000/virial.npy")
        for coord, weight in zip(system.array("coord").reshape(system.nframes, -1, 3), weights, strict=True):
            centre = int(np.argmax(weight))
            centres.append(names[centre])
            distance = np.linalg.norm(coord - coord[centre], axis=1)
            assert distance.max() < 1.9 + 1.2  # the centre is in the middle: the hydrogens of the outermost are near
    assert sorted(centres) == sorted(expected.values())
    assert dataset.merge(systems, molecules.TYPES).get_nframes() == 5


def test_no_weights_unless_asked_for(tmp_path):
    found, _, _ = labelled(tmp_path, {**molecules.settings(), "fp_task_max": 5})
    systems = dataset.find(found.folder / "data.000")
    assert systems
    assert not any(system.has("set.000/atom_pref.npy") for system in systems)


def top(**keys):
    return lambda param: param.update(keys)


WRONG = {
    "MD says nothing of atoms": (top(use_clusters=False, cluster_cutoff=3.0), "use_clusters", "cluster_cutoff"),
    "no radius": (top(use_clusters=True, cluster_cutoff=0), "cluster_cutoff", "greater than 0"),
    "no hydrogen": (top(use_clusters=True, cluster_cutoff=3.0, cluster_minify=True), "cluster_minify", "add H"),
    "frames are ranked": (
        top(use_clusters=True, cluster_cutoff=3.0, model_devi_adapt_trust_lo=True),
        "model_devi_adapt_trust_lo",
        "ranks frames",
    ),
    "periodic labels": (
        lambda param: param.update(
            use_clusters=True, cluster_cutoff=3.0, fp_style="cp2k", user_fp_params={"FORCE_EVAL": {}}
        ),
        "cluster_cutoff",
        "gaussian",
    ),
    "weights of frames": (top(use_atom_pref=True), "use_atom_pref", "cluster_cutoff"),
}


HYBRID = """\
units metal
read_data conf.lmp
pair_style hybrid/overlay deepmd ../graph.000.pth ../graph.001.pth out_freq 5 out_file model_devi.out{} zero 3.0
pair_coeff * * deepmd Cu
dump dpgen_dump
run 10
"""


@pytest.mark.parametrize("word", ["", " atomic"])
def test_a_template_must_write_them_too(project, word):
    project.param.update(use_clusters=True, cluster_cutoff=2.0)
    job = {"sys_idx": [0], "trj_freq": 5, "template": {"lmp": "deck.in"}}
    project.param["model_devi_jobs"] = [job]
    (project.root / "deck.in").write_text(HYBRID.format(word))
    found = [error["path"] for error in problems(project)["errors"]]
    assert found == ([] if word else ["model_devi_jobs[0].template.lmp"])


@pytest.mark.parametrize("case", WRONG)
def test_wrong_keys_are_found_by_check(project, case):
    change, path, words = WRONG[case]
    change(project.param)
    (error,) = [error for error in problems(project)["errors"] if not error["path"].startswith("user_fp_params")]
    assert error["path"] == path
    assert words in error["message"] + " " + error["hint"]


IDLE = {
    "hard below soft": (top(use_clusters=True, cluster_cutoff=2.0, cluster_cutoff_hard=1.8), {"cluster_cutoff_hard"}),
    "half the box": (top(use_clusters=True, cluster_cutoff=3.0), {"cluster_cutoff"}),
    "whole frames": (
        top(use_clusters=True, cluster_cutoff_hard=2.0, cluster_minify=True),
        {"use_clusters", "cluster_cutoff_hard", "cluster_minify"},
    ),
    "what atoms do not have": (
        top(
            use_clusters=True, cluster_cutoff=2.0, model_devi_f_avg_relative=True,
            model_devi_v_trust_lo=0.1, model_devi_v_trust_hi=0.2,
        ),
        {"model_devi_f_avg_relative", "model_devi_v_trust_lo"},
    ),
    "a loss PyTorch cannot do": (
        lambda param: param["default_training_param"]["loss"].update(start_pref_pf=10, limit_pref_pf=1),
        {"default_training_param.loss.start_pref_pf"},
    ),
    "all is well": (top(use_clusters=True, cluster_cutoff=2.0, cluster_cutoff_hard=4.0, use_atom_pref=True), set()),
}  # fmt: skip


@pytest.mark.parametrize("case", IDLE)
def test_keys_without_effect_are_warned_about(project, case):
    change, paths = IDLE[case]
    change(project.param)
    answer = problems(project)
    assert answer["errors"] == []
    assert {warning["path"] for warning in answer["warnings"]} == paths
