"""Real VASP outputs and published DP-GEN files, read in place."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from activelearn.cli import main
from activelearn.data import dataset
from activelearn.label import values
from activelearn.label.vasp import Vasp, VaspSettings
from tests.conftest import SHARED, copper_param

pytestmark = pytest.mark.shared
VASP = SHARED / "data" / "vasp"
DPGEN = SHARED / "data" / "dpgen"


@pytest.fixture
def labeler(tmp_path):
    from activelearn.config.base import keys
    from activelearn.config.param import Param

    given = {key: value for key, value in copper_param().items() if key in keys(Param)}
    return Vasp(VaspSettings(fp_pp_path=".", fp_pp_files=["a"], fp_incar="b"), Param(**given), tmp_path)


def test_outcar_and_vasprun_give_what_is_printed_in_them(labeler, tmp_path):
    text = (VASP / "OUTCAR.Ge.vdw").read_text()
    for name, file in (("OUTCAR", "OUTCAR.Ge.vdw"), ("vasprun.xml", "vasprun.Ge.vdw.xml")):
        for old in tmp_path.iterdir():
            old.unlink()
        (tmp_path / name).symlink_to(VASP / file)
        system = labeler.read(tmp_path)
        energy = [float(line.split()[4]) for line in text.splitlines() if "free  energy   TOTEN" in line][-1]
        assert system["energies"][0] == pytest.approx(energy, abs=1e-6)
        lines = text.splitlines()
        start = next(n for n, line in enumerate(lines) if "TOTAL-FORCE" in line) + 2
        rows = np.array([[float(x) for x in line.split()] for line in lines[start : start + system.get_natoms()]])
        np.testing.assert_allclose(system["forces"][0], rows[:, 3:6], atol=2e-6)
        kbar = next([float(x) for x in line.split()[2:]] for line in lines if line.split()[:2] == ["in", "kB"])
        volume = abs(np.linalg.det(system["cells"][0]))
        diagonal = np.array(kbar[:3]) / 1602.1766208 * volume
        np.testing.assert_allclose(np.diag(system["virials"][0]), diagonal, atol=1e-4)


def test_good_outputs_pass_the_verdict_and_are_kept_as_printed(labeler, tmp_path):
    """From file to training data: what a picked frame's label becomes."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "OUTCAR").symlink_to(VASP / "OUTCAR.Ge.vdw")
    label = labeler.read(tmp_path / "t")
    counts = {"Ge": label.get_natoms()}
    facts = values.verdict(labeler.read, tmp_path / "t", counts, 0, "fp.log")
    assert facts["energy"] == label["energies"][0]
    assert facts["virial"] is True
    (system,) = dataset.write([label], tmp_path / "data.000", ["Ge"])
    text = (VASP / "OUTCAR.Ge.vdw").read_text()
    energy = float(text[text.rindex("free  energy   TOTEN") :].split("=")[1].split()[0])
    assert system.array("energy").ravel()[0] == pytest.approx(energy, rel=1e-6)
    assert system.has("set.000/virial.npy")
    wrong = values.verdict(labeler.read, tmp_path / "t", {"Ge": 1}, 0, "fp.log")
    assert "the label is of" in wrong.cause


def test_a_good_vasprun_stands_in_for_a_cut_outcar(labeler, tmp_path):
    whole = (VASP / "OUTCAR.Ge.vdw").read_text()
    (tmp_path / "OUTCAR").write_text(whole[: whole.index("TOTAL-FORCE")])
    with pytest.raises(ValueError, match=r"vasprun\.xml was not written"):
        labeler.read(tmp_path)
    (tmp_path / "vasprun.xml").symlink_to(VASP / "vasprun.Ge.vdw.xml")
    energy = float(whole[whole.rindex("free  energy   TOTEN") :].split("=")[1].split()[0])
    assert labeler.read(tmp_path)["energies"][0] == pytest.approx(energy, abs=1e-6)


def test_several_ionic_steps_are_no_label(labeler, tmp_path):
    (tmp_path / "vasprun.xml").symlink_to(VASP / "vasprun.h2o.md.xml")
    with pytest.raises(ValueError, match="frames instead of one"):
        labeler.read(tmp_path)


@pytest.mark.parametrize("name", ["OUTCAR.ch4.1step", "OUTCAR.ch4.unconverged"])
def test_unconverged_outcars_are_refused(labeler, tmp_path, name):
    (tmp_path / "OUTCAR").symlink_to(VASP / name)
    if name.endswith("1step"):
        with pytest.raises(values.NotConvergedError, match="NELM"):
            labeler.read(tmp_path)
        return
    # two of its three ionic steps did not converge; one did, and counts as a frame of a run with NSW = 0
    assert len(labeler.read(tmp_path)) == 1


PARAMS = sorted(file.name for file in DPGEN.glob("*param*.json")) if DPGEN.is_dir() else []
MACHINES = sorted(file.name for file in DPGEN.glob("*machine*.json")) if DPGEN.is_dir() else []


@pytest.mark.parametrize("name", PARAMS)
def test_published_param_files_are_answered_in_plain_words(name, tmp_path):
    """Their data are not here, so each has problems; all of them are told, none is a traceback."""
    machine = DPGEN / "machine__DeePMD-kit-2.x__lebesgue_v2_machine.json"
    result = CliRunner().invoke(main, ["check", str(DPGEN / name), str(machine), "-C", str(tmp_path), "--json"])
    assert result.exit_code == 2, result.exception
    answer = json.loads(result.stdout)
    assert answer["errors"]
    assert all(error["message"] for error in answer["errors"])


@pytest.mark.parametrize("name", MACHINES)
def test_published_machine_files_are_answered_in_plain_words(name, tmp_path, project):
    arguments = ["check", str(project.root / "param.json"), str(DPGEN / name), "-C", str(project.root), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (0, 2), result.exception
    json.loads(result.stdout)


RUNS_HERE = [name for name in PARAMS if name != "dp-calypso-vasp__param.json"]
RUNS_HERE += ["dp2.x_lammps_gaussian__dodecane__dodecane.json"] if DPGEN.is_dir() else []


def check(param, machine, folder, *more):
    result = CliRunner().invoke(main, ["check", str(param), str(machine), "-C", str(folder), "--json", *more])
    answer = json.loads(result.stdout)  # nothing else is printed
    assert answer["ok"] == (not answer["errors"]) == (result.exit_code == 0)
    return answer


@pytest.mark.parametrize("name", RUNS_HERE)
def test_published_param_files_are_accepted(name, tmp_path):
    """As they were published: without their data the two files alone are good, and with them only files are missing."""
    machine = DPGEN / "machine__DeePMD-kit-2.x__lebesgue_v2_machine.json"
    alone = check(DPGEN / name, machine, tmp_path, "--no-files")
    assert alone["errors"] == []
    assert all(problem["kind"] == "syntax" for problem in alone["warnings"])
    whole = check(DPGEN / name, machine, tmp_path)
    assert whole["errors"]
    assert all(problem["kind"] == "files" for problem in whole["errors"])


@pytest.mark.parametrize(
    ("name", "words"), [("dp-calypso-vasp__param.json", ["calypso"]), ("dprc__generator.json", ["amber", "amber/diff"])]
)
def test_what_we_do_not_run_is_refused_by_name(name, words, tmp_path):
    machine = DPGEN / "machine__DeePMD-kit-2.x__lebesgue_v2_machine.json"
    answer = check(DPGEN / name, machine, tmp_path, "--no-files")
    assert len(answer["errors"]) == len(words)
    for word, error in zip(words, answer["errors"], strict=True):
        assert f"'{word}' of DP-GEN" in error["message"]


@pytest.mark.parametrize("name", MACHINES)
def test_published_machine_files_are_accepted(name, project):
    machine = DPGEN / name
    answer = check(project.root / "param.json", machine, project.root, "--no-files")
    assert answer["errors"] == []
