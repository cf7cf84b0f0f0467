"""The stand-in for VASP keeps VASP's file contract: every parser reads the calculator's own numbers from its files."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import dpdata
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read
from ase.io.vasp import write_vasp
from ase.units import GPa

STANDIN = Path(__file__).parent / "standins" / "vasp_std.py"
INCAR = "SYSTEM = a < b\nENCUT = 400\nKSPACING = 0.5; KGAMMA = .TRUE.\nNSW = 0 ! a single point\n"
KPOINTS = "Automatic mesh\n0\nGamma\n2 2 1\n0 0 0\n"
DATASET = """\
  PAW_PBE {element} 04Jan2001
   3.00000000000000
 parameters from PSCTR are:
   VRHFIN ={element}: s2p1
   TITEL  = PAW_PBE {titel} 04Jan2001
   POMASS =   26.98; ZVAL   =    3.000    mass and valenz
   End of Dataset
"""
DIGITS = {"energy": 0.51e-8, "OUTCAR forces": 0.51e-6, "xml forces": 0.51e-8, "OUTCAR kB": 0.51e-5, "xml kB": 0.51e-8}
KBAR = 0.1 * GPa
DPDATA_KBAR = 1 / 1602.176621  # dpdata's, which differs from ASE's in the tenth digit


def potcar(*titels):
    return "".join(DATASET.format(titel=titel, element=titel.split("_")[0]) for titel in titels)


def rattled(symbols, seed=1, turned=False):
    """Eight atoms of fcc in a sheared cell, lower triangular because dpdata turns all others."""
    cell = np.array([[4.012345678, 0.0, 0.0], [0.323456789, 4.234567891, 0.0], [-0.2, 0.4, 7.6]])
    corners = ((0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1))
    sites = [(x / 2, y / 2, z / 4 + layer / 2) for layer in (0, 1) for x, y, z in corners]
    atoms = Atoms(symbols, cell=cell, scaled_positions=sites, pbc=True)
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=(8, 3))
    if turned:
        atoms.rotate(37, (1, 2, 3), rotate_cell=True)
    return atoms


@pytest.fixture
def folder(tmp_path):
    """The input files of four aluminium and four copper atoms."""
    folder = tmp_path / "task.000"
    write(folder, rattled("Al4Cu4"))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The same with the output; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    write(folder, rattled("Al4Cu4"))
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture
def repeated(folder, finished):
    """A folder with input files and what an earlier run left."""
    for name in ("OUTCAR", "vasprun.xml"):
        shutil.copy(finished / name, folder)
    return folder


def write(folder, atoms, **files):
    folder.mkdir(exist_ok=True)
    write_vasp(str(folder / "POSCAR"), atoms, direct=False, sort=False, vasp5=True)
    species = list(dict.fromkeys(atoms.get_chemical_symbols()))
    for name, text in {"INCAR": INCAR, "KPOINTS": KPOINTS, "POTCAR": potcar(*species), **files}.items():
        (folder / name).write_text(text)


def run(folder, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("VASP_STANDIN")}
    return subprocess.run(
        [sys.executable, STANDIN], cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=120
    )


def dpdata_read(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dpdata.LabeledSystem(str(file), fmt="vasp/xml" if file.suffix == ".xml" else "vasp/outcar")


def ase_read(file):
    return read(file, format="vasp-xml" if file.suffix == ".xml" else "vasp-out")


def labels(folder):
    """Energy, forces and minus the stress in kbar, by parser and file."""
    found = {}
    for file in (folder / "OUTCAR", folder / "vasprun.xml"):
        what = "xml" if file.suffix else "OUTCAR"
        system = dpdata_read(file)
        assert len(system) == 1
        volume = np.linalg.det(system["cells"][0])
        kbar = system["virials"][0] / volume / DPDATA_KBAR
        found[f"dpdata {what}"] = (system["energies"][0], system["forces"][0], kbar)
        atoms = ase_read(file)
        energy = atoms.get_potential_energy(force_consistent=True)
        found[f"ase {what}"] = (energy, atoms.get_forces(), -atoms.get_stress(voigt=False) / KBAR)
    return found


def check(found, atoms, calculator):
    """All labels are the calculator's numbers to the printed digits."""
    atoms = atoms.copy()
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    kbar = -atoms.get_stress(voigt=False) / KBAR
    shears = [kbar[0, 1], kbar[1, 2], kbar[2, 0]]
    assert np.ptp(shears) > 0.1, "the test would not see an exchanged XY, YZ, ZX"
    assert min(abs(np.diff(np.sort(shears)))) > 0.1
    for what, (e, f, p) in found.items():
        kind = what.split()[1]
        assert e == pytest.approx(energy, abs=DIGITS["energy"]), what
        np.testing.assert_allclose(f, forces, rtol=0, atol=DIGITS[f"{kind} forces"], err_msg=what)
        np.testing.assert_allclose(p, kbar, rtol=3e-8, atol=DIGITS[f"{kind} kB"], err_msg=what)


def test_every_parser_reads_the_numbers_of_the_calculator(finished):
    check(labels(finished), rattled("Al4Cu4"), EMT())


def test_elements_unknown_to_emt_get_lennard_jones(tmp_path):
    atoms = rattled("Si3Ge5", seed=2)
    write(tmp_path, atoms)
    assert run(tmp_path).returncode == 0
    check(labels(tmp_path), atoms, LennardJones(sigma=2.2, epsilon=0.05, rc=5.0, smooth=True))


def test_cells_of_any_orientation(tmp_path):
    """Only ASE leaves the frame as it is."""
    atoms = rattled("Al4Cu4", turned=True)
    assert abs(atoms.cell[0, 1]) > 0.1
    write(tmp_path, atoms)
    assert run(tmp_path).returncode == 0
    check({key: value for key, value in labels(tmp_path).items() if key.startswith("ase")}, atoms, EMT())


@pytest.mark.parametrize("name", ["OUTCAR", "vasprun.xml"])
def test_virial_is_minus_the_strain_derivative_of_the_energy(finished, name):
    atoms, step = rattled("Al4Cu4"), 1e-5
    virial = np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            strained.calc = EMT()
            energies.append(strained.get_potential_energy())
        virial[i, j] = -(energies[0] - energies[1]) / (2 * step)
    assert abs(np.trace(virial)) > 0.1
    np.testing.assert_allclose(dpdata_read(finished / name)["virials"][0], virial, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["OUTCAR", "vasprun.xml"])
def test_atoms_are_those_of_poscar(folder, name):
    atoms = rattled("Al4Cu4")
    atoms.positions[0] -= atoms.cell[2]  # VASP moves atoms into the cell
    write(folder, atoms)
    assert run(folder).returncode == 0
    system, ase_atoms = dpdata_read(folder / name), ase_read(folder / name)
    assert (system["atom_names"], list(system["atom_numbs"])) == (["Al", "Cu"], [4, 4])
    assert ase_atoms.get_chemical_symbols() == atoms.get_chemical_symbols()
    inside = atoms.copy()
    inside.wrap()
    assert np.abs(inside.positions - atoms.positions).max() > 1
    for cell, positions in ((system["cells"][0], system["coords"][0]), (ase_atoms.cell.array, ase_atoms.positions)):
        np.testing.assert_allclose(cell, atoms.cell.array, rtol=0, atol=0.51e-8)
        np.testing.assert_allclose(positions, inside.positions, rtol=0, atol=0.51e-5)


def test_energies_that_are_not_toten_differ(finished):
    atoms = rattled("Al4Cu4")
    atoms.calc = EMT()
    for name in ("OUTCAR", "vasprun.xml"):
        energy = ase_read(finished / name).get_potential_energy(force_consistent=False)
        assert energy - atoms.get_potential_energy() == pytest.approx(0.001, abs=2e-8)
    last = [line for line in (finished / "OUTCAR").read_text().splitlines() if "energy  without entropy=" in line][-1]
    assert float(last.split()[3]) - atoms.get_potential_energy() == pytest.approx(0.002, abs=2e-8)


@pytest.mark.filterwarnings("ignore")
def test_pymatgen_reads_the_same(folder):
    outputs = pytest.importorskip("pymatgen.io.vasp.outputs")
    (folder / "INCAR").write_text(INCAR + "ISPIN = 2\nMAGMOM = 4*0.0 4*1.5\n")
    assert run(folder).returncode == 0
    vasprun = outputs.Vasprun(folder / "vasprun.xml", parse_potcar_file=False, parse_dos=False, parse_eigen=False)
    step = vasprun.ionic_steps[-1]
    found = (step["e_fr_energy"], step["forces"], np.array(step["stress"]))
    check({"pymatgen xml": found}, rattled("Al4Cu4"), EMT())
    assert (step["e_wo_entrp"], step["e_0_energy"]) == (vasprun.final_energy, -0.002)  # VASP's mistake
    assert vasprun.converged
    assert vasprun.potcar_symbols == ["PAW_PBE Al 04Jan2001", "PAW_PBE Cu 04Jan2001"]
    assert vasprun.parameters["MAGMOM"] == [0.0] * 4 + [1.5] * 4
    assert vasprun.kpoints.kpts == [(2, 2, 1)]
    assert len(vasprun.actual_kpoints) == 4
    assert vasprun.incar["SYSTEM"] == "a < b"
    assert vasprun.final_energy == pytest.approx(step["e_fr_energy"] + 0.001, abs=2e-8)
    np.testing.assert_allclose(vasprun.final_structure.lattice.matrix, rattled("Al4Cu4").cell.array, atol=0.51e-8)
    outcar = outputs.Outcar(folder / "OUTCAR")
    assert outcar.final_fr_energy == step["e_fr_energy"]
    assert outcar.final_energy == pytest.approx(vasprun.final_energy, abs=2e-8)
    assert outcar.final_energy_wo_entrp == pytest.approx(step["e_fr_energy"] + 0.002, abs=2e-8)
    assert (outcar.spin, outcar.nelect, outcar.run_stats["cores"]) == (True, 24.0, 1)


@pytest.mark.filterwarnings("ignore")
def test_pymatgen_sees_that_it_did_not_converge(folder):
    outputs = pytest.importorskip("pymatgen.io.vasp.outputs")
    (folder / "INCAR").write_text(INCAR + "NELM = 5\n")
    assert run(folder).returncode == 0
    vasprun = outputs.Vasprun(folder / "vasprun.xml", parse_potcar_file=False, parse_dos=False, parse_eigen=False)
    assert not vasprun.converged_electronic


def test_stdout(finished):
    out = (finished / "stdout").read_text().splitlines()
    assert out[0] == " running on 1 total cores"
    assert sum(line.startswith("DAV:") for line in out) == 12
    last = next(line.split() for line in out if " F= " in line)
    energy = ase_read(finished / "OUTCAR").get_potential_energy(force_consistent=True)
    assert (last[0], last[1], last[3]) == ("1", "F=", "E0=")
    assert float(last[2]) == pytest.approx(energy, rel=1e-7)
    assert float(last[4]) == pytest.approx(energy + 0.001, rel=1e-7)


def assert_failed(folder, done, *words):
    assert done.returncode == 1
    assert "ERROR" in done.stdout
    assert all(word in done.stdout for word in words), done.stdout
    assert done.stderr == ""
    for file in (folder / "OUTCAR", folder / "vasprun.xml"):
        with pytest.raises(Exception):  # noqa: B017
            assert len(dpdata_read(file)) == 1


@pytest.mark.parametrize("how", ["missing", "empty", "dangling link"])
@pytest.mark.parametrize("name", ["INCAR", "KPOINTS", "POSCAR", "POTCAR"])
def test_each_input_file_is_needed(repeated, name, how):
    if how == "empty":
        (repeated / name).write_text("\n")
    else:
        (repeated / name).unlink()
    if how == "dangling link":
        (repeated / name).symlink_to("nowhere")
    assert_failed(repeated, run(repeated), name)


def lines_of_poscar(change):
    def edit(folder):
        lines = (folder / "POSCAR").read_text().splitlines()
        change(lines)
        (folder / "POSCAR").write_text("\n".join(lines) + "\n")

    return edit


def file(name, text):
    return lambda folder: (folder / name).write_text(text)


WRONG = {
    "one dataset too few": (file("POTCAR", potcar("Al")), "POTCAR"),
    "one dataset too many": (file("POTCAR", potcar("Al", "Cu", "Cu")), "POTCAR"),
    "wrong order": (file("POTCAR", potcar("Cu", "Al")), "POTCAR"),
    "wrong element": (file("POTCAR", potcar("Al", "Co")), "POTCAR"),
    "no element": (file("POTCAR", potcar("Al", "29")), "POTCAR"),
    "no TITEL": (file("POTCAR", "End of Dataset\n"), "POTCAR"),
    "explicit k points": (file("KPOINTS", "k\n1\nReciprocal\n0 0 0 1\n"), "KPOINTS"),
    "line mode": (file("KPOINTS", "k\n10\nLine-mode\nreciprocal\n0 0 0\n"), "KPOINTS"),
    "automatic length": (file("KPOINTS", "k\n0\nAuto\n20\n"), "KPOINTS"),
    "two divisions": (file("KPOINTS", "k\n0\nGamma\n2 2\n"), "KPOINTS"),
    "no division": (file("KPOINTS", "k\n0\nGamma\n2 2 0\n"), "KPOINTS"),
    "a division that is not whole": (file("KPOINTS", "k\n0\nGamma\n2 2 1.5\n"), "KPOINTS"),
    "an atom too few": (lines_of_poscar(list.pop), "7 lines"),
    "an atom too many": (lines_of_poscar(lambda lines: lines.append(lines[-1])), "9 lines"),
    "counts of one species": (lines_of_poscar(lambda lines: lines.__setitem__(6, "8")), "species"),
    "no species": (lines_of_poscar(lambda lines: lines.pop(5)), ""),
    "a coordinate that is no number": (lines_of_poscar(lambda lines: lines.__setitem__(-1, "0 0 x")), "'x'"),
    "two coordinates": (lines_of_poscar(lambda lines: lines.__setitem__(-1, "0 0")), ""),
    "left-handed cell": (lines_of_poscar(lambda lines: lines.insert(2, lines.pop(3))), "triple product"),
    "MAGMOM of the elements": (file("INCAR", INCAR + "MAGMOM = 0 1.5\n"), "MAGMOM"),
    "MAGMOM of nine atoms": (file("INCAR", INCAR + "MAGMOM = 4*0 5*1.5 # comment\n"), "9 numbers for 8 ions"),
    "molecular dynamics": (file("INCAR", INCAR.replace("NSW = 0", "NSW = 2")), "NSW"),
    "NELM": (file("INCAR", INCAR + "NELM = many\n"), "many"),
    "no iteration": (file("INCAR", INCAR + "NELM = 0\n"), "NELM"),
    "contradiction": (file("INCAR", INCAR + "NSW = 1\n"), "NSW twice"),
}


@pytest.mark.parametrize("what", WRONG)
def test_inconsistent_input(repeated, what):
    edit, word = WRONG[what]
    assert len(dpdata_read(repeated / "OUTCAR")) == 1
    edit(repeated)
    assert_failed(repeated, run(repeated), word)


RIGHT = {
    "POTCAR variants": file("POTCAR", potcar("Al_GW", "Cu_pv")),
    "Monkhorst-Pack": file("KPOINTS", "k\n0\nMonkhorst-Pack\n1 2 3\n"),
    "MAGMOM of all atoms": file("INCAR", INCAR + "MAGMOM = 3*0 .0 \\\n 2*1.5 -1 1e0 ! comment\n"),
    "one ionic step": file("INCAR", INCAR.replace("NSW = 0", "NSW = 1") + "ISIF = 2\n"),
    "velocities": lines_of_poscar(lambda lines: lines.extend(["", *["0 0 0"] * 8])),
    "selective dynamics": lines_of_poscar(
        lambda lines: lines.__setitem__(slice(7, None), ["S", lines[7], *(f"{line} F F F" for line in lines[8:])])
    ),
}


@pytest.mark.parametrize("what", RIGHT)
def test_consistent_input(folder, what):
    RIGHT[what](folder)
    done = run(folder)
    assert done.returncode == 0, done.stdout
    found = {key: value for key, value in labels(folder).items() if key.startswith("dpdata")}  # ASE applies constraints
    check(found, rattled("Al4Cu4"), EMT())


def test_fractional_coordinates_and_scale(folder):
    atoms = rattled("Al4Cu4")
    atoms.set_cell(atoms.cell / 2, scale_atoms=True)
    write_vasp(str(folder / "POSCAR"), atoms, direct=True, vasp5=True)
    lines = (folder / "POSCAR").read_text().splitlines()
    for scale in ("2.0", f"-{8 * atoms.get_volume():.12f}"):
        (folder / "POSCAR").write_text("\n".join([lines[0], scale, *lines[2:]]) + "\n")
        assert run(folder).returncode == 0
        check(labels(folder), rattled("Al4Cu4"), EMT())


@pytest.mark.parametrize("nelm", [5, 12, 13])
def test_nelm_is_the_largest_number_of_electronic_steps(folder, nelm):
    (folder / "INCAR").write_text(INCAR + f"NELM = {nelm}\n")
    assert run(folder).returncode == 0
    text = (folder / "OUTCAR").read_text()
    assert text.count(" Iteration ") == min(nelm, 12)
    assert text.count("aborting loop because EDIFF is reached") == (nelm >= 12)
    assert "FREE ENERGIE" in text
    assert "Voluntary context switches" in text
    for name in ("OUTCAR", "vasprun.xml"):
        assert len(dpdata_read(folder / name)) == (nelm == 13)  # for dpdata the last allowed step is one too many
        error = ase_read(folder / name).get_potential_energy(force_consistent=True) - exact("Al4Cu4")
        assert abs(error) < 1e-8 if nelm >= 12 else 1e-3 < abs(error) < 0.1


def exact(symbols):
    atoms = rattled(symbols)
    atoms.calc = EMT()
    return atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("incar", "stress"),
    [
        (INCAR, True),
        (INCAR + "ISIF = 0\n", False),
        (INCAR + "isif=3", True),
        (INCAR.replace("NSW = 0", "NSW = 1"), False),  # molecular dynamics by default, which has ISIF = 0
    ],
)
def test_isif_0_computes_no_stress(folder, incar, stress):
    (folder / "INCAR").write_text(incar)
    assert run(folder).returncode == 0
    for name in ("OUTCAR", "vasprun.xml"):
        system = dpdata_read(folder / name)
        assert len(system) == 1
        assert ("virials" in system.data) == stress
    outcar, xml = ((folder / name).read_text() for name in ("OUTCAR", "vasprun.xml"))
    assert [word in outcar for word in ("in kB", "FORCE on cell")] == [stress] * 2
    assert ('<varray name="stress"' in xml) == stress


def fail(folder, how, names="other, task.000"):
    return run(folder, VASP_STANDIN_FAIL=names, VASP_STANDIN_FAIL_HOW=how)


def test_fail_unconverged(repeated):
    assert fail(repeated, "unconverged").returncode == 0
    assert (repeated / "OUTCAR").read_text().count(" Iteration ") == 60
    assert "because EDIFF is reached" not in (repeated / "OUTCAR").read_text()
    for name in ("OUTCAR", "vasprun.xml"):
        assert len(dpdata_read(repeated / name)) == 0


def test_fail_crash(repeated):
    whole = (repeated / "OUTCAR").read_text()
    assert fail(repeated, "crash").returncode == 139
    half = (repeated / "OUTCAR").read_text()
    assert whole.startswith(half)
    assert 0.4 < len(half) / len(whole) < 0.6
    assert not (repeated / "vasprun.xml").exists()
    assert len(dpdata_read(repeated / "OUTCAR")) == 0


def test_fail_garbage(repeated):
    assert fail(repeated, "garbage").returncode == 0
    for name in ("OUTCAR", "vasprun.xml"):
        assert (repeated / name).stat().st_size > 1000
        with pytest.raises((UnicodeDecodeError, SyntaxError)):  # ElementTree's ParseError is a SyntaxError
            dpdata_read(repeated / name)


def test_fail_no_outcar(repeated):
    assert fail(repeated, "no-outcar").returncode == 0
    assert not (repeated / "OUTCAR").exists()
    assert dpdata_read(repeated / "vasprun.xml")["energies"][0] == pytest.approx(exact("Al4Cu4"), abs=DIGITS["energy"])


def test_other_folders_do_not_fail(repeated):
    assert fail(repeated, "crash", names="task.00,task.0001,task").returncode == 0
    assert len(dpdata_read(repeated / "OUTCAR")) == 1


def test_an_unknown_way_to_fail_is_an_error(repeated):
    done = fail(repeated, "unconvergd")
    assert done.returncode != 0
    assert "unconvergd" in done.stderr


def test_count(folder, tmp_path):
    file = tmp_path / "count"
    for environment in ({}, {"VASP_STANDIN_FAIL": "task.000", "VASP_STANDIN_FAIL_HOW": "crash"}):
        run(folder, VASP_STANDIN_COUNT=str(file), **environment)
    (folder / "INCAR").unlink()
    run(folder, VASP_STANDIN_COUNT=str(file))
    assert file.read_text() == "task.000\n" * 3
