"""Clusters beside DP-GEN's own: which atoms are candidates, and what is cut out around them."""

import json
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from activelearn.adopt import finished
from activelearn.config.clusters import Clusters
from activelearn.data import clusters, frames
from activelearn.data.frames import FrameRef
from activelearn.record import Position, Record
from tests import exploration, molecules
from tests.molecules import Frame, chain, in_box, water_box

CODE = """
import glob, logging, warnings
import numpy as np
from dpgen.generator import run
from dpgen.generator.lib.gaussian import take_cluster
warnings.simplefilter("ignore")
lines = []
class Keep(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
run.dlog.addHandler(Keep())
here = os.getcwd()
cuts, selections = [], []
for file, atom, keys in args["cuts"]:
    found = take_cluster(file, args["types"], atom, keys)
    symbols = [found["atom_names"][kind] for kind in found["atom_types"]]
    cuts.append([symbols, found["coords"][0].tolist(), found["atom_pref"][0].tolist()])
for name, param in args["selections"]:
    os.chdir(os.path.join(here, name))
    lines.clear()
    run._make_fp_vasp_configs(0, param)
    tasks = {}
    for task in sorted(glob.glob("iter.000000/02.fp/task.*")):
        tasks[os.path.basename(task)] = [
            os.readlink(task + "/POSCAR"), open(task + "/POSCAR").read(), np.load(task + "/atom_pref.npy").tolist()]
    audit = {os.path.basename(file): open(file).read().splitlines() for file in glob.glob("iter.000000/02.fp/*.out")}
    selections.append({"lines": list(lines), "tasks": tasks, "audit": audit})
    os.rename("iter.000000/02.fp", "dpgen.fp")
result = {"cuts": cuts, "selections": selections}
os.chdir(here)
"""
TYPES = molecules.TYPES
SINGLE = ("C2H6", "CH3OH", "CH3CH2OH", "CH3OCH3", "isobutane", "trans-butane", "C3H8", "cyclobutane", "CH3COCH3")
"""No double bond, or one that nobody cuts at these radii."""
DOUBLE = ("butadiene", "HCOOH", "OCHCHO", "CH3CHO")
"""DP-GEN perhaps adds hydrogen where it then cuts nothing."""
RADII = (1.3, 2.0, 2.7, 3.3)
ETHANOL = molecule("CH3CH2OH")
CHAIN_BOX = [31.0, 15.0, 16.0]


def free(name, rng):
    atoms = chain(9) if name == "nonane" else molecule(name)
    atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
    return atoms


def liquid(rng):
    """Water and ethanol, crossing the faces of the box."""
    atoms = water_box(4, 3.4)
    alcohol = molecule("CH3CH2OH")
    alcohol.positions += (6.6, 6.6, 6.6)
    distance = np.linalg.norm(atoms.positions[:, None] - alcohol.positions[None], axis=2).min(axis=1)
    keep = [n for n in range(0, len(atoms), 3) if distance[n : n + 3].min() > 2.0]
    atoms = atoms[[n + k for n in keep for k in range(3)]] + alcohol
    return in_box(atoms, [13.6] * 3, rng.uniform(0, 13, size=3))


def cases(root):
    """Name of a frame, atom, radii; the frames are written."""
    rng = np.random.default_rng(4)
    asked = []

    def add(name, atoms, step, which):
        file = root / name / "traj" / f"{step}.lammpstrj"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Frame(atoms).dump(step))
        asked.extend((f"{name}/traj/{step}.lammpstrj", atom, keys) for atom, keys in which)

    for name in (*SINGLE, *DOUBLE, "nonane"):
        atoms = in_box(free(name, rng), CHAIN_BOX, (9, 7.5, 8))
        which = [
            (atom, {"cluster_cutoff": radius, "cluster_minify": minify, "cluster_cutoff_hard": hard})
            for atom in range(0, len(atoms), 2)
            for radius in RADII
            for minify, hard in ((True, None), (True, 3.6), (False, None), (False, 3.6))
            if minify or radius == 2.0
        ]
        add(name, atoms, 10, which)
    for step in (10, 20):
        keys = [{"cluster_cutoff": 4.0}, {"cluster_cutoff": 3.0, "cluster_cutoff_hard": 3.4}]
        add("liquid", liquid(rng), step, [(atom, key) for atom in range(0, 120, 17) for key in keys])
    for shift in range(4):
        atoms = in_box(chain(9), CHAIN_BOX, (4.0 * shift + 19, 14.8, 15.7))
        keys = [{"cluster_cutoff": 2.0, "cluster_minify": True}, {"cluster_cutoff": 2.0}]
        add("crossing", atoms, 10 * shift, [(atom, key) for atom in (0, 3, 6) for key in keys])
    return asked


def selections(root):
    """Small explorations of two systems, with the keys that select from them."""
    made = []
    for number in range(4):
        rng = np.random.default_rng(number)
        name = f"select.{number}"
        folder = root / name / "iter.000000" / "01.model_devi"
        for system in (0, 1):
            for task in range(2):
                some = [in_box(ETHANOL, [14.0] * 3, rng.uniform(5, 6, size=3)) for _ in range(3)]
                deviations = rng.choice([0.1, 0.2, 0.3, 0.4, 0.5], size=(3, 9), p=[0.8, 0.05, 0.05, 0.05, 0.05])
                molecules.write(folder / f"task.{system:03d}.{task:06d}", some, deviations)
        param = molecules.settings(
            sys_configs=[["a"], ["b"]],
            cluster_cutoff=2.0,
            cluster_minify=bool(number % 2),
            model_devi_skip=5 * number,
            fp_task_max=99 if number < 3 else 3,
            model_devi_f_trust_hi=[0.4, 0.5],
            detailed_report_make_fp=number != 1,
        )
        param["model_devi_jobs"][0]["sys_idx"] = [0, 1]
        made.append((name, param))
    return made


@pytest.fixture(scope="module")
def both(dpgen, tmp_path_factory):
    root = tmp_path_factory.mktemp("clusters")
    asked, chosen = cases(root), selections(root)
    theirs = dpgen(root, CODE, cuts=asked, selections=chosen, types=TYPES)
    ours = []
    for file, atom, keys in asked:
        folder, step = root / file.split("/")[0], int(re.search(r"(\d+)\.lammpstrj", file)[1])
        frame = frames.read(folder, [step], TYPES)[step]
        ref = FrameRef("", step, atom)
        ours.append(clusters.around([ref], {ref.frame: frame}, Clusters(**keys))[ref])
    cuts = []
    for question, (symbols, places, weights), mine in zip(asked, theirs["cuts"], ours, strict=True):
        cluster = Atoms(symbols, places)
        cluster.set_array("atom_pref", np.array(weights, dtype=float))
        cuts.append((question, cluster, mine))
    picks = [
        (root / name, param, found, exploration.select(root / name, param))
        for (name, param), found in zip(chosen, theirs["selections"], strict=True)
    ]
    return cuts, picks


def partners(theirs, mine):
    """For each atom of ours the same one of theirs, both seen from the centre; None: there is none."""
    places = [each.positions - each.positions[each.get_array("atom_pref").argmax()] for each in (mine, theirs)]
    distance = np.linalg.norm(places[0][:, None] - places[1][None], axis=2)
    distance[mine.numbers[:, None] != theirs.numbers[None]] = np.inf
    return [int(row.argmin()) if row.min() < 1e-3 else None for row in distance]


def identical(theirs, mine):
    found = partners(theirs, mine)
    return len(theirs) == len(mine) and None not in found and len(set(found)) == len(mine)


def test_the_same_atoms_are_cut_out(both):
    """Molecules of single bonds; a liquid across the faces of its box: atom by atom, ends and weights included."""
    n = ends = 0
    for (file, atom, keys), theirs, mine in both[0]:
        name = file.split("/")[0]
        if name in (*SINGLE, "nonane", "liquid") or (name == "crossing" and "cluster_minify" not in keys):
            assert identical(theirs, mine), (file, atom, keys, theirs.symbols, mine.symbols)
            n += 1
            ends += bool(keys.get("cluster_minify")) and name == "nonane" and len(mine) < 29
    assert n > 200
    assert ends > 20


def test_where_a_double_bond_is_not_cut_dpgen_leaves_hydrogen_behind(both):
    """Its ends of bonds that stay after all lie on top of the atoms that stay."""
    same = more = 0
    for (file, atom, keys), theirs, mine in both[0]:
        if file.split("/")[0] not in DOUBLE:
            continue
        if identical(theirs, mine):
            same += 1
            continue
        more += 1
        found = partners(theirs, mine)
        assert None not in found, (file, atom, keys, theirs.symbols, mine.symbols)
        stray = sorted(set(range(len(theirs))) - set(found))
        assert stray
        assert set(theirs.symbols[stray]) == {"H"}
        bare = Atoms(theirs.numbers, theirs.positions)
        assert all(np.sort(bare.get_distances(n, range(len(bare))))[1] < 0.6 for n in stray)
    assert same > 50
    assert more > 2


def test_across_faces_dpgen_puts_hydrogen_on_the_wrong_side(both):
    """It takes the vector of the bond without regard to the cell: the chain gets an end in its middle."""
    wrong = 0
    for (file, _, keys), theirs, mine in both[0]:
        if not (file.startswith("crossing") and "cluster_minify" in keys):
            continue
        assert str(mine.symbols.formula.convert("hill")) == str(theirs.symbols.formula.convert("hill"))
        lost = [n for n, partner in enumerate(partners(theirs, mine)) if partner is None]
        assert set(mine.symbols[lost]) <= {"H"}
        wrong += bool(lost)
    assert wrong > 0


def test_the_same_atoms_are_candidates(both):
    for _, param, theirs, ours in both[1]:
        found = [line for line in ours.lines if " rejected " not in line]
        assert found == theirs["lines"]
        for kind in ("candidate", "rest_accurate", "rest_failed"):
            for system in (0, 1):
                text = theirs["audit"].get(f"{kind}.shuffled.{system:03d}.out")
                expected = None if text is None else sorted(tuple(line.split()) for line in text)
                mine = ours.audit(kind, system)
                assert (None if mine is None else sorted(mine)) == expected
        assert len(ours.picked) == len(theirs["tasks"])
        if param["fp_task_max"] == 99:
            mine = {}
            for item in ours.picked:
                name = f"{item['step']}.lammpstrj.cluster.{item['atom']}.POSCAR"
                mine[item["label"]] = f"../../01.model_devi/{item['task'].split('/')[-1]}/traj/{name}"
            assert mine == {task: link for task, (link, _, _) in theirs["tasks"].items()}
            assert len(mine) > 5


def test_dpgen_marks_another_atom_than_the_one_in_the_middle(both):
    """Its POSCAR is sorted by element and its weights are not (ours go with the atoms: tests/test_clusters.py)."""
    wrong = 0
    for _, _, theirs, _ in both[1]:
        for link, poscar, weights in theirs["tasks"].values():
            lines = poscar.splitlines()
            symbols = [s for s, n in zip(lines[5].split(), lines[6].split(), strict=True) for _ in range(int(n))]
            asked = ETHANOL.symbols[int(re.search(r"cluster\.(\d+)\.", link)[1])]
            wrong += symbols[int(np.argmax(weights[0]))] != asked
    assert wrong > 0


def test_a_selection_of_dpgen_is_taken_over(both):
    root, _, theirs, ours = both[1][0]
    place = ours.project.workdir.iteration(0)
    place.label.rename(root / "ours.fp")
    (root / "dpgen.fp").rename(place.label)
    result = finished.result(ours.project, Record(ours.project.workdir), Position(0, 6), 0, "select")
    assert result["picked"] == len(theirs["tasks"]) > 5
    assert json.loads(place.picked.read_text()) == ours.picked
