"""What is shipped passes its own check."""

import json
import shutil
from pathlib import Path

import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from click.testing import CliRunner

from activelearn.cli import main
from tests.systems import labelled, write_data

TOP = Path(__file__).parents[1]
EXAMPLES = sorted(folder.name for folder in (TOP / "examples").iterdir() if (folder / "param.json").exists())


def check(folder, param="param.json", machine="machine.json"):
    arguments = ["check", str(folder / param), str(folder / machine), "-C", str(folder), "--json"]
    return json.loads(CliRunner().invoke(main, arguments).stdout)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name):
    if name == "si-pwscf" and not Path("/usr/share/espresso/pseudo").is_dir():
        pytest.skip("no pseudopotentials (Debian: quantum-espresso-data)")
    answer = check(TOP / "examples" / name)
    assert answer["errors"] == []
    assert answer["warnings"] == []


def test_the_files_for_vasp_on_slurm(tmp_path):
    """They name files that everybody has to bring: without them nothing else is wrong, with them nothing at all."""
    for name in ("param.json.example", "machine.json.example"):
        shutil.copy(TOP / name, tmp_path)
    words = ("is not a folder", "no file matches", "does not exist")
    errors = check(tmp_path, "param.json.example", "machine.json.example")["errors"]
    assert errors
    assert all(any(word in error["message"] for word in words) for error in errors)

    def al():
        return bulk("Al", cubic=True)

    mixed = al()
    mixed.symbols[0] = "Mg"
    cells = {"al.fcc": al(), "mg.hcp": bulk("Mg"), "almg.fcc": mixed}
    for name, cell in cells.items():
        write_data([labelled(cell.copy(), LennardJones())], tmp_path / "data" / "init" / name)
        for scale in ("0.98", "1.00"):
            folder = tmp_path / "data" / "structures" / name / f"scale-{scale}" / "000000"
            folder.mkdir(parents=True)
            cell.write(folder / "POSCAR", format="vasp", sort=True)
    write_data([labelled(mixed.copy(), LennardJones())], tmp_path / "data" / "heldout" / "almg.md")
    (tmp_path / "data" / "potcars").mkdir()
    for element in ("Al", "Mg"):
        (tmp_path / "data" / "potcars" / f"POTCAR.{element}").write_text(f"   TITEL  = PAW_PBE {element} 01Jan2001\n")
    (tmp_path / "data" / "INCAR").write_text("ENCUT = 400\nKSPACING = 0.2\nKGAMMA = .TRUE.\n")
    answer = check(tmp_path, "param.json.example", "machine.json.example")
    assert answer["errors"] == []
    assert [item["tasks"] for item in answer["plan"]] == [2 * 2 * 2, 4 * 3 * 3, 2]
