"""Selection: DP-GEN's own make_fp beside ours on the same random explorations."""

import json
import re

import numpy as np
import pytest

from activelearn.adopt import finished
from activelearn.record import Position, Record
from tests import exploration
from tests.exploration import HEADER, Frame

N_CASES = 120
FREQUENCY = 10
LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
LIMITS = {
    "length_ratio": (1.2, 2.5), "height_ratio": (1.3, 3.0), "wrap_ratio": (0.1, 0.6), "tilt_ratio": (0.1, 0.6),
    "min_distance": (0.8, 2.5), "min_dist": (0.8, 2.5),
}  # fmt: skip

DPGEN = """
import glob, logging
from pathlib import Path
from dpgen.generator import run
lines = []
class Keep(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
run.dlog.addHandler(Keep())
here = os.getcwd()
result = []
for name, param in args["cases"]:
    os.chdir(os.path.join(here, name))
    lines.clear()
    run._make_fp_vasp_configs(0, param)
    tasks = {}
    for task in sorted(glob.glob("iter.000000/02.fp/task.*")):
        conf = Path(task, "conf.dump")
        source = os.path.relpath(conf.resolve(), here + "/" + name) if conf.is_symlink() else None
        tasks[os.path.basename(task)] = [source, Path(task, "POSCAR").read_text()]
    bad = {}
    limits, vacuum = param.get("fp_skip_bad_box"), param.get("fp_cluster_vacuum")
    for file in glob.glob("iter.000000/01.model_devi/task.*/traj/*.lammpstrj"):
        bad[file] = (limits is not None and run.check_bad_box(file, limits)) or (
            vacuum is not None and run.check_cluster(file, vacuum))
    audit = {Path(file).name: Path(file).read_text().splitlines() for file in glob.glob("iter.000000/02.fp/*.out")}
    os.rename("iter.000000/02.fp", "dpgen.fp")
    result.append({"lines": list(lines), "tasks": tasks, "audit": audit, "bad": bad})
os.chdir(here)
"""


def random_frame(rng):
    """Three atoms in a cell that is anything from a cube to a needle; some atoms lie outside of it."""
    a, b, c = rng.uniform(4, 12, size=3) if rng.random() < 0.5 else np.full(3, rng.uniform(4, 12))
    tilts = rng.uniform(-0.7, 0.7, size=3) * rng.choice([0.0, 1.0])
    cell = np.array([[a, 0, 0], [tilts[0] * a, b, 0], [tilts[1] * a, tilts[2] * b, c]])
    return Frame(cell, rng.uniform(-0.05, 1.05, size=(3, 3)) @ cell, rng.uniform(-2, 2, size=3))


def random_levels(rng, n_systems):
    """Lower and upper level in one of the spellings."""
    each = np.sort([rng.choice(LEVELS, size=2, replace=False) for _ in range(n_systems)], axis=1).tolist()
    form = rng.choice(["number", "list", "dict"])
    if form == "number":
        return each[0]
    sides = [list(side) for side in zip(*each, strict=True)]
    return sides if form == "list" else [{str(n): level for n, level in enumerate(side)} for side in sides]


def random_steps(rng, merged, least):
    """Steps of the rows of model_devi.out; after a restart some come twice."""
    n = int(rng.integers(least, 13))
    steps = list(range(0, n * FREQUENCY, FREQUENCY))
    if merged or len(steps) < 3 or rng.random() < 0.5:
        return steps
    back = int(rng.integers(1, len(steps)))
    return steps + steps[back:]


def random_case(root, number):
    """Write one exploration; return the keys of param.json that select from it."""
    rng = np.random.default_rng(number)
    merged = number % 4 == 1
    boxes = number % 4 >= 2
    n_systems = int(rng.integers(1, 4))
    explored = sorted(rng.permutation(n_systems)[: int(rng.integers(1, n_systems + 1))].tolist())
    param = exploration.settings(
        sys_configs=[["structures/*"]] * n_systems,
        model_devi_merge_traj=merged,
        model_devi_skip=int(rng.choice([0, 0, 15, 40])),
        # every second case with demands on the box lets all candidates be picked: nothing is random then
        fp_task_max=99 if number % 4 == 2 else int(rng.integers(0, 12)),
    )
    job = {**param["model_devi_jobs"][0], "sys_idx": explored, "trj_freq": FREQUENCY}
    param["model_devi_jobs"] = [job]
    for kind in "fv"[: int(rng.integers(1, 3))]:
        if rng.random() < 0.3:
            param.update({f"model_devi_{kind}_trust_lo": 0.01, f"model_devi_{kind}_trust_hi": 5.0})
            place = job
        else:
            place = param
        place[f"model_devi_{kind}_trust_lo"], place[f"model_devi_{kind}_trust_hi"] = random_levels(rng, n_systems)
    adaptive = rng.random() < 0.4
    if adaptive:
        param["model_devi_adapt_trust_lo"] = True
        for key, values in (
            ("model_devi_numb_candi_f", (0, 2, 5)),
            ("model_devi_numb_candi_v", (0, 2, 5)),
            ("model_devi_perc_candi_f", (0.0, 7.0, 29.0, 57.0)),
            ("model_devi_perc_candi_v", (0.0, 7.0, 29.0)),
        ):
            if rng.random() < 0.7:
                param[key] = type(values[0])(rng.choice(values))
    if rng.random() < 0.5:
        param["fp_accurate_threshold"] = float(rng.choice([0.9, 0.5]))
    if rng.random() < 0.5:
        param["fp_accurate_soft_threshold"] = float(rng.choice([0.1, 0.3, 0.8]))
    if rng.random() < 0.4:
        job["task_min"] = int(rng.integers(0, 8))
    if rng.random() < 0.2:
        param["detailed_report_make_fp"] = False
    if boxes:
        names = rng.permutation(list(LIMITS))[: int(rng.integers(1, 3))]
        param["fp_skip_bad_box"] = ";".join(f"{name}:{rng.uniform(*LIMITS[name]):.3f}" for name in names)
        if rng.random() < 0.5:
            param["fp_cluster_vacuum"] = float(rng.uniform(1, 5))
    iteration = root / "iter.000000" / "01.model_devi"
    for system in explored:
        for task in range(int(rng.integers(1, 5))):
            n_atomic = int(rng.choice([0, 3]))
            # DP-GEN fails on one row where it is adaptive or has atomic columns, and on merged files without a frame
            steps = random_steps(rng, merged, 2 if merged or adaptive or n_atomic else int(rng.integers(0, 2)))
            text = HEADER if rng.random() < 0.8 else ""
            for step in steps:
                f, v = (float(rng.choice([x, round(x * 20) / 20])) for x in rng.uniform(0, 0.5, size=2))
                text += exploration.row(step, f, v, rng.uniform(0, 0.5, size=n_atomic))
            frames = {step: random_frame(rng) for step in sorted(set(steps))}
            exploration.write_task(iteration / f"task.{system:03d}.{task:06d}", text, frames, merged)
    (iteration / "cur_job.json").write_text(json.dumps(job))
    return param


@pytest.fixture(scope="module")
def both(dpgen, tmp_path_factory):
    """For each case: settings, DP-GEN's answer, ours."""
    root = tmp_path_factory.mktemp("select")
    params = [random_case(root / f"{number:03d}", number) for number in range(N_CASES)]
    theirs = dpgen(root, DPGEN, cases=[(f"{number:03d}", param) for number, param in enumerate(params)])
    ours = [exploration.select(root / f"{number:03d}", param) for number, param in enumerate(params)]
    return list(zip(params, theirs, ours, strict=True))


def candidates(case):
    """Number of candidates of each system."""
    _, theirs, _ = case
    found = {}
    for line in theirs["lines"]:
        if match := re.match(r"system (\d+) candidate +: +(\d+) ", line):
            found[int(match[1])] = int(match[2])
    return found


def all_are_picked(case):
    """Nothing is random if all candidates are picked, or none."""
    _, theirs, _ = case
    numbers = [int(line.rsplit(":", 1)[1]) for line in theirs["lines"] if "number of fp tasks" in line]
    return all(number in (0, n) for number, n in zip(numbers, candidates(case).values(), strict=True))


SKIPPED = re.compile(r"(system \d+) skipped +(\d+) confs with (bad \w+), +(-?\d+) remains$")


def skips(lines):
    """What was skipped: system, number, reason, remaining."""
    return [(match[1], int(match[2]), match[3], int(match[4])) for line in lines if (match := SKIPPED.fullmatch(line))]


def corrected(found):
    """DP-GEN forgets the bad boxes when it says how many remain without bad clusters."""
    boxes = {system: number for system, number, reason, _ in found if reason == "bad box"}
    return [
        (system, number, reason, remaining - (boxes.get(system, 0) if reason == "bad cluster" else 0))
        for system, number, reason, remaining in found
    ]


def test_the_log_lines_are_the_same(both):
    n_exact = n_skipped = 0
    for case in both:
        _, theirs, ours = case
        # of a system without a frame they say so in their words and we in ours
        expected = [line for line in theirs["lines"] if "has no fp task" not in line]
        found = [line for line in ours.lines if " rejected " not in line]
        assert [x for x in found if not SKIPPED.fullmatch(x)] == [x for x in expected if not SKIPPED.fullmatch(x)]
        if all_are_picked(case):
            n_exact += 1
            n_skipped += len(skips(expected))
            assert skips(found) == corrected(skips(expected))
        silent = [int(re.search(r"system (\d+)", line)[1]) for line in theirs["lines"] if "has no fp task" in line]
        assert [f"system {system:03d}: no frame was explored" for system in silent] == [
            line for line in ours.warnings if "no frame" in line
        ]
    assert n_exact > 30
    assert n_skipped > 20


def test_the_same_frames_are_accurate_candidates_and_failed(both):
    n_files = 0
    for _, theirs, ours in both:
        written = {file.name: sorted(file.read_text().splitlines()) for file in ours.folder.glob("*.out")}
        assert written == {name: sorted(lines) for name, lines in theirs["audit"].items()}
        n_files += sum(map(bool, written.values()))
    assert n_files > 200


def test_the_same_frames_are_picked_and_numbered(both):
    """Exactly where nothing is random; else as many, of the candidates, sorted, and numbered in that order."""
    n_random = n_holes = 0
    for case in both:
        _, theirs, ours = case
        tasks = {item["label"]: (item["task"], item["step"]) for item in ours.picked}
        sources = {name: source for name, (source, _) in theirs["tasks"].items()}
        if all_are_picked(case):
            assert list(tasks) == list(sources)
            if not case[0]["model_devi_merge_traj"]:
                assert {name: f"{task}/traj/{step}.lammpstrj" for name, (task, step) in tasks.items()} == sources
        else:
            n_random += 1
            if "fp_skip_bad_box" not in case[0]:
                assert list(tasks) == list(sources)
        for system in {item["system"] for item in ours.picked}:
            mine = [item for item in ours.picked if item["system"] == system]
            frames = [(item["task"], item["step"]) for item in mine]
            assert frames == sorted(frames)
            pool = theirs["audit"].get(f"candidate.shuffled.{system:03d}.out")
            assert pool is None or {f"{task} {step}" for task, step in frames} <= set(pool)
        left_out = {
            (match[1], int(match[2]))
            for line in ours.lines
            if (match := re.match(r"system \d+ rejected (\S+) step (\d+): bad (?:box|cluster)", line))
        }
        assert sum(" rejected " in line for line in ours.lines) == len(left_out)
        # picked and left out, in the order of task and step, are numbered from 0
        together = sorted({*tasks.values(), *left_out})
        for system in {task.split(".")[-2] for task, _ in together}:
            mine = [frame for frame in together if f".{system}." in frame[0]]
            expected = {f"task.{system}.{n:06d}": frame for n, frame in enumerate(mine) if frame not in left_out}
            assert {name: frame for name, frame in tasks.items() if f".{system}." in name} == expected
        if "fp_skip_bad_box" in case[0]:
            n_holes += len(left_out)
            assert all(theirs["bad"][f"{task}/traj/{step}.lammpstrj"] for task, step in left_out)
            assert not any(theirs["bad"][f"{task}/traj/{step}.lammpstrj"] for task, step in tasks.values())
    assert n_random > 15
    assert n_holes > 50


def assert_same_structure(atoms, poscar):
    """The same cell, and positions that differ by lattice vectors at most."""
    lines = poscar.splitlines()
    cell = np.array([line.split() for line in lines[2:5]], dtype=float) * float(lines[1])
    assert lines[7].lower().startswith("c")
    coords = np.array([line.split()[:3] for line in lines[8 : 8 + len(atoms)]], dtype=float)
    np.testing.assert_allclose(atoms.cell.array, cell, atol=1e-8)
    shift = np.linalg.solve(cell.T, (atoms.positions - coords).T)
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-8)


def test_the_picked_structures_are_the_same(both):
    """The frame we read for a label is the POSCAR that DP-GEN writes for it, from merged and from single files."""
    compared = {True: 0, False: 0}
    for case in both:
        param, theirs, ours = case
        if not all_are_picked(case):
            continue
        for item in ours.picked:
            folder = ours.project.workdir.root / item["task"]
            atoms = ours.project.explorer.frames(folder, [item["step"]], ["Cu"])[item["step"]]
            assert_same_structure(atoms, theirs["tasks"][item["label"]][1])
            compared[param["model_devi_merge_traj"]] += 1
    assert min(compared.values()) > 20


def test_what_dpgen_picked_is_recognised(both):
    """`al run` goes on after DP-GEN's make_fp: each of its labelling tasks is known to be of the frame it is of."""
    known = {True: 0, False: 0}
    for param, theirs, ours in both:
        place = ours.project.workdir.iteration(0)
        ours.folder.rename(ours.folder.with_name("our.fp"))
        (place.root.parent / "dpgen.fp").rename(place.label)
        for link in place.label.glob("task.*/POTCAR"):
            link.unlink()
        try:
            record = Record(ours.project.workdir)
            found = finished.result(ours.project, record, Position(0, 6), 0, "select")
            if found is None:  # without audit files nobody can tell the frames of merged dumps
                assert param["model_devi_merge_traj"] and not param.get("detailed_report_make_fp", True)
                continue
            picked = json.loads(place.picked.read_text())
            assert [item["label"] for item in picked] == sorted(theirs["tasks"])
            for item in picked:
                (atoms,) = ours.project.explorer.frames(
                    ours.project.workdir.root / item["task"], [item["step"]], ["Cu"]
                ).values()
                assert_same_structure(atoms, theirs["tasks"][item["label"]][1])
                known[param["model_devi_merge_traj"]] += 1
            if theirs["audit"]:
                assert [found[kind] for kind in ("accurate", "candidate", "failed")] == [
                    sum(len(lines) for name, lines in theirs["audit"].items() if name.startswith(start))
                    for start in ("rest_accurate", "candidate", "rest_failed")
                ]
        finally:
            place.label.rename(place.root.parent / "dpgen.fp")
            ours.folder.with_name("our.fp").rename(ours.folder)
    assert min(known.values()) > 30
