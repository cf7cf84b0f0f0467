"""Labelers: what an engine printed is what the label says, and what did not converge is refused."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dpdata
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from activelearn.config.base import keys
from activelearn.config.machine import Section
from activelearn.config.param import Param
from activelearn.data import dataset
from activelearn.dispatch import batch as batches
from activelearn.dispatch.batch import Site
from activelearn.dispatch.ledger import Digests
from activelearn.label import LABELERS, cp2k, cvasp, ele_temp, fragments, gaussian, incar, params, values
from activelearn.label.values import Picked
from activelearn.plugins import load
from tests import outputs
from tests.conftest import ONE_THREAD, copper_param
from tests.systems import copper, labelled

CP2K_DATA = "/usr/share/cp2k"
KIND = {"_": ["H", "O"], "POTENTIAL": ["GTH-PADE-q1", "GTH-PADE-q6"], "BASIS_SET": ["SZV-MOLOPT-GTH"] * 2}


def make(style, root, type_map=("H", "O"), **given):
    engine = load(LABELERS, "", style)
    raw = {**copper_param(), "type_map": list(type_map), "fp_style": style}
    param = Param(**{key: value for key, value in raw.items() if key in keys(Param)})
    return engine(engine.Settings(**given), param, root)


def cp2k_params(max_scf):
    return {
        "FORCE_EVAL": {
            "DFT": {
                "BASIS_SET_FILE_NAME": f"{CP2K_DATA}/BASIS_MOLOPT",
                "POTENTIAL_FILE_NAME": f"{CP2K_DATA}/GTH_POTENTIALS",
                "MGRID": {"CUTOFF": 120, "REL_CUTOFF": 30},
                "SCF": {"MAX_SCF": max_scf},
                "XC": {"XC_FUNCTIONAL": {"_": "PADE"}},
            },
            "SUBSYS": {"KIND": KIND},
        }
    }


def hydrogen():
    return Atoms("H2", [[0.3, 0.2, 0.1], [1.1, 0.3, 0.15]], cell=[[4.5, 0, 0], [0.3, 4.0, 0], [0, 0.1, 4.2]], pbc=True)


def run_cp2k(root, max_scf=30):
    labeler = make("cp2k", root, user_fp_params=cp2k_params(max_scf))
    batch = labeler.batch(root, [Picked("t", 0, hydrogen())])
    with (root / "t" / "output").open("w") as out:
        code = subprocess.run(["cp2k", "input.inp"], cwd=root / "t", stdout=out, env={**os.environ, **ONE_THREAD})
    return labeler, batch.verify(batch.tasks[0], code.returncode), (root / "t" / "output").read_text()


@pytest.mark.skipif(shutil.which("cp2k") is None or not os.path.isdir(CP2K_DATA), reason="cp2k is not installed")
class TestCp2k:
    def test_label_is_what_cp2k_printed(self, tmp_path):
        labeler, facts, text = run_cp2k(tmp_path)
        label = labeler.read(tmp_path / "t")
        energy = float(re.search(r"ENERGY\|.*?(-\d+\.\d+)\s*$", text, re.M).group(1)) * outputs.HARTREE
        assert label["energies"][0] == pytest.approx(energy, abs=1e-5)
        rows = text[text.index("ATOMIC FORCES in") :].splitlines()
        printed = [[float(x) for x in row.split()[3:6]] for row in rows if re.match(r"\s+\d+\s+1\s+H\s", row)]
        np.testing.assert_allclose(label["forces"][0], np.array(printed) * outputs.HARTREE / outputs.BOHR, atol=1e-5)
        table = text[text.index("STRESS| Analytical stress tensor [GPa]") :].splitlines()[2:5]
        gpa = np.array([[float(x) for x in row.split()[2:]] for row in table])
        np.testing.assert_allclose(label["virials"][0], gpa / 160.21766 * hydrogen().cell.volume, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(label["coords"][0], hydrogen().positions, atol=1e-5)
        np.testing.assert_allclose(label["cells"][0], hydrogen().cell.array, atol=1e-3)
        assert facts["virial"] is True

    def test_unconverged_is_refused(self, tmp_path):
        _, failure, text = run_cp2k(tmp_path, max_scf=2)
        assert "NOT converged" in text
        assert "not converged" in failure.cause


STRESS = " STRESS| Analytical stress tensor [{unit}]\n STRESS|   x   y   z\n" + "".join(
    f" STRESS|   {axis}   {n}.0E+00  -2.5E-01   {n}.5E+00\n" for n, axis in enumerate("xyz", 1)
)
OLD_STRESS = (
    " STRESS TENSOR [GPa]\n\n            X               Y               Z\n"
    "  X  1.0  2.0  3.0\n  Y  4.0  5.0  6.0\n  Z  7.0  8.0  9.0\n\n"
)


def test_stress_of_all_versions_of_cp2k():
    expected = np.array([[n, -0.25, n + 0.5] for n in (1, 2, 3)])
    np.testing.assert_allclose(cp2k.stress(STRESS.format(unit="GPa")), expected)
    np.testing.assert_allclose(cp2k.stress(STRESS.format(unit="bar")), expected * 1e-4)
    np.testing.assert_allclose(cp2k.stress(OLD_STRESS), np.arange(1, 10).reshape(3, 3))
    assert cp2k.stress(" STRESS| Eigenvectors and eigenvalues of the analytical stress tensor [GPa]\n a\n b\n") is None
    assert cp2k.stress("no stress") is None


def numbers(atoms, seed=0):
    return np.random.default_rng(seed).normal(size=(len(atoms), 3)).round(8)


def test_gaussian_log_gives_what_is_printed_in_it(tmp_path):
    labeler = make("gaussian", tmp_path, fp_params={"keywords": "force b3lyp/6-31g**", "nproc": 1})
    water = values.in_type_map_order(molecule("H2O"), ["H", "O"])
    batch = labeler.batch(tmp_path, [Picked("t", 0, water)])
    forces = numbers(water)
    (tmp_path / "t" / "output").write_text(outputs.gaussian_log(water, -76.4, forces))
    assert batch.verify(batch.tasks[0], 0)["virial"] is False
    label = labeler.read(tmp_path / "t")
    assert label["energies"][0] == pytest.approx(-76.4 * outputs.HARTREE, abs=1e-5)
    np.testing.assert_allclose(label["forces"][0], forces * outputs.HARTREE / outputs.BOHR, rtol=1e-6)
    assert label.nopbc
    (system,) = dataset.write([label], tmp_path / "data", ["H", "O"])
    assert not system.has("set.000/virial.npy")
    for text, words in (
        (outputs.gaussian_log(water, -76.4, forces, converged=False), "not converged"),
        (outputs.gaussian_log(water, -76.4, forces).replace("Normal termination", "Error termination"), "before its"),
        (outputs.gaussian_log(molecule("CO"), -1, forces[:2]), "the label is of"),
        ("", "not written"),
    ):
        (tmp_path / "t" / "output").write_text(text)
        assert words in batch.verify(batch.tasks[0], 0).cause


def test_abacus_log_gives_what_is_printed_in_it(tmp_path):
    for name in ("H.upf", "O.upf"):
        (tmp_path / name).write_text("x")
    labeler = make(
        "abacus",
        tmp_path,
        fp_pp_path=".",
        fp_pp_files=["H.upf", "O.upf"],
        user_fp_params={"ecutwfc": 50, "kspacing": [0.2, 0.2, 0.3], "suffix": "mine"},
    )
    water = molecule("H2O", cell=[6.0, 6.5, 7.0], pbc=True)
    batch = labeler.batch(tmp_path, [Picked("t", 0, water)])
    water = values.in_type_map_order(water, ["H", "O"])
    assert batch.tasks[0].forward == ("INPUT", "STRU", "pporb/H.upf", "pporb/O.upf")
    assert "kspacing 0.2 0.2 0.3\n" in (tmp_path / "t" / "INPUT").read_text()
    folder = tmp_path / "t" / "OUT.mine"
    folder.mkdir()
    forces, stress = numbers(water), numbers(water[:3], 1)
    (folder / "running_scf.log").write_text(outputs.abacus_log(water, -466.12345678, forces, stress))
    assert batch.verify(batch.tasks[0], 0)["virial"] is True
    label = labeler.read(tmp_path / "t")
    assert label["energies"][0] == pytest.approx(-466.12345678)
    np.testing.assert_allclose(label["forces"][0], forces, atol=1e-9)
    np.testing.assert_allclose(label["virials"][0], stress / 1602.1766208 * water.cell.volume, rtol=1e-6)
    np.testing.assert_allclose(label["coords"][0], water.positions, atol=1e-8)
    for text, words in (
        (outputs.abacus_log(water, 1, forces, stress, converged=False), "not converged"),
        (" final etot is -3 eV\n", "forces are missing"),
        ("", "not written"),
    ):
        (folder / "running_scf.log").write_text(text)
        assert words in batch.verify(batch.tasks[0], 0).cause


STANDIN = """\
import os, sys
sys.path.insert(0, {root!r})
import dpdata
from tests import outputs
from activelearn.data.structures import to_atoms
for name in ("H.upf", "O.upf", "model.ptg"):
    assert os.path.isfile("pporb/" + name), name
atoms = to_atoms(dpdata.System("STRU", fmt="abacus/stru"))
os.makedirs("OUT.ABACUS")
log = outputs.abacus_log(atoms, -1.5, [[0.1, 0, 0]] * len(atoms), [[1, 0, 0]] * 3)
open("OUT.ABACUS/running_scf.log", "w").write(log)
print("done")
"""


@pytest.mark.parametrize("context", ["LazyLocalContext", "LocalContext"])
def test_abacus_runs_where_its_folders_are_brought_to(tmp_path, context):
    """Files below pporb/ go out, the folder OUT.ABACUS comes back."""
    for name in ("H.upf", "O.upf", "model.ptg"):
        (tmp_path / name).write_bytes(b"\xff\x00" + name.encode())
    given = {"ecutwfc": 50, "kspacing": 0.3, "deepks_model": "model.ptg"}
    labeler = make("abacus", tmp_path, fp_pp_path=".", fp_pp_files=["H.upf", "O.upf"], user_fp_params=given)
    water = molecule("H2O", cell=[6.0, 6.5, 7.0], pbc=True)
    batch = labeler.batch(tmp_path / "iter.000000" / "02.fp", [Picked("task.000.000000", 0, water)])
    (tmp_path / "standin.py").write_text(STANDIN.format(root=str(Path(__file__).parents[1])))
    machine = {"batch_type": "Shell", "context_type": context, "remote_root": "./work"}
    resources = {"number_node": 1, "cpu_per_node": 1, "gpu_per_node": 0, "queue_name": "", "group_size": 1}
    section = Section(f"{sys.executable} {tmp_path}/standin.py", machine, resources)
    outcome = batches.run(batch, Site(tmp_path, section, None, Digests()))
    assert outcome.failed == {}
    assert outcome.done["task.000.000000"]["energy"] == pytest.approx(-1.5)


def test_custom_takes_any_format_of_dpdata(tmp_path):
    formats = {"input_fmt": "vasp/poscar", "input_fn": "in", "output_fmt": "deepmd/npy", "output_fn": "out"}
    labeler = make("custom", tmp_path, ("Cu",), fp_params=formats)
    batch = labeler.batch(tmp_path, [Picked("t", 0, copper(1))])
    assert (batch.tasks[0].forward, batch.tasks[0].outputs) == (("in",), ("out",))
    assert "not written" in batch.verify(batch.tasks[0], 0).cause
    label = labelled(copper(1))
    label.to("deepmd/npy", str(tmp_path / "t" / "out"))
    assert batch.verify(batch.tasks[0], 0)["virial"] is True
    np.testing.assert_allclose(labeler.read(tmp_path / "t")["forces"], label["forces"], rtol=1e-5)


def apart(*parts):
    whole = parts[0].copy()
    for n, part in enumerate(parts[1:], 1):
        moved = part.copy()
        moved.translate([0, 0, 6.0 * n])
        whole += moved
    return whole


def test_molecules_and_their_spins():
    frame = apart(molecule("H2O"), molecule("CH3"), molecule("O2"))
    owner = fragments.fragments(frame)
    assert owner.tolist() == [0] * 3 + [1] * 4 + [2] * 2
    assert fragments.multiplicities(frame, owner) == [1, 2, 3]
    shared_hydrogen = Atoms("OHO", [[0, 0, 0], [0, 0, 1.0], [0, 0, 2.1]])
    assert len(set(fragments.fragments(shared_hydrogen))) == 2


@pytest.mark.parametrize(
    ("parts", "high"), [(["CH3", "CH3"], True), (["CH3"], False), (["O2"], True), (["H2O", "H2O"], False)]
)
def test_other_keywords_for_two_unpaired_electrons(parts, high):
    given = {"keywords": "force a", "keywords_high_multiplicity": "force b", "nproc": 1}
    deck = gaussian.text(gaussian.GaussianParams(**given), apart(*map(molecule, parts)))
    assert ("#force b" in deck) is high


def test_short_incar_of_old_files():
    short = params.ShortVasp(ecut=400, ediff=1e-5, npar=2, kpar=1, kspacing=0.3, smearing="gauss", metagga="NONE")
    tags = incar.tags(params.text(short.tags()))
    assert (tags["ENCUT"], tags["ISMEAR"], tags["KGAMMA"], tags["NSW"]) == ("400", "0", "F", "0")
    assert "METAGGA" not in tags
    with pytest.raises(ValueError, match="gauss"):
        params.ShortVasp(ecut=400, ediff=1e-5, npar=2, kpar=1, kspacing=0.3, smearing="cold")


def test_tags_are_replaced_wherever_they_stand():
    text = "ISMEAR = 1 ; SIGMA = 0.2 # ISMEAR\nENCUT=4; sigma=3 ! x\n# SIGMA = 9\n"
    new = incar.with_tags(text, {"ISMEAR": "-1", "SIGMA": "0.4"})
    assert incar.tags(new) == {"ENCUT": "4", "ISMEAR": "-1", "SIGMA": "0.4"}
    assert "# SIGMA = 9" in new


def test_bands_from_a_file(tmp_path):
    (tmp_path / "bands").write_text("2e-8\n1e-9\n")
    bands = ele_temp.bands(tmp_path / "bands")
    assert bands.estimate(10000.0, 100.0, 20.0) == int(2.05e-8 * 1e6 * 100 + 20) + 1
    (tmp_path / "bands").write_text("2e-8\n")
    with pytest.raises(ValueError, match="two numbers"):
        ele_temp.bands(tmp_path / "bands")


@pytest.mark.parametrize(("kind", "name", "shape"), [(1, "fparam", (2, 1)), (2, "aparam", (2, 8))])
def test_electron_temperature_goes_into_the_data(tmp_path, kind, name, shape):
    held = ({"electron_temperature": 4000.0}, {"electron_temperature": 9000.0, "temperature": 1.0})
    frames = [values.conditioned(labelled(copper(n)), conditions, kind) for n, conditions in enumerate(held)]
    (system,) = dataset.write(frames, tmp_path / "data", ["Cu"])
    found = system.array(name).reshape(shape)
    assert (found[0] == 4000).all()
    assert (found[1] == 9000).all()
    again = dpdata.LabeledSystem(str(system.path), fmt="deepmd/npy")
    assert name in again.data
    bare = dataset.write([values.conditioned(labelled(copper(3)), {}, kind)], tmp_path / "bare", ["Cu"])[0]
    assert not list(bare.path.glob(f"set.*/{name}.npy"))


def test_custodian_is_called_with_the_users_command(tmp_path, monkeypatch):
    package = tmp_path / "custodian" / "vasp"
    package.mkdir(parents=True)
    body = "class Custodian:\n    def __init__(self, handlers, jobs, validators, max_errors):\n"
    body += "        self.said = (len(handlers), jobs[0].cmd, len(validators), max_errors)\n"
    body += "    def run(self):\n        open('said', 'w').write(repr(self.said))\n"
    (tmp_path / "custodian" / "__init__.py").write_text(body)
    (package / "__init__.py").write_text("")
    for file, names in (("handlers", cvasp.HANDLERS), ("validators", cvasp.VALIDATORS)):
        (package / f"{file}.py").write_text("".join(f"class {name}: pass\n" for name in names))
    (package / "jobs.py").write_text("class VaspJob:\n    def __init__(self, cmd, **_):\n        self.cmd = cmd\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    labeler = make("vasp", tmp_path, ("Cu",), fp_pp_path=".", fp_pp_files=["P"], cvasp=True, user_fp_params=MINIMAL)
    (tmp_path / "P").write_text("TITEL = PAW Cu x\n")
    batch = labeler.batch(tmp_path / "fp", [Picked("t", 0, copper(1))])
    assert "cvasp.py" in batch.tasks[0].forward
    run = ["python", "cvasp.py", "mpirun -np 4 vasp_std", "5"]
    assert subprocess.run(run, cwd=tmp_path / "fp" / "t", env=environment).returncode == 0
    said = (tmp_path / "fp" / "t" / "said").read_text()
    assert said == repr((7, ["mpirun", "-np", "4", "vasp_std"], 2, 5))


MINIMAL = {"KSPACING": 0.5, "KGAMMA": True}


@pytest.mark.parametrize(("given", "expected"), [({}, 1), ({"CHARGE": 1}, 2), ({"CHARGE": 1, "MULTIPLICITY": 4}, 4)])
def test_cp2k_multiplicity_follows_electrons_and_charge(given, expected):
    deck = cp2k.cp2k_input.text({"FORCE_EVAL": {"DFT": given}}, hydrogen())
    assert f"MULTIPLICITY {expected}" in [line.strip() for line in deck.splitlines()]


def test_cp2k_odd_electrons_without_spin_are_a_warning(tmp_path):
    labeler = make("cp2k", tmp_path, user_fp_params=cp2k_params(30))
    (problem,) = labeler.check("param.json", [molecule("OH")])
    assert (problem.level, problem.path) == ("warning", "user_fp_params.FORCE_EVAL.DFT.UKS")
    assert labeler.check("param.json", [molecule("H2O")]) == []


def test_pw_x_mesh_is_shifted_where_even(tmp_path):
    namelists = {"control": {}, "system": {"ecutwfc": 20}, "kspacing": 0.5}
    labeler = make("pwscf", tmp_path, ("Cu",), fp_pp_path=".", fp_pp_files=["P"], user_fp_params=namelists)
    deck = labeler.input(Atoms("Cu", cell=[3.0, 4.0, 60.0], pbc=True))
    assert "5 4 1 0 1 0" in deck.splitlines()
    assert "&electrons" in deck.splitlines()
    assert "K_POINTS { gamma }" in labeler.input(Atoms("Cu", cell=[60.0] * 3, pbc=True)).splitlines()


def test_one_potcar_file_may_hold_all_elements(tmp_path):
    from activelearn.label import potcar
    from tests.test_vasp_standin import potcar as made

    both = made("Al", "Cu")
    (tmp_path / "POTCAR").write_text(both)
    parts = potcar.datasets(tmp_path / "POTCAR")
    assert [potcar.titel(part) for part in parts] == ["Al", "Cu"]
    assert "".join(parts) == both
    assert potcar.check("p", ["Al", "Cu"], tmp_path, ["POTCAR"], "POTCAR", {"Al", "Cu"}) == []
    (problem,) = potcar.check("p", ["Al", "Cu", "Mg"], tmp_path, ["POTCAR"], "POTCAR", {"Al"})
    assert (problem.kind, "2 elements" in problem.message) == ("files", True)
    told = potcar.check("p", ["Cu", "Al"], tmp_path, ["POTCAR"], "POTCAR", {"Al"})
    assert [problem.level for problem in told] == ["warning", "error"]
