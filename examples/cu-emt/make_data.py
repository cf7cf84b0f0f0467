"""Make the starting structures and the labelled data of this example (copper, EMT potential).

Run it in this folder; it rewrites init/, heldout/ and structures/ exactly as shipped.
"""

from pathlib import Path

import dpdata
import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

HERE = Path(__file__).parent


def cell():
    """Return fcc copper, 32 atoms."""
    return bulk("Cu", "fcc", a=3.61, cubic=True).repeat(2)


def label(atoms):
    """Return one frame labelled with EMT (energy eV, forces eV/A, virial eV)."""
    atoms.calc = EMT()
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    return dpdata.LabeledSystem(atoms, fmt="ase/structure")


def rattled(rng, n_frames):
    """Label `n_frames` cells with atoms displaced by 0.05 A: all that is known at the start."""
    for _ in range(n_frames):
        atoms = cell()
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        yield label(atoms)


def dynamics(rng, temperature, n_frames):
    """Label `n_frames` frames of MD at `temperature` (K), 0.1 ps apart."""
    atoms = cell()
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * temperature, rng=rng)
    md = Langevin(atoms, 2 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
    md.run(250)
    for _ in range(n_frames):
        md.run(50)
        yield label(atoms.copy())


def write(frames, folder):
    """Write all frames as one labelled system."""
    system = next(frames)
    for frame in frames:
        system.append(frame)
    system.to("deepmd/npy", folder)


rng = np.random.default_rng(2026)
write(rattled(rng, 10), HERE / "init" / "cu32")
for temperature in (600, 1000, 1500, 2000):
    write(dynamics(rng, temperature, 15), HERE / "heldout" / f"cu32-{temperature}K")
for number in range(2):
    atoms = cell()
    atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
    folder = HERE / "structures" / f"{number:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    atoms.write(folder / "POSCAR", format="vasp", direct=True)
