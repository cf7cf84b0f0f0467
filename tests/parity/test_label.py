"""Labels: inputs, file lists and collected data of DP-GEN's own functions beside ours, from the same frames."""

import copy
import os
import shutil
import subprocess
from pathlib import Path

import ase.io
import dpdata
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from activelearn.config.base import keys
from activelearn.config.param import Param
from activelearn.data import dataset, frames
from activelearn.label import LABELERS, incar
from activelearn.label.values import Picked, conditioned
from activelearn.plugins import load
from tests import outputs
from tests.conftest import ONE_THREAD, SHARED, copper_param

FP = Path("iter.000000/02.fp")
PSEUDO = Path("/usr/share/espresso/pseudo")
CP2K_DATA = Path("/usr/share/cp2k")
REFEREE = """
import glob, dpdata
from dpgen.generator import run
result, lists, style = {}, {}, None

def record(iter_index, jdata, mdata, forward, backward, check_fin, log_file="fp.log", forward_common_files=[]):
    lists["forward"], lists["backward"], lists["log"] = list(forward), list(backward), log_file

run.run_fp_inner = record
run.setup_ele_temp(False)
top = os.getcwd()
for name, jdata in args["cases"].items():
    os.chdir(os.path.join(top, name))
    for task in sorted(glob.glob("iter.000000/02.fp/task.*")):
        os.chdir(task)
        dpdata.System("conf.dump", fmt="lammps/dump", type_map=jdata["type_map"]).to_vasp_poscar("POSCAR")
        os.chdir(os.path.join(top, name))
    mdata = {"fp_resources": {}}
    run.make_fp_calculation(0, jdata, mdata)
    run.run_fp(0, jdata, mdata)
    result[name] = dict(lists)
    if name not in args["no_post"]:
        run.post_fp(0, jdata)
os.chdir(top)
"""
KIND = {"_": ["H", "O"], "POTENTIAL": ["GTH-PADE-q1", "GTH-PADE-q6"], "BASIS_SET": ["SZV-MOLOPT-GTH"] * 2}
CP2K = {
    "FORCE_EVAL": {
        "DFT": {
            "BASIS_SET_FILE_NAME": str(CP2K_DATA / "BASIS_MOLOPT"),
            "POTENTIAL_FILE_NAME": str(CP2K_DATA / "GTH_POTENTIALS"),
            "MGRID": {"CUTOFF": 120, "REL_CUTOFF": 30},
            "XC": {"XC_FUNCTIONAL": {"_": "PADE"}},
        },
        "SUBSYS": {"KIND": KIND},
    }
}
TEMPLATE = """\
&FORCE_EVAL
  METHOD QS
  &SUBSYS
    &CELL
      ABC 10.0 10.0 10.0
      PERIODIC XYZ
    &END CELL
    &COORD
      @include coord.xyz
    &END COORD
  &END SUBSYS
  &PRINT
    &FORCES ON
    &END FORCES
  &END PRINT
&END FORCE_EVAL
"""
INCAR = (
    "ENCUT = 400 ! cutoff\nEDIFF = 1E-6; ISMEAR = 1\nSIGMA = 0.2\nKSPACING = 0.35\nKGAMMA = .TRUE.\nNSW = 0\nISIF = 2\n"
)
SHORT_VASP = {
    "ecut": 650,
    "ediff": 1e-6,
    "npar": 8,
    "kpar": 2,
    "kspacing": 0.4,
    "smearing": "mp:2",
    "sigma": 0.1,
    "metagga": "SCAN",
    "user_vasp_params": {"lwave": True, "nelm": 80},
}
NAMELISTS = {
    "control": {"calculation": "scf", "tprnfor": True, "tstress": True, "disk_io": "none"},
    "system": {"ecutwfc": 12, "occupations": "smearing", "smearing": "gauss", "degauss": 0.05, "nat": 99},
    "electrons": {"conv_thr": 1e-7},
    "kspacing": 1.1,
}
ABACUS = {
    "ntype": 2,
    "ecutwfc": 60,
    "scf_thr": 1e-7,
    "basis_type": "lcao",
    "gamma_only": 0,
    "cal_force": 1,
    "cal_stress": True,
    "deepks_scf": 1,
    "deepks_model": "net/model.ptg",
    "kspacing_note": "x",
}
GAUSSIAN = {"keywords": ["force b3lyp/6-31g**", "force m062x/6-31g**"], "nproc": 4, "basis_set": "H 0\n6-31G\n****"}
METAL = {"type_map": ["Al", "Cu"], "mass_map": [26.98, 63.55], "fp_pp_path": "../pp", "fp_pp_files": ["A", "B"]}
WATER = {"type_map": ["H", "O"], "mass_map": [1.008, 15.999], "fp_pp_path": "../pp", "fp_pp_files": []}
CASES = {
    "vasp": {**METAL, "fp_style": "vasp", "fp_incar": "../INCAR"},
    "vasp_user": {**METAL, "fp_style": "vasp", "user_fp_params": {"ENCUT": 300, "KSPACING": 0.5, "KGAMMA": False}},
    "vasp_short": {**METAL, "fp_style": "vasp", "fp_params": SHORT_VASP, "cvasp": True},
    "vasp_aniso": {**METAL, "fp_style": "vasp", "fp_incar": "../INCAR", "fp_aniso_kspacing": [0.2, 0.5, 3.0]},
    "vasp_hot": {
        **METAL,
        "fp_style": "vasp",
        "fp_incar": "../INCAR",
        "use_ele_temp": 1,
        "fp_nbands_esti_data": ["../hot/0", "../hot/1"],
    },
    "pwscf": {**METAL, "fp_style": "pwscf", "fp_pp_files": ["Al.UPF", "B"], "user_fp_params": NAMELISTS},
    "pwscf_short": {
        **METAL,
        "fp_style": "pwscf",
        "fp_params": {"ecut": 60, "ediff": 1e-7, "smearing": "MP:1", "sigma": 0.02, "kspacing": 90},
    },
    "cp2k": {**WATER, "fp_style": "cp2k", "user_fp_params": CP2K},
    "cp2k_default": {**WATER, "fp_style": "cp2k", "fp_params": {"FORCE_EVAL": {"SUBSYS": {"KIND": KIND}}}},
    "cp2k_template": {**WATER, "fp_style": "cp2k", "external_input_path": "../template.inp"},
    "abacus": {
        **METAL,
        "fp_style": "abacus",
        "user_fp_params": ABACUS,
        "fp_orb_files": ["A.orb", "B.orb"],
        "fp_dpks_descriptor": "jle.orb",
        "k_points": [2, 2, 1, 0, 0, 0],
    },
    "abacus_file": {**METAL, "fp_style": "abacus", "fp_incar": "../INPUT"},
    "gaussian": {**WATER, "fp_style": "gaussian", "fp_params": GAUSSIAN},
    "gaussian_guess": {
        **WATER,
        "fp_style": "gaussian",
        "fp_params": {"keywords": "force b3lyp/6-31g**", "nproc": 2, "fragment_guesses": True},
    },
    "custom": {
        **METAL,
        "fp_style": "custom",
        "fp_params": {
            "input_fmt": "vasp/poscar",
            "input_fn": "start.vasp",
            "output_fmt": "deepmd/npy",
            "output_fn": "answer",
        },
    },
}
COLLECTED = ("pwscf", "cp2k", "abacus", "gaussian", "custom")
NEUTRAL = {"model_devi_clean_traj": False, "fp_task_max": 9, "fp_task_min": 1, "model_devi_jobs": [{}]}
TEMPERATURE = {"task.000.000000": 5000.0, "task.000.000001": 12000.0, "task.001.000000": 25000.0}


def metal_frames():
    rng = np.random.default_rng(3)
    cell = np.array([[4.1, 0, 0], [0.2, 4.0, 0], [-0.3, 0.1, 4.3]])
    places = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) + 0.2  # inside the cell
    found = {}
    for name, symbols in zip(
        TEMPERATURE, (["Cu", "Al", "Al", "Cu"], ["Al", "Cu", "Al", "Cu"], ["Al"] * 4), strict=True
    ):
        atoms = Atoms(symbols, cell=cell, pbc=True, scaled_positions=places)
        atoms.positions += rng.normal(scale=0.05, size=(4, 3))
        found[name] = atoms
    return found


def water_frames():
    """One water molecule; two radicals (OH and H); one water molecule turned round, with O2."""
    box = np.diag([6.0, 6.5, 7.0])
    one, two = molecule("H2O"), molecule("H2O")
    two.rotate(40, "z")
    radicals = molecule("OH") + Atoms("H", [[0.4, 3.1, 2.9]])
    third = two + Atoms("O2", [[3.4, 3.0, 3.0], [3.4, 3.0, 4.21]])
    found = {}
    for name, atoms in zip(TEMPERATURE, (one, radicals, third), strict=True):
        atoms.set_cell(box)
        atoms.set_pbc(True)
        atoms.translate([1.2, 1.4, 1.3])
        found[name] = atoms
    return found


def write_dump(file, atoms, type_map):
    (ax, _, _), (bx, by, _), (cx, cy, cz) = atoms.cell.array
    low = min(0, bx, cx, bx + cx), min(0, cy), 0
    high = ax + max(0, bx, cx, bx + cx), by + max(0, cy), cz
    lines = ["ITEM: TIMESTEP", "10", "ITEM: NUMBER OF ATOMS", str(len(atoms)), "ITEM: BOX BOUNDS xy xz yz pp pp pp"]
    lines += [f"{lo:.10f} {hi:.10f} {tilt:.10f}" for lo, hi, tilt in zip(low, high, (bx, cx, cy), strict=True)]
    lines.append("ITEM: ATOMS id type x y z fx fy fz")
    for n, (name, place) in enumerate(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True), 1):
        lines.append(f"{n} {type_map.index(name) + 1} " + " ".join(f"{x:.10f}" for x in place) + " 0 0 0")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


class Tree:
    """What both engines wrote: `dpgen/CASE/iter...` and `ours/CASE/iter...`; DP-GEN's file lists; our batches."""

    def __init__(self, root):
        self.dpgen, self.ours, self.lists, self.batches, self.labelers = root / "dpgen", root / "ours", {}, {}, {}

    def tasks(self, case):
        """Pairs of task folders, DP-GEN's and ours."""
        return [(self.dpgen / case / FP / task, self.ours / case / FP / task) for task in TEMPERATURE]


def shared_files(folder):
    pp = folder / "pp"
    pp.mkdir(parents=True)
    for name, element, electrons in (("A", "Al", 3), ("B", "Cu", 11)):
        title = f"PAW_PBE {element} 04Jan2001"
        text = f"  {title}\n {electrons}.00000000000000\n   TITEL  = {title}\n end\n"
        (pp / name).write_text(text)
    for name in ("A.orb", "B.orb", "jle.orb", "model.ptg"):
        (pp / name).write_text(name)
    (pp / "Al.UPF").write_bytes((PSEUDO / "Al.pz-vbc.UPF").read_bytes() if PSEUDO.is_dir() else b"")
    (folder / "INCAR").write_text(INCAR)
    (folder / "template.inp").write_text(TEMPLATE)
    (folder / "INPUT").write_text("INPUT_PARAMETERS\n# mine\necutwfc 50 # Ry\ncal_force 1\ncal_stress 0\nnspin 2\n")
    for n, (sigma, bands) in enumerate(((0.5, 60), (1.0, 90))):
        known = folder / "hot" / str(n)
        known.mkdir(parents=True)
        atoms = next(iter(metal_frames().values()))
        ase.io.write(known / "POSCAR", atoms[atoms.numbers.argsort()], format="vasp")
        (known / "POTCAR").write_text((pp / "A").read_text() + (pp / "B").read_text())
        (known / "INCAR").write_text(f"SIGMA = {sigma}\nNBANDS = {bands}\n")


def write_outputs(task, style, atoms, labeler):
    """Put a finished calculation into our task folder."""
    rng = np.random.default_rng(len(atoms))
    forces = rng.normal(size=(len(atoms), 3)).round(6)
    if style == "gaussian":
        (task / "output").write_text(outputs.gaussian_log(atoms, -76.4089533236, forces))
    elif style == "abacus":
        (task / "OUT.ABACUS").mkdir()
        log = outputs.abacus_log(atoms, -233.35, forces, rng.normal(size=(3, 3)).round(6))
        (task / "OUT.ABACUS" / "running_scf.log").write_text(log)
    elif style == "custom":
        symbols = sorted(set(atoms.get_chemical_symbols()))
        types = np.array([symbols.index(s) for s in atoms.get_chemical_symbols()])
        data = {
            "atom_names": symbols,
            "atom_numbs": [int((types == n).sum()) for n in range(len(symbols))],
            "atom_types": types,
            "orig": np.zeros(3),
            "cells": atoms.cell.array[None],
            "coords": atoms.positions[None],
            "energies": np.array([-1.5]),
            "forces": forces[None],
            "virials": rng.normal(size=(1, 3, 3)),
        }
        dpdata.LabeledSystem(data=data).to("deepmd/npy", str(task / "answer"))


def really_run(task, style):
    """Run the engine on our input; whether it is here and the frame is one it can do quickly."""
    program, arguments = {"pwscf": ("pw.x", ["-in", "input"]), "cp2k": ("cp2k", ["input.inp"])}[style]
    if shutil.which(program) is None or (style == "pwscf" and not PSEUDO.is_dir()):
        return
    with (task / "output").open("w") as out:
        subprocess.run(
            [program, *arguments], cwd=task, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD}
        )


REAL = {"pwscf": "task.001.000000", "cp2k": "task.000.000000"}
"""The frame each engine on this machine labels for real."""


@pytest.fixture(scope="module")
def tree(dpgen, tmp_path_factory):
    root = tmp_path_factory.mktemp("label")
    tree = Tree(root)
    for folder in (tree.dpgen, tree.ours):
        shared_files(folder)
    no_post = [name for name in CASES if name not in COLLECTED]
    for name, given in CASES.items():
        atoms = metal_frames() if given["type_map"] == METAL["type_map"] else water_frames()
        picked = []
        for task, frame in atoms.items():
            there = tree.dpgen / name / FP / task
            write_dump(there / "traj" / "10.lammpstrj", frame, given["type_map"])
            (there / "conf.dump").symlink_to("traj/10.lammpstrj")
            if "use_ele_temp" in given:
                (there / "job.json").write_text(f'{{"ele_temp": {TEMPERATURE[task]}}}')
            held = {"electron_temperature": TEMPERATURE[task]}
            seen = frames.read(there, [10], given["type_map"])[10]
            picked.append(Picked(task, int(task.split(".")[1]), seen, held))
        engine = load(LABELERS, "", given["fp_style"])
        mine = {key: value for key, value in given.items() if key in keys(engine.Settings)}
        shared = {**copper_param(), **{key: value for key, value in given.items() if key in keys(Param)}}
        param = Param(**{key: value for key, value in shared.items() if key in keys(Param)})
        here = tree.ours / name
        here.mkdir()
        labeler = engine(engine.Settings(**copy.deepcopy(mine)), param, here)
        tree.labelers[name] = labeler
        tree.batches[name] = labeler.batch(here / FP, picked)
        for item in picked if name in COLLECTED else ():
            ours, theirs = here / FP / item.task, tree.dpgen / name / FP / item.task
            if name not in REAL:
                write_outputs(ours, name, ase_order(ours, labeler, item), labeler)
            elif item.task == REAL[name]:
                really_run(ours, name)
            for made in ("output", "OUT.ABACUS", "answer"):
                if (ours / made).is_dir():
                    shutil.copytree(ours / made, theirs / made)
                elif (ours / made).exists():
                    shutil.copyfile(ours / made, theirs / made)
    cases = {name: {**NEUTRAL, "ratio_failed": 1, **given} for name, given in CASES.items()}
    tree.lists = dpgen(tree.dpgen, REFEREE, cases=cases, no_post=no_post)
    return tree


def ase_order(_task, labeler, item):
    """The atoms as they stand in our input."""
    from activelearn.label.values import in_type_map_order

    return in_type_map_order(item.atoms, labeler.type_map)


class Number(float):
    """A number of an input file: two are equal if they agree in the six decimals DP-GEN writes."""

    def __eq__(self, other):
        return isinstance(other, float) and abs(self - other) <= 1.1e-6 + 1e-7 * abs(other)

    def __hash__(self):
        return 0

    def __repr__(self):
        return f"{float(self):.4f}"


def words(text):
    """Words of a text, numbers as numbers."""
    found = []
    for word in text.replace("=", " = ").replace(",", " ").split():
        try:
            found.append(Number(word.lower().replace("d", "e")))
        except ValueError:
            found.append(word)
    return found


def mesh(file):
    """Scheme (its first letter is what VASP looks at), numbers and shifts (0 where none is given) of a KPOINTS file."""
    lines = file.read_text().splitlines()
    assert int(lines[1]) == 0
    shift = [float(word) for word in lines[4].split()] if len(lines) > 4 and lines[4].split() else [0.0] * 3
    return lines[2].strip()[0].upper(), [int(word) for word in lines[3].split()], shift


def poscar(file):
    atoms = ase.io.read(file, format="vasp")
    return atoms.get_chemical_symbols(), atoms.cell.array, atoms.positions


VASP = [name for name in CASES if name.startswith("vasp")]


@pytest.mark.parametrize("case", VASP)
def test_vasp_inputs(tree, case):
    for theirs, ours in tree.tasks(case):
        for one, other in zip(poscar(theirs / "POSCAR"), poscar(ours / "POSCAR"), strict=True):
            if isinstance(one, list):
                assert one == other
            else:
                np.testing.assert_allclose(one, other, atol=1e-8)
        old, new = (incar.tags((folder / "INCAR").read_text()) for folder in (theirs, ours))
        assert {key: truth(words(value)) for key, value in old.items()} == {
            key: truth(words(value)) for key, value in new.items()
        }
        assert mesh(theirs / "KPOINTS") == mesh(ours / "KPOINTS")


def truth(found):
    """Truth values of an INCAR in one spelling."""
    return [{"T": True, "F": False}.get(str(w).strip(".")[:1].upper(), w) if is_truth(w) else w for w in found]


def is_truth(word):
    return str(word).strip(".").lower() in ("t", "f", "true", "false")


def test_potcar_of_one_composition_and_of_several(tree):
    for theirs, ours in tree.tasks("vasp")[:2]:  # system 0 has one composition: as DP-GEN
        assert (theirs / "POTCAR").read_text() == (ours / "POTCAR").read_text()
    pure = tree.ours / "vasp" / FP / "task.001.000000" / "POTCAR"
    assert pure.read_text() == (tree.ours / "pp" / "A").read_text()


def test_electron_temperature_goes_into_the_incar(tree):
    for (_, ours), temperature in zip(tree.tasks("vasp_hot"), TEMPERATURE.values(), strict=True):
        tags = incar.tags((ours / "INCAR").read_text())
        assert tags["ISMEAR"] == "-1"
        assert float(tags["SIGMA"]) == pytest.approx(8.617333262e-5 * temperature, rel=1e-9)
        assert int(tags["NBANDS"]) > 20


def namelists(text):
    """Variables by namelist, and the words of each card."""
    head, mark, tail = text.partition("ATOMIC_SPECIES")
    found, name, cards = {}, "", {}
    for line in (mark + tail).splitlines():
        row = words(line.replace("{", " ").replace("}", " "))
        if row and isinstance(row[0], str) and row[0].isupper() and "_" in row[0]:
            name = row.pop(0)
            cards[name] = []
        if row:
            cards[name].append(row)
    for line in head.splitlines():
        line = line.strip().rstrip(",")
        if line.startswith("&"):
            name = line[1:].lower()
        elif "=" in line:
            key, value = line.split("=", 1)
            found[name, key.strip()] = words(value.strip().lower())
    return found, cards


@pytest.mark.parametrize("case", ["pwscf", "pwscf_short"])
def test_pwscf_inputs(tree, case):
    for theirs, ours in tree.tasks(case):
        old, new = (namelists((folder / "input").read_text()) for folder in (theirs, ours))
        assert old[0] == new[0]
        assert set(old[1]) == {"ATOMIC_SPECIES", "K_POINTS", "CELL_PARAMETERS", "ATOMIC_POSITIONS"}
        assert old[1] == new[1]


def sections(text):
    """Lines of a CP2K input with the sections they are in, in any order."""
    found, path = [], []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.upper().startswith("&END"):
            path.pop()
        elif line.startswith("&"):
            path.append(" ".join(line.split()))
            found.append("/".join(path))
        elif line:
            found.append("/".join(path) + "/" + str([words(line)]))
    assert not path
    return sorted(found)


@pytest.mark.parametrize("case", ["cp2k", "cp2k_default", "cp2k_template"])
def test_cp2k_inputs(tree, case):
    for theirs, ours in tree.tasks(case):
        assert sections((theirs / "input.inp").read_text()) == sections((ours / "input.inp").read_text())
        assert words((theirs / "coord.xyz").read_text()) == words((ours / "coord.xyz").read_text())


@pytest.mark.parametrize("case", ["gaussian", "gaussian_guess"])
def test_gaussian_inputs(tree, case):
    for theirs, ours in tree.tasks(case):
        old, new = (
            [words(line) for line in (folder / "input").read_text().splitlines() if not line.startswith("%chk")]
            for folder in (theirs, ours)
        )
        assert old == new
        chk = [(folder / "input").read_text().count("%chk=") for folder in (theirs, ours)]
        assert chk[0] == chk[1]


@pytest.mark.parametrize("case", ["abacus", "abacus_file"])
def test_abacus_inputs(tree, case):
    for theirs, ours in tree.tasks(case):
        old, new = (
            {
                line.split()[0]: words(line)[1:]
                for line in (folder / "INPUT").read_text().splitlines()[1:]
                if line.strip()
            }
            for folder in (theirs, ours)
        )
        assert old == new
        assert words((theirs / "KPT").read_text()) == words((ours / "KPT").read_text())
        one, other = (dpdata.System(str(folder / "STRU"), fmt="abacus/stru").data for folder in (theirs, ours))
        for key in ("atom_names", "atom_numbs", "pp_files", "orb_files", "dpks_descriptor"):
            assert one.get(key) == other.get(key), key
        np.testing.assert_allclose(one["coords"], other["coords"], atol=1e-7)
        np.testing.assert_allclose(one["cells"], other["cells"], atol=1e-7)
        links = {file.name: file.read_text() for file in (ours / "pporb").iterdir()}
        assert {file.name: file.read_text() for file in (theirs / "pporb").iterdir()} == links


def test_custom_inputs(tree):
    for theirs, ours in tree.tasks("custom"):
        assert words((theirs / "start.vasp").read_text()) == words((ours / "start.vasp").read_text())


OURS_ONLY = {
    # files DP-GEN forwards for every task and we only where the frame has the element
    "pwscf": {"Al.UPF", "B"},
    "pwscf_short": {"A", "B"},
}


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward_files(tree, case):
    batch, lists = tree.batches[case], tree.lists[case]
    for task in batch.tasks:
        forward = {name.split("/")[0] for name in task.forward}
        expected = set(lists["forward"])
        assert forward <= expected
        assert expected - forward <= OURS_ONLY.get(case, set())
    if case in OURS_ONLY:
        assert {name for task in batch.tasks for name in task.forward} == set(lists["forward"])
    back = {*batch.tasks[0].outputs, batch.log}
    assert set(lists["backward"]) <= back
    assert batch.log == lists["log"]


def loaded(folder):
    """Labelled systems by composition, atoms sorted by element."""
    found = {}
    for system in dataset.find(folder):
        names = (system.path / "type_map.raw").read_text().split()
        symbols = [names[int(t)] for t in (system.path / "type.raw").read_text().split()]
        order = np.argsort(symbols, kind="stable")
        arrays = {"energy": system.array("energy").ravel(), "box": system.array("box")}
        for name in ("coord", "force"):
            arrays[name] = system.array(name).reshape(system.nframes, -1, 3)[:, order]
        if system.has("set.000/virial.npy"):
            arrays["virial"] = system.array("virial")
        key = tuple(sorted(symbols)), (system.path / "nopbc").exists()
        assert key not in found
        found[key] = arrays
    return found


@pytest.mark.parametrize("case", COLLECTED)
def test_collected_data(tree, case):
    if case in REAL and not (tree.ours / case / FP / REAL[case] / "output").exists():
        pytest.skip(f"the engine of {case} is not here")
    labeler = tree.labelers[case]
    compared = 0
    for system in ("000", "001"):
        good = [
            labeler.read(tree.ours / case / FP / task)
            for task in TEMPERATURE
            if task.startswith(f"task.{system}") and (case not in REAL or task == REAL[case])
        ]
        if not good or (case == "gaussian" and system == "000"):
            continue  # DP-GEN appends frames of two compositions there, which dpdata refuses
        mine = tree.ours / case / FP / f"data.{system}"
        dataset.write(good, mine, labeler.type_map)
        old, new = loaded(tree.dpgen / case / FP / f"data.{system}"), loaded(mine)
        assert old.keys() == new.keys()
        for key, arrays in old.items():
            for name, values in arrays.items():
                np.testing.assert_allclose(new[key][name], values, rtol=1e-5, atol=1e-5, err_msg=name)
                compared += 1
            if case != "cp2k":
                assert arrays.keys() == new[key].keys()
    assert compared >= 4
    if case in ("pwscf", "cp2k"):
        assert all("virial" in arrays for arrays in new.values())


COLLECT = """
from dpgen.generator import run
for name, kind in args["kinds"].items():
    run.setup_ele_temp(kind == 2)
    os.chdir(name)
    run.post_fp_vasp(0, {**args["jdata"], "use_ele_temp": kind})
    os.chdir("..")
"""


@pytest.mark.shared
def test_collected_vasp_data(dpgen, tmp_path):
    """Real OUTCARs: one that is good, one that reached NELM, one of several steps of which one converged."""
    given = {"type_map": ["Ge", "C", "H"], "ratio_failed": 1, "fp_style": "vasp"}
    files = dict(zip(TEMPERATURE, ("OUTCAR.Ge.vdw", "OUTCAR.ch4.1step", "OUTCAR.ch4.unconverged"), strict=True))
    kinds = {"frame": 1, "atom": 2}
    for name in kinds:
        for task, file in files.items():
            there = tmp_path / name / FP / task
            there.mkdir(parents=True)
            (there / "OUTCAR").symlink_to(SHARED / "data" / "vasp" / file)
            (there / "job.json").write_text(f'{{"ele_temp": {TEMPERATURE[task]}}}')
    dpgen(tmp_path, COLLECT, kinds=kinds, jdata={**given, "model_devi_jobs": [{}]})
    engine = load(LABELERS, "", "vasp")
    settings = engine.Settings(fp_pp_path=".", fp_pp_files=[], fp_incar="INCAR")
    param = Param(**{k: v for k, v in {**copper_param(), **given, "use_ele_temp": 1}.items() if k in keys(Param)})
    labeler = engine(settings, param, tmp_path)
    for name, kind in kinds.items():
        for system, task in (("000", "task.000.000000"), ("001", "task.001.000000")):
            theirs, mine = tmp_path / name / FP / f"data.{system}", tmp_path / "ours" / name / f"data.{system}"
            label = labeler.read(tmp_path / name / FP / task)
            mine.parent.mkdir(parents=True, exist_ok=True)
            dataset.write([conditioned(label, {"electron_temperature": TEMPERATURE[task]}, kind)], mine, param.type_map)
            one, other = loaded(theirs), loaded(mine)
            assert one.keys() == other.keys()
            for key, arrays in one.items():
                assert arrays.keys() == other[key].keys()
                for array, values in arrays.items():
                    np.testing.assert_array_equal(other[key][array], values, err_msg=array)
            parameter = "fparam" if kind == 1 else "aparam"
            old, new = (dataset.find(folder)[0].array(parameter) for folder in (theirs, mine))
            np.testing.assert_array_equal(old.reshape(len(old), -1), new.reshape(len(new), -1))
            assert (new == TEMPERATURE[task]).all()
        with pytest.raises(ValueError, match="not converged"):
            labeler.read(tmp_path / name / FP / "task.000.000001")
