"""Make the starting structures and the labelled data of this example (water, GFN2-xTB).

Run it in this folder; it rewrites init/, heldout/ and structures/ exactly as shipped.
"""

from pathlib import Path

import dpdata
import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tblite.ase import TBLite

HERE = Path(__file__).parent


def box():
    """Return four water molecules in a periodic box of 6.2 A."""
    molecule = np.array([[0.0, 0.0, 0.0], [0.757, 0.586, 0.0], [-0.757, 0.586, 0.0]])
    centres = np.array([[1.0, 1.0, 1.0], [4.1, 4.1, 1.0], [4.1, 1.0, 4.1], [1.0, 4.1, 4.1]])
    return Atoms("OH2" * 4, (centres[:, None] + molecule).reshape(-1, 3), cell=[6.2] * 3, pbc=True)


def calculator():
    return TBLite(method="GFN2-xTB", verbosity=0)


def label(atoms):
    """Return one labelled frame (energy eV, forces eV/A, virial eV)."""
    atoms.calc = calculator()
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    return dpdata.LabeledSystem(atoms, fmt="ase/structure")


def rattled(rng, n_frames):
    for _ in range(n_frames):
        atoms = box()
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        yield label(atoms)


def dynamics(rng, temperature, n_frames):
    atoms = box()
    atoms.calc = calculator()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    md = Langevin(atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
    md.run(200)
    for _ in range(n_frames):
        md.run(40)
        yield label(atoms.copy())


def write(frames, folder):
    systems = dpdata.MultiSystems(*frames, type_map=["O", "H"])
    (system,) = systems
    system.to("deepmd/npy", folder)


rng = np.random.default_rng(2026)
write(rattled(rng, 12), HERE / "init" / "water")
write(dynamics(rng, 400, 20), HERE / "heldout" / "water-400K")
for number in range(2):
    atoms = box()
    atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
    folder = HERE / "structures" / f"{number:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    atoms.write(folder / "POSCAR", format="vasp", sort=True)
