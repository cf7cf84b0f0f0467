"""Whole runs on real engines: DeePMD, LAMMPS and a labeler; what comes out is checked with other means."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import dpdata
import numpy as np
import pytest
from ase import units

from activelearn.data import dataset
from activelearn.label.values import parse
from tests import driver
from tests.conftest import BIN, Project, machine
from tests.systems import alloy, copper, labelled, write_data

pytestmark = pytest.mark.engines
EXAMPLES = Path(__file__).parents[1] / "examples"
STANDIN = Path(__file__).parent / "standins" / "vasp_std.py"


def example(name, root, machine_file, **changes):
    """Copy an example and make it small."""
    shutil.copytree(EXAMPLES / name, root)
    param = json.loads((root / "param.json").read_text())
    param["numb_models"] = 2
    param["default_training_param"]["training"].update(numb_steps=200, disp_freq=20, save_freq=100)
    param["default_training_param"]["learning_rate"].update(decay_steps=10)
    param.update(changes)
    (root / "param.json").write_text(json.dumps(param))
    (root / "machine.json").write_text(json.dumps(machine_file))
    return param


def status(root):
    command = [sys.executable, "-m", "activelearn", "status", "--json"]
    return json.loads(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)


def collected(root, *options):
    command = [sys.executable, "-m", "activelearn", "collect", "param.json", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_water_with_tblite(tmp_path):
    """Two iterations: the data set grows, models differ, deviations lie in the trust levels when recomputed."""
    from tblite.ase import TBLite

    root = tmp_path / "run"
    lo, hi = 0.02, 8.0
    jobs = [
        {"sys_idx": [0], "temps": temps, "trj_freq": 10, "nsteps": 60, "ensemble": ensemble, "press": [1.0]}
        for temps, ensemble in (([300], "nvt"), ([200, 300], "npt-tri"))
    ]
    example(
        "water-tblite",
        root,
        machine("LocalContext"),
        model_devi_jobs=jobs,
        model_devi_f_trust_lo=lo,
        model_devi_f_trust_hi=hi,
        fp_task_max=5,
    )
    out = driver.run(root)
    rows = status(root)["rows"]
    assert [row["training_frames"] for row in rows] == [12, 17, 22]
    assert [row["labelled"] for row in rows] == [5, 5, None]
    assert all(len(row["heldout_rmse_f"]) == 2 and min(row["heldout_rmse_f"]) > 0 for row in rows)
    assert rows[0]["explored"] == 2 * 7
    assert rows[1]["explored"] == 4 * 7
    assert "system 000 candidate :" in out
    for iteration in range(2):
        place = root / f"iter.{iteration:06d}"
        contents = {(place / "00.train" / f"graph.{n:03d}.pth").read_bytes() for n in range(2)}
        assert len(contents) == 2
        (data,) = dataset.find(place / "02.fp" / "data.000")
        # the deviations of what was labelled, from the models themselves
        models = [str(place / "00.train" / f"graph.{n:03d}.pth") for n in range(2)]
        output = tmp_path / f"md.{iteration}.out"
        command = [str(BIN / "dp"), "--pt", "model-devi", "-m", *models, "-s", str(data.path), "-o", str(output)]
        subprocess.run(command, check=True, capture_output=True)
        again = np.atleast_2d(np.loadtxt(output))[:, 4]
        assert np.all((lo <= again) & (again < hi))
        picked = json.loads((place / "02.fp" / "picked.json").read_text())
        np.testing.assert_allclose(again, [item["max_devi_f"] for item in picked], rtol=1e-3, atol=1e-5)
        # the labels, from tblite itself
        for number, system in zip(range(data.nframes), frames_of(data), strict=True):
            system.calc = TBLite(method="GFN2-xTB", verbosity=0)
            energy, forces, stress = system.get_potential_energy(), system.get_forces(), system.get_stress(voigt=False)
            assert data.array("energy")[number] == pytest.approx(energy, abs=1e-5)
            np.testing.assert_allclose(data.array("force")[number].reshape(-1, 3), forces, atol=1e-4)
            virial = -stress * system.get_volume()
            np.testing.assert_allclose(data.array("virial")[number].reshape(3, 3), virial, atol=1e-3)
    check_collect(root, 22)


def frames_of(system):
    """The frames of a labelled system as ase.Atoms, from its arrays."""
    names = (system.path / "type_map.raw").read_text().split()
    symbols = [names[int(t)] for t in (system.path / "type.raw").read_text().split()]
    for coords, box in zip(system.array("coord"), system.array("box"), strict=True):
        yield ase.Atoms(symbols, coords.reshape(-1, 3), cell=box.reshape(3, 3), pbc=True)


def check_collect(root, frames):
    for fmt, name in (("deepmd/npy", "npy"), ("deepmd/hdf5", "all.hdf5"), ("extxyz", "all.xyz")):
        assert collected(root, "-o", name, "--format", fmt).startswith(f"{frames} frames")
    assert sum(system.nframes for system in dataset.find(root / "npy")) == frames
    atoms = ase.io.read(root / "all.xyz", ":")
    assert len(atoms) == frames
    npy = dpdata.LabeledSystem(str(dataset.find(root / "npy")[0].path), fmt="deepmd/npy")
    hdf5 = dpdata.MultiSystems().load_systems_from_file(str(root / "all.hdf5"), fmt="deepmd/hdf5")
    np.testing.assert_array_equal(next(iter(hdf5))["energies"], npy["energies"])
    np.testing.assert_allclose([a.get_potential_energy() for a in atoms], npy["energies"], atol=1e-6)
    virials = [-a.get_stress(voigt=False) * a.get_volume() for a in atoms]
    np.testing.assert_allclose(virials, npy["virials"], atol=1e-4)
    assert collected(root, "-o", "new", "--no-initial").split()[0] == str(frames - 12)


def potcar(element):
    return (
        f"  PAW_PBE {element} 01Jan2001\n   3.0\n   TITEL  = PAW_PBE {element} 01Jan2001\n"
        f"   VRHFIN ={element}: s2p1\n   POMASS =   26.98; ZVAL   =    3.000    mass and valenz\n   End of Dataset\n"
    )


@pytest.fixture
def vasp_project(tmp_path, monkeypatch):
    """Aluminium and copper, two compositions in one entry of sys_configs, labelled by the stand-in for VASP."""
    project = Project(tmp_path / "run")
    root = project.root
    write_data((labelled(alloy(n)) for n in range(4)), root / "init" / "alcu")
    alloy(10).write(root / "structures" / "00" / "POSCAR", format="vasp", sort=True)
    copper(11, 0.03).write(root / "structures" / "01" / "POSCAR", format="vasp")
    (root / "potcars").mkdir()
    for element in ("Al", "Cu"):
        (root / "potcars" / element).write_text(potcar(element))
    (root / "INCAR").write_text("PREC = A\nENCUT = 400 ; ISMEAR = 0\nKSPACING = 0.5\nKGAMMA = .TRUE.\nMAGMOM = 0 1.5\n")
    project.param.update(
        type_map=["Al", "Cu"],
        init_data_sys=["cu", "alcu"],
        sys_configs=[["structures/0*/POSCAR"]],
        fp_style="vasp",
        fp_pp_path="potcars",
        fp_pp_files=["Al", "Cu"],
        fp_incar="INCAR",
        fp_task_max=6,
    )
    project.param["default_training_param"]["model"]["descriptor"]["sel"] = [40, 60]
    del project.param["user_fp_params"]
    project.machine = machine(fp=f"ulimit -s unlimited; {sys.executable} {STANDIN}")
    project.machine["fp"]["resources"]["group_size"] = 3
    project.save()
    monkeypatch.setenv("VASP_STANDIN_COUNT", str(tmp_path / "vasp.calls"))
    return project


def test_vasp(vasp_project, tmp_path):
    """Inputs by composition, labels equal to what VASP printed, failed labels told and retried only if it helps."""
    project, root = vasp_project, vasp_project.root
    tasks = [f"task.000.{n:06d}" for n in range(6)]
    how = {tasks[0]: "unconverged", tasks[2]: "crash", tasks[4]: "no-outcar"}
    wrapper = root / "vasp.sh"
    lines = [
        f'[ "$(basename "$PWD")" = {t} ] && export VASP_STANDIN_FAIL={t} VASP_STANDIN_FAIL_HOW={h}'
        for t, h in how.items()
    ]
    wrapper.write_text("\n".join(["#!/bin/bash", *lines, f"exec {sys.executable} {STANDIN}"]) + "\n")
    wrapper.chmod(0o755)
    project.machine["fp"]["command"] = str(wrapper)
    project.save()
    result = subprocess.run(driver.COMMAND, cwd=root, capture_output=True, text=True)
    assert result.returncode == 1
    assert f"{tasks[0]}: not converged: OUTCAR reached NELM" in result.stderr
    assert f"{tasks[2]}: no usable label (exit status 139)" in result.stderr
    assert "more than ratio_failed (5 %)" in result.stderr
    folder = root / "iter.000000" / "02.fp"
    assert sum(system.nframes for system in dataset.find(folder / "data.000")) == 4  # the good ones are kept

    calls = (tmp_path / "vasp.calls").read_text().split()
    wrapper.write_text(f"#!/bin/bash\nexec {sys.executable} {STANDIN}\n")  # the machine is mended
    project.param["ratio_failed"] = 0.2
    project.save()
    driver.run(root)
    more = (tmp_path / "vasp.calls").read_text().split()[len(calls) :]
    assert more == [tasks[2]]  # what did not converge will not converge; what is done is done
    (row, _) = status(root)["rows"]
    assert row["labelled"] == 5
    assert list(row["label_failures"]) == [tasks[0]]

    found = {}
    for system in dataset.find(folder / "data.000"):
        for atoms, energy, force, virial in zip(
            frames_of(system), *(system.array(name) for name in ("energy", "force", "virial")), strict=True
        ):
            found[round(float(energy.item()), 6)] = (atoms, force, virial)
    assert len(found) == 5
    species = set()
    for task in (folder / name for name in tasks[1:]):
        poscar = ase.io.read(task / "POSCAR", format="vasp")
        potcars = [line.split()[3] for line in (task / "POTCAR").read_text().splitlines() if "TITEL" in line]
        assert potcars == list(dict.fromkeys(poscar.get_chemical_symbols()))
        species.add(tuple(potcars))
        text = (task / "INCAR").read_text()
        moments = " ".join(f"{n}*{m}" for n, m in ((4, 0), (4, 1.5))) if len(potcars) == 2 else "8*1.5"
        assert text == (root / "INCAR").read_text().replace("MAGMOM = 0 1.5", f"MAGMOM = {moments}")
        file, fmt = ("OUTCAR", "vasp-out") if (task / "OUTCAR").exists() else ("vasprun.xml", "vasp-xml")
        printed = ase.io.read(task / file, format=fmt)
        energy = printed.get_potential_energy(force_consistent=True)
        atoms, force, virial = found[round(float(energy), 6)]
        assert atoms.get_chemical_symbols() == poscar.get_chemical_symbols()
        np.testing.assert_allclose(atoms.positions, printed.positions, atol=2e-5)
        np.testing.assert_allclose(force.reshape(-1, 3), printed.get_forces(), atol=1e-6)
        expected = -printed.get_stress(voigt=False) * printed.get_volume()
        np.testing.assert_allclose(virial.reshape(3, 3), expected, atol=2e-3)
    assert species == {("Al", "Cu"), ("Cu",)}
    assert (task / "KPOINTS").read_text().split("\n")[2] == "Gamma"


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed (Debian: quantum-espresso)")
def test_silicon_with_quantum_espresso(tmp_path):
    """One iteration; one label does not converge; energies, forces and virials are those pw.x printed."""
    root = tmp_path / "run"
    jobs = [{"sys_idx": [0], "temps": [300], "trj_freq": 20, "nsteps": 40, "ensemble": "nvt"}]
    example(
        "si-pwscf",
        root,
        machine(fp="pw.x -i input"),
        model_devi_jobs=jobs,
        model_devi_f_trust_lo=0.0,
        model_devi_f_trust_hi=50.0,
        fp_task_max=4,
        ratio_failed=0.3,
        dp_compress=True,
    )
    script = root / "pw.sh"  # the second label gets no time to converge
    script.write_text(
        '#!/bin/bash\n[ "$(basename "$PWD")" = task.000.000001 ] && sed -i "s/^conv_thr.*/conv_thr=1e-8\\n'
        'electron_maxstep=2/" input\nexec pw.x -i input\n'
    )
    script.chmod(0o755)
    file = machine(fp=str(script))
    file["fp"]["resources"]["group_size"] = 2
    (root / "machine.json").write_text(json.dumps(file))
    driver.run(root)
    (row, _) = status(root)["rows"]
    assert row["labelled"] == 3
    assert row["label_failures"] == {"task.000.000001": "not converged: pw.x reached electron_maxstep"}
    folder = root / "iter.000000" / "02.fp"
    (data,) = dataset.find(folder / "data.000")
    good = [task for task in sorted(folder.glob("task.*")) if task.name != "task.000.000001"]
    for number, task in enumerate(good):
        text = (task / "output").read_text().splitlines()
        energy = next(float(line.split()[4]) for line in text if line.startswith("!    total energy"))
        assert data.array("energy")[number] == pytest.approx(energy * 13.605693, abs=1e-3)
        forces = [[float(x) for x in line.split()[6:9]] for line in text if "atom" in line and "force =" in line][:8]
        np.testing.assert_allclose(
            data.array("force")[number].reshape(-1, 3), np.array(forces) * 13.605693 / 0.529177, atol=1e-4
        )
        start = next(n for n, line in enumerate(text) if "total   stress" in line)
        kbar = [[float(x) for x in line.split()[3:6]] for line in text[start + 1 : start + 4]]
        volume = abs(np.linalg.det(data.array("box")[number].reshape(3, 3)))
        # pw.x prints the pressure tensor: positive when the cell wants to expand, as the virial
        expected = np.array(kbar) * 0.1 * units.GPa * volume
        np.testing.assert_allclose(data.array("virial")[number].reshape(3, 3), expected, atol=2e-3)
    explored = root / "iter.000000" / "01.model_devi" / "graph.001.pth"
    assert explored.resolve().name == "frozen_model_compressed.pth"


def test_exploding_md_and_diverging_training_do_not_get_into_the_data(project):
    """A training that diverges is no model; frames of a cell that explodes are neither accurate nor labelled."""
    given = project.param["default_training_param"]
    given["learning_rate"].update(start_lr=50.0, stop_lr=1.0)
    project.save()
    result = subprocess.run(driver.COMMAND, cwd=project.root, capture_output=True, text=True)
    assert result.returncode == 1
    assert "training diverged" in result.stderr
    assert "2 model(s) failed" in result.stderr
    assert driver.recorded(project.root) == []
    assert not (project.root / "iter.000000" / "00.train" / "graph.000.pth").exists()

    given["learning_rate"].update(start_lr=0.01, stop_lr=1e-4)  # mended: the models are trained from the start
    given["training"]["numb_steps"] = 61
    project.param["model_devi_f_trust_lo"] = 0.05
    project.param["model_devi_jobs"] = [
        {"sys_idx": [0], "temps": [20000], "trj_freq": 10, "nsteps": 1000, "ensemble": "npt", "press": [-3e5]}
    ]
    project.save()
    out = driver.run(project.root)
    row = status(project.root)["rows"][0]
    assert row["failed"] > 0, out
    place = project.root / "iter.000000"
    exploded = healthy = 0
    kinds = {
        kind: {tuple(line.split()) for line in (place / "02.fp" / f"{kind}.shuffled.000.out").read_text().splitlines()}
        for kind in ("candidate", "rest_accurate", "rest_failed")
    }
    for task in sorted((place / "01.model_devi").glob("task.*")):
        volume = {}
        for line in (task / "log.lammps").read_text().splitlines():
            words = line.split()
            if len(words) == 13 and words[0].isdigit():
                volume[words[0]] = float(words[6])
        name = f"iter.000000/01.model_devi/{task.name}"
        for step in volume:
            if volume[step] > 3 * volume["0"]:
                exploded += 1
                assert (name, step) not in kinds["rest_accurate"] | kinds["candidate"]
            else:
                healthy += 1
    assert exploded > 0
    assert healthy > 0
    for system in dataset.find(place / "02.fp" / "data.000") if (place / "02.fp" / "data.000").exists() else []:
        boxes = system.array("box").reshape(-1, 3, 3)
        assert np.all(np.abs(np.linalg.det(boxes)) < 3.01 * 8 * 3.61**3 / 4)


def test_models_are_carried_over_when_nothing_is_new(project):
    """No candidate: nothing is labelled, the next iteration explores with the same models."""
    project.param["model_devi_f_trust_lo"] = 90.0
    project.param["model_devi_jobs"] = [
        {"sys_idx": [0], "temps": [temperature], "trj_freq": 10, "nsteps": 20, "ensemble": "nve"}
        for temperature in (50, 100)
    ]
    project.param["model_devi_merge_traj"] = False
    project.param["model_devi_nopbc"] = True
    project.param["model_devi_clean_traj"] = 1
    project.save()
    driver.run(project.root)
    rows = status(project.root)["rows"]
    assert [row["labelled"] for row in rows[:2]] == [0, 0]
    assert [(row["explored"], row["died"]) for row in rows[:2]] == [(6, 0), (6, 0)]
    box = ase.io.read(
        project.root / "iter.000001/01.model_devi/task.000.000000/traj/20.lammpstrj", format="lammps-dump-text"
    )
    assert box.cell.lengths().min() > 15  # room around the atoms
    assert [row["carried_over"] for row in rows] == [False, True, True]
    for one, other in itertools.pairwise(range(3)):
        graphs = [project.root / f"iter.{n:06d}" / "00.train" / "graph.001.pth" for n in (one, other)]
        assert graphs[0].resolve() == graphs[1].resolve()
    assert not list((project.root / "iter.000000").rglob("*.lammpstrj"))
    assert len(list((project.root / "iter.000001").rglob("*.lammpstrj"))) == 6


def test_parse_refuses_more_than_one_frame(tmp_path):
    from tests.conftest import SHARED

    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    with pytest.raises(ValueError, match="3 converged frames"):
        parse(str(SHARED / "data" / "vasp" / "vasprun.h2o.md.xml"), "vasp/xml")
