"""What is written for DeePMD, LAMMPS and the labelers."""

import json
import subprocess
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from activelearn import project as projects
from activelearn.data import frames, structures
from activelearn.explore import lammps_input
from activelearn.explore.lammps_settings import LammpsSettings
from activelearn.explore.values import Exploration, Start
from activelearn.label import LABELERS, incar, values
from activelearn.label.values import Picked
from activelearn.plugins import load
from activelearn.train import data as training_data
from activelearn.train import lcurve
from activelearn.train.deepmd import DeepMD, DeepMDSettings
from activelearn.train.values import TrainingJob
from activelearn.workdir import Workdir
from tests.systems import alloy, copper, labelled, water, write_data


def loaded(project):
    project.save()
    return projects.load(project.root / "param.json", project.root / "machine.json", project.root)[0]


def deck(**changes):
    given = {
        "ensemble": "nvt", "nsteps": 1000, "trj_freq": 10, "timestep": 0.002, "temperature": 300.0, "pressure": None,
        "seed": 7, "tau_t": 0.1, "tau_p": 0.5, "neighbour_delay": None, "electron_temperature": None, "n_beads": None,
    }  # fmt: skip
    conditions = {key: changes.pop(key, value) for key, value in given.items()}
    text = lammps_input.render(
        ["../graph.000.pth", "../graph.001.pth"],
        [63.5, 27.0],
        ["Cu", "Al"],
        lammps_input.Conditions(**conditions),
        LammpsSettings(model_devi_dt=0.002, **changes),
    )
    return [" ".join(line.split()) for line in text.splitlines()]


COUPLING = {
    "npt": "iso", "npt-i": "iso", "npt-iso": "iso", "npt-a": "aniso", "npt-aniso": "aniso", "npt-t": "tri",
    "npt-tri": "tri",
}  # fmt: skip


@pytest.mark.parametrize("ensemble", COUPLING)
def test_npt_decks(ensemble):
    lines = deck(ensemble=ensemble, pressure=100.0)
    coupling = COUPLING[ensemble]
    assert f"fix 1 all npt temp ${{TEMP}} ${{TEMP}} ${{TAU_T}} {coupling} ${{PRES}} ${{PRES}} ${{TAU_P}}" in lines
    assert "variable PRES equal 100.000000" in lines


def test_nvt_and_nve_decks():
    assert "fix 1 all nvt temp ${TEMP} ${TEMP} ${TAU_T}" in deck()
    assert "fix 1 all nve" in deck(ensemble="nve")
    lines = deck()
    for line in (
        "units metal",
        "boundary p p p",
        "pair_style deepmd ../graph.000.pth ../graph.001.pth out_freq ${THERMO_FREQ} out_file model_devi.out",
        "pair_coeff * * Cu Al",
        "mass 2 27.000000",
        "dump 1 all custom ${DUMP_FREQ} all.lammpstrj id type x y z fx fy fz",
        "timestep 0.002000",
        "run ${NSTEPS} upto",
    ):
        assert line in lines


def test_isolated_systems_have_no_boundaries():
    lines = deck(model_devi_nopbc=True, model_devi_merge_traj=False)
    assert "boundary f f f" in lines
    assert any(line.startswith("fix fm all momentum 1 linear 1 1 1") for line in lines)
    assert "dump 1 all custom ${DUMP_FREQ} traj/*.lammpstrj id type x y z fx fy fz" in lines


@given(st.integers(1, 10**6), st.integers(1, 500))
def test_restart_files_fall_on_frames(nsteps, trj_freq):
    interval = lammps_input.restart_interval(nsteps, trj_freq)
    assert interval % trj_freq == 0
    assert interval <= max(trj_freq, 10_000)


def test_md_tasks_nest_structures_temperatures_pressures(project, tmp_path):
    job = project.param["model_devi_jobs"][0]
    job.update(temps=[100, 200], press=[1, 2, 3], ensemble="npt")
    settings = loaded(project)

    def batch(job, folder):
        found = [path for _, files in structures.expand(project.root, "", ["structures/0*/POSCAR"]) for path in files]
        exploration = Exploration(tmp_path / folder, job, (Start(0, tuple(found)),), (), ())
        return settings.explorer.batch(exploration, lambda name: settings.rng(0, "explore", name))

    tasks, runs = batch(settings.param.model_devi_jobs[0], "iter/01.model_devi")
    assert [task.name for task in tasks.tasks] == [f"task.000.{n:06d}" for n in range(12)]
    held = [(run.conditions["temperature"], run.conditions["pressure"]) for run in runs.values()]
    assert held == [(t, p) for _ in range(2) for t in (100, 200) for p in (1, 2, 3)]
    assert (tmp_path / "iter/01.model_devi/task.000.000006/conf.lmp").resolve().name == "000.0001.lmp"

    def seeds(folder):
        text = [file.read_text() for file in sorted((tmp_path / folder).glob("*/input.lammps"))]
        return {
            (structure, line.split()[3]): line.split("create")[1]
            for structure, deck in enumerate(text)
            for line in deck.splitlines()
            if "velocity" in line
        }

    before = list(seeds("iter/01.model_devi").values())
    more = settings.param.model_devi_jobs[0].model_copy(update={"temps": [50.0, 100.0, 200.0]})
    batch(more, "more/01.model_devi")
    after = list(seeds("more/01.model_devi").values())
    assert set(before) <= set(after)  # another temperature changes no other seed
    assert len(set(after)) == len(after) == 18


def test_nvt_ignores_pressures(project):
    settings = loaded(project)
    job = settings.param.model_devi_jobs[0].model_copy(update={"press": [1.0, 2.0], "temps": [1.0, 2.0, 3.0]})
    assert settings.explorer.count(job, 0, 2) == (6, 6 * 11)
    npt = job.model_copy(update={"ensemble": "npt"})
    assert settings.explorer.count(npt, 0, 2) == (12, 12 * 11)


def test_shuffle_permutes_positions(project, tmp_path):
    project.param["shuffle_poscar"] = True
    settings = loaded(project)
    files = (project.root / "structures" / "00" / "POSCAR",)
    atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
    atoms.write(files[0], format="vasp")
    exploration = Exploration(tmp_path / "i" / "e", settings.param.model_devi_jobs[0], (Start(0, files),), (), ())
    settings.explorer.batch(exploration, lambda name: settings.rng(0, "explore", name))
    rows = [line.split() for line in (tmp_path / "i/e/confs/000.0000.lmp").read_text().splitlines()]
    shuffled = np.array([[float(x) for x in row[2:]] for row in rows if len(row) == 5 and row[0].isdigit()])
    original = ase.io.read(files[0]).get_positions(wrap=False)
    assert not np.allclose(shuffled, original, atol=1e-3)
    distances = np.linalg.norm(shuffled[:, None] - original[None], axis=2)
    assert sorted(distances.argmin(axis=1)) == list(range(8))


def test_training_input(project):
    given = project.param["default_training_param"]
    given["model"]["descriptor"] = {"type": "hybrid", "list": [dict(given["model"]["descriptor"]) for _ in range(2)]}
    given["training"]["training_data"]["batch_size"] = "auto:256"
    project.param["init_batch_size"] = [3]
    settings = loaded(project)
    data = training_data.entries(settings.param, Workdir(project.root), 0)
    folder = project.root / "iter.000000" / "00.train"
    job = TrainingJob(folder, tuple(data), (), ((1, 2, 3, 4), (5, 6, 7, 8)))
    batch = settings.trainer.batch(job)
    one, two = (json.loads((folder / f"00{n}" / "input.json").read_text()) for n in (0, 1))
    assert one["model"]["type_map"] == ["Cu"]
    assert [part["seed"] for part in one["model"]["descriptor"]["list"]] == [1, 1]
    assert (one["model"]["fitting_net"]["seed"], one["training"]["seed"]) == (2, 4)
    assert two["training"]["seed"] == 8
    assert one["training"]["training_data"] == {"systems": ["../data.init/cu"], "batch_size": [3]}
    assert (folder / "000" / one["training"]["training_data"]["systems"][0] / "type.raw").exists()
    assert "data.init/cu/set.000/coord.npy" in batch.common


@pytest.mark.parametrize(
    ("backend", "compress", "words"),
    [
        ("tensorflow", False, ['mydp train input.json --restart "$last"', "mydp freeze -o frozen_model.pb"]),
        (
            "pytorch",
            True,
            [
                "mydp --pt train input.json",
                '--restart "$last"',
                "mydp --pt freeze -o frozen_model.pth",
                "mydp --pt compress -i frozen_model.pth -o frozen_model_compressed.pth",
            ],
        ),
    ],
)
def test_training_command(project, backend, compress, words):
    settings = loaded(project)
    trainer = DeepMD(
        DeepMDSettings(train_backend=backend, dp_compress=compress, default_training_param={}), settings.param
    )
    script = trainer.script("mydp", heldout=False)
    for word in words:
        assert word in script
    assert "test" not in script.split("freeze")[1]
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert trainer.graph_name(3) == ("graph.003.pb" if backend == "tensorflow" else "graph.003.pth")


def test_batch_size_auto_is_at_least_32_atoms(project):
    write_data((labelled(copper(n)) for n in range(9)), project.root / "init" / "more")
    project.param["init_data_sys"] = ["cu", "more"]
    settings = loaded(project)
    assert [e.batch_size for e in training_data.entries(settings.param, Workdir(project.root), 0)] == [4, 4]


LCURVE = "#  step rmse_trn rmse_e_trn rmse_f_trn lr\n# NaN means no data\n"


def test_lcurve(tmp_path):
    file = tmp_path / "lcurve.out"
    assert lcurve.last_row(file) == {}
    file.write_text(LCURVE + "1 9 8 7 1e-3\n2 1 0.5 0.25 1e-4\n3 0.1 0.")
    assert lcurve.last_row(file)["rmse_f_trn"] == 0.25
    file.write_text(LCURVE + "1 9 8 7 1e-3\n2 nan nan 0.25 1e-4\n")
    assert lcurve.not_finite(lcurve.last_row(file)) == ["rmse_trn"]
    file.write_text(LCURVE + "1 9 8 7 1e-3\n2 1 nan 0.25 1e-4\n")
    assert lcurve.not_finite(lcurve.last_row(file)) == []  # no energy in the data


TAGS = """\
SYSTEM = a; ENCUT = 600 ! ENCUT = 1
# KSPACING = 9
KSPACING = 0.2
kgamma=.FALSE.
"""


def test_incar():
    assert incar.tags(TAGS) == {"SYSTEM": "a", "ENCUT": "600", "KSPACING": "0.2", "KGAMMA": ".FALSE."}
    assert incar.spacing(incar.tags(TAGS)) == 0.2
    assert incar.gamma(incar.tags(TAGS)) is False
    counts, order = {"O": 6, "Fe": 4}, ["Fe", "O", "H"]
    assert incar.with_magmom("A=1\nMAGMOM = 5 0.6 0\nB=2\n", counts, order) == "A=1\nMAGMOM = 4*5 6*0.6\nB=2\n"
    for verbatim in ("MAGMOM = 4*5 6*0.6\n", "MAGMOM = " + "1 " * 10 + "\n", "#MAGMOM = 1 2 3\n", TAGS):
        assert incar.with_magmom(verbatim, counts, order) == verbatim


def test_kpoints_of_dpgen():
    """al 4.05 A, KSPACING 0.2 -> 8 8 8."""
    assert values.kpoints(np.eye(3) * 4.05, 0.2) == [8, 8, 8]
    assert values.kpoints(np.diag([3.0, 6.0, 60.0]), [0.5, 0.5, 0.5]) == [5, 3, 1]


KINDS = {"_": ["Al", "Cu"], "POTENTIAL": ["GTH-PADE-q3", "GTH-PADE-q11"], "BASIS_SET": ["SZV-MOLOPT-SR-GTH"] * 2}
SETTINGS = {
    "abacus": {"fp_pp_path": "pp", "fp_pp_files": ["A", "B"], "user_fp_params": {"ecutwfc": 20, "kspacing": 0.5}},
    "cp2k": {"user_fp_params": {"FORCE_EVAL": {"SUBSYS": {"KIND": KINDS}}}},
    "custom": {
        "fp_params": {
            "input_fmt": "vasp/poscar",
            "input_fn": "conf.vasp",
            "output_fmt": "ase/structure",
            "output_fn": "x",
        }
    },
    "gaussian": {"fp_params": {"keywords": "force b3lyp/6-31g**", "nproc": 4}},
    "ase": {"user_fp_params": {"calculator": "emt"}},
    "vasp": {"fp_pp_path": "pp", "fp_pp_files": ["A", "B"], "fp_incar": "INCAR"},
    "pwscf": {
        "fp_pp_path": "pp",
        "fp_pp_files": ["A", "B"],
        "user_fp_params": {
            "control": {"disk_io": "none"},
            "system": {"ecutwfc": 20, "nat": 99, "ibrav": 1},
            "electrons": {"mixing_mode": "plain"},
            "kspacing": 0.5,
        },
    },
}


def make_labeler(name, project):
    (project.root / "pp").mkdir(exist_ok=True)
    for file, element in (("A", "Al"), ("B", "Cu")):
        (project.root / "pp" / file).write_text(f" TITEL = PAW {element} x\n<a element='{element}'>")
    (project.root / "INCAR").write_text("KSPACING = 0.5\nKGAMMA = T\n")
    project.param["type_map"] = ["Al", "Cu"]
    param = projects.Param(**{k: v for k, v in project.param.items() if k in projects.keys(projects.Param)})
    labeler = load(LABELERS, "", name)
    return labeler(labeler.Settings(**SETTINGS[name]), param, project.root)


@pytest.mark.parametrize("name", LABELERS)
class TestLabelerContract:
    """What every labeler must do."""

    def frames(self):
        mixed = alloy(3)
        mixed = mixed[np.random.default_rng(0).permutation(len(mixed))]
        return [Picked("task.000.000000", 0, mixed), Picked("task.000.000001", 0, copper(2))]

    def test_one_task_per_frame_with_its_files(self, name, project, tmp_path):
        batch = make_labeler(name, project).batch(tmp_path, self.frames())
        assert [task.name for task in batch.tasks] == ["task.000.000000", "task.000.000001"]
        for task in batch.tasks:
            for file in task.forward:
                assert (tmp_path / task.name / file).is_file(), file
        for file in batch.common:
            assert (tmp_path / file).is_file()
        assert subprocess.run(["bash", "-n"], input=batch.script("x", batch.tasks), text=True).returncode == 0

    def test_preparing_twice_changes_nothing(self, name, project, tmp_path):
        labeler = make_labeler(name, project)
        labeler.batch(tmp_path, self.frames())
        before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
        labeler.batch(tmp_path, self.frames())
        assert {
            file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()
        }.items() <= before.items()

    def test_no_output_is_a_failure(self, name, project, tmp_path):
        batch = make_labeler(name, project).batch(tmp_path, self.frames())
        for code in (0, 1, 127, None):
            verdict = batch.verify(batch.tasks[0], code)
            assert not isinstance(verdict, dict)
            assert verdict.cause

    def test_atoms_are_in_the_order_of_type_map(self, name, project, tmp_path):
        make_labeler(name, project).batch(tmp_path, self.frames())
        names = ("POSCAR", "input", "frame.xyz", "coord.xyz", "STRU", "conf.vasp")
        files = [tmp_path / "task.000.000000" / file for file in names]
        text = "\n".join(file.read_text() for file in files if file.exists())
        assert text.index("Al") < text.index("Cu")
        if name not in ("vasp", "abacus", "custom"):
            symbols = [line.split()[0] for line in text.splitlines() if line.startswith(("Al ", "Cu "))][-8:]
            assert symbols == ["Al"] * 4 + ["Cu"] * 4


def test_pwscf_input_says_what_the_frame_is(project, tmp_path):
    labeler = make_labeler("pwscf", project)
    labeler.batch(tmp_path, [Picked("t", 0, copper(2))])
    text = (tmp_path / "t" / "input").read_text()
    for line in ("ibrav=0", "nat=8", "ntyp=1", "pseudo_dir='./'", "disk_io='none'", "tstress=.true.", "ecutwfc=20"):
        assert line in text.splitlines()
    assert "nat=99" not in text
    assert next(line for line in text.splitlines() if line.startswith("Cu ")).endswith(" B")
    atoms = ase.io.read(tmp_path / "t" / "input", format="espresso-in")
    np.testing.assert_allclose(atoms.positions, copper(2).positions, atol=1e-9)
    np.testing.assert_allclose(atoms.cell.array, copper(2).cell.array, atol=1e-9)


def write_dump(file, steps, atoms, forces=True):
    from ase.calculators.lammps import Prism

    prism = Prism(atoms.cell.array, pbc=True)
    xhi, yhi, zhi, xy, xz, yz = prism.get_lammps_prism()
    lo = (min(0, xy, xz, xy + xz), min(0, yz), 0)
    hi = (xhi + max(0, xy, xz, xy + xz), yhi + max(0, yz), zhi)
    with Path(file).open("a") as out:
        for step in steps:
            out.write(
                f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\nITEM: BOX BOUNDS xy xz yz pp pp pp\n"
            )
            for low, high, tilt in zip(lo, hi, (xy, xz, yz), strict=True):
                out.write(f"{low!r} {high!r} {tilt!r}\n".replace("np.float64(", "").replace(")", ""))
            out.write("ITEM: ATOMS id type x y z fx fy fz\n")
            positions = prism.vector_to_lammps(atoms.positions) + 0.001 * step
            for number, (x, y, z) in enumerate(positions):
                out.write(f"{number + 1} 1 {x:.12f} {y:.12f} {z:.12f} {number} 0 {step}\n")
    return prism.vector_to_lammps(atoms.positions)


@pytest.mark.parametrize("atoms", [copper(1), bulk("Cu", cubic=True), bulk("Cu").repeat((2, 1, 1))], ids=str)
def test_frames_are_found_by_their_step(tmp_path, atoms):
    base = write_dump(tmp_path / "all.lammpstrj", [0, 10, 20, 10, 30], atoms)
    found = frames.read(tmp_path, [10, 30, 99], ["Cu"])
    assert sorted(found) == [10, 30]
    for step, frame in found.items():
        np.testing.assert_allclose(frame.positions, base + 0.001 * step, atol=1e-9)
        np.testing.assert_allclose(frame.cell.volume, atoms.cell.volume)
        assert frame.arrays["model_forces"][1].tolist() == [1, 0, step]
        np.testing.assert_allclose(
            np.sort(frame.get_all_distances(mic=True).ravel()),
            np.sort(atoms.get_all_distances(mic=True).ravel()),
            atol=1e-6,
        )


@given(cut=st.integers(1, 900))
def test_a_torn_trajectory_gives_its_whole_frames(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("t")
    write_dump(folder / "all.lammpstrj", [0, 10, 20], copper(1))
    text = (folder / "all.lammpstrj").read_text()
    (folder / "all.lammpstrj").write_text(text[:-cut])
    ends = [text.rindex(f"ITEM: TIMESTEP\n{step}\n") for step in (10, 20)] + [len(text)]
    whole = sum(end <= len(text) - cut for end in ends)
    assert sorted(frames.read(folder, [0, 10, 20], ["Cu"])) == [0, 10, 20][:whole]


def test_volumes_of_a_restarted_log(tmp_path):
    (tmp_path / "log.lammps").write_text(
        "   Step          Temp          Volume    \n 0 300 100.0\n 10 300 110.0\n 20 300 12\n"
        "LAMMPS (22 Jul 2025)\n   Step          Temp          Volume    \n 20 300 120.0\n 30 300 130.0\n"
        "Loop time of 1\n"
    )
    assert frames.volumes(tmp_path / "log.lammps") == {0: 100.0, 10: 110.0, 20: 120.0, 30: 130.0}
    assert frames.volumes(tmp_path / "none") == {}


def test_isolated_molecule_has_no_virial(tmp_path):
    from activelearn.label import ase_worker

    atoms = Atoms("OH2", water().positions[:3])
    (tmp_path / "t").mkdir()
    ase.io.write(tmp_path / "t" / "frame.xyz", atoms, format="extxyz")
    ase_worker.label(tmp_path / "t", ase_worker.make("emt", {}))
    system = ase_worker.labelled(json.loads((tmp_path / "t" / "label.json").read_text()))
    assert "virials" not in system.data
    assert system.nopbc
