"""Make the starting structures and the labelled data of this example (silicon, Quantum ESPRESSO).

Needs pw.x and the pseudopotential (Debian: quantum-espresso, quantum-espresso-data). Run it in this folder; the
labels are made with the settings of param.json by the labeler itself.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import dpdata
import numpy as np
from ase.build import bulk

from activelearn.config.param import Param
from activelearn.label.pwscf import Pwscf, PwscfSettings

HERE = Path(__file__).parent
given = json.loads((HERE / "param.json").read_text())
keys = ("fp_pp_path", "fp_pp_files", "user_fp_params")
shared = {key: given[key] for key in given if key in Param.model_fields}
labeler = Pwscf(PwscfSettings(**{key: given[key] for key in keys}), Param(**shared), HERE)


def cell(rng, scale, strain):
    """Return silicon, 8 atoms, displaced and strained at random."""
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=strain, size=(3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(scale=scale, size=atoms.positions.shape)
    return atoms


def label(atoms):
    """Return one labelled frame."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "input").write_text(labeler.input(atoms))
        for pseudo in given["fp_pp_files"]:
            (folder / pseudo).write_text((Path(given["fp_pp_path"]) / pseudo).read_text())
        with (folder / "output").open("w") as output:
            subprocess.run(["pw.x", "-i", "input"], cwd=folder, stdout=output, check=True)
        return labeler.read(folder)


rng = np.random.default_rng(2026)
for name, scale, strain, number in (("init/si", 0.03, 0.005, 8), ("heldout/si", 0.12, 0.015, 8)):
    frames = dpdata.MultiSystems(*(label(cell(rng, scale, strain)) for _ in range(number)), type_map=["Si"])
    (system,) = frames
    system.to("deepmd/npy", HERE / name)
for number in range(2):
    folder = HERE / "structures" / f"{number:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    cell(rng, 0.03, 0.0).write(folder / "POSCAR", format="vasp")
