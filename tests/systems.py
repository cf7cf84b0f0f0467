"""Structures and labelled data made on the spot."""

from pathlib import Path

import dpdata
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT


def copper(seed, scale=0.1):
    """8 copper atoms (fcc 2x2x2 primitive cells), displaced at random."""
    atoms = bulk("Cu", "fcc", a=3.61).repeat(2)
    atoms.positions += np.random.default_rng(seed).normal(scale=scale, size=atoms.positions.shape)
    return atoms


def labelled(atoms, calculator=None):
    """One frame labelled with EMT, or another calculator."""
    atoms.calc = calculator or EMT()
    atoms.get_potential_energy(), atoms.get_forces()
    if atoms.pbc.all():
        atoms.get_stress()
    return dpdata.LabeledSystem(atoms, fmt="ase/structure")


def write_data(frames, folder):
    frames = list(frames)
    system = frames[0]
    for frame in frames[1:]:
        system.append(frame)
    system.to("deepmd/npy", str(folder))


def copper_data(folder, seed, frames):
    write_data((labelled(copper(1000 * seed + n)) for n in range(frames)), folder)


def copper_structures(folder, number):
    for n in range(number):
        target = Path(folder) / f"{n:02d}"
        target.mkdir(parents=True)
        copper(n, 0.03).write(target / "POSCAR", format="vasp")


def water(seed=0):
    """Four water molecules in a periodic box of 6.2 A."""
    rng = np.random.default_rng(seed)
    molecule = np.array([[0.0, 0.0, 0.0], [0.757, 0.586, 0.0], [-0.757, 0.586, 0.0]])
    centres = np.array([[1, 1, 1], [4.1, 4.1, 1], [4.1, 1, 4.1], [1, 4.1, 4.1]], dtype=float)
    positions = (centres[:, None] + molecule[None]).reshape(-1, 3) + rng.normal(scale=0.03, size=(12, 3))
    return Atoms("OH2" * 4, positions, cell=[6.2] * 3, pbc=True)


def alloy(seed=0, scale=0.05):
    """Al4Cu4, ordered by layers, displaced at random."""
    atoms = bulk("Al", "fcc", a=3.85, cubic=True).repeat((2, 1, 1))
    atoms.symbols[4:] = "Cu"
    atoms.positions += np.random.default_rng(seed).normal(scale=scale, size=atoms.positions.shape)
    return atoms
