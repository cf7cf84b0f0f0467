"""LAMMPS input decks with DP-GEN's physics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TAU_T, TAU_P = 0.1, 0.5
"""Relaxation times of thermostat and barostat, ps."""

_COUPLING = {
    "npt": "iso",
    "npt-i": "iso",
    "npt-iso": "iso",
    "npt-a": "aniso",
    "npt-aniso": "aniso",
    "npt-t": "tri",
    "npt-tri": "tri",
}


@dataclass(frozen=True)
class Conditions:
    """What one MD task is run under."""

    ensemble: str
    nsteps: int
    trj_freq: int
    timestep: float
    """ps."""
    temperature: float
    """K."""
    pressure: float | None
    """bar."""
    seed: int
    """Of the starting velocities."""
    periodic: bool
    merged: bool


def restart_interval(nsteps: int, trj_freq: int) -> int:
    """Return how often to write restart files: ten times a run, at most every 10,000 steps, with a frame each time."""
    return max(1, min(10_000, nsteps // 10) // trj_freq) * trj_freq


def render(graphs: Sequence[str], masses: Sequence[float], type_map: Sequence[str], conditions: Conditions) -> str:
    """Return the input deck of one task.

    The variable `restart` is 0 on a fresh start and 1 when restart files are to be continued from; frames and
    deviations are written at the same steps.
    """
    c = conditions
    target = "all.lammpstrj" if c.merged else "traj/*.lammpstrj"
    boundary = "p p p" if c.periodic else "f f f"
    lines = [
        f"variable        NSTEPS          equal {c.nsteps}",
        f"variable        THERMO_FREQ     equal {c.trj_freq}",
        f"variable        DUMP_FREQ       equal {c.trj_freq}",
        f"variable        TEMP            equal {c.temperature:f}",
        *([f"variable        PRES            equal {c.pressure:f}"] if c.pressure is not None else []),
        f"variable        TAU_T           equal {TAU_T:f}",
        *([f"variable        TAU_P           equal {TAU_P:f}"] if c.pressure is not None else []),
        "",
        "log             log.lammps append",
        "units           metal",
        f"boundary        {boundary}",
        "atom_style      atomic",
        "neighbor        1.0 bin",
        "box             tilt large",
        'if "${restart} > 0" then "read_restart dpgen.restart.*" else "read_data conf.lmp"',
        "change_box      all triclinic",
        *(f"mass            {number} {mass:f}" for number, mass in enumerate(masses, 1)),
        f"pair_style      deepmd {' '.join(graphs)} out_freq ${{THERMO_FREQ}} out_file model_devi.out",
        f"pair_coeff      * * {' '.join(type_map)}",
        "",
        "thermo_style    custom step temp pe ke etotal press vol lx ly lz xy xz yz",
        "thermo          ${THERMO_FREQ}",
        f"dump            1 all custom ${{DUMP_FREQ}} {target} id type x y z fx fy fz",
        "dump_modify     1 sort id format float %.15g",
        *(['if "${restart} > 0" then "dump_modify 1 append yes"'] if c.merged else []),
        f"restart         {restart_interval(c.nsteps, c.trj_freq)} dpgen.restart",
        "",
        f'if "${{restart}} == 0" then "velocity all create ${{TEMP}} {c.seed}"',
        *_integrator(c),
        f"timestep        {c.timestep:f}",
        "run             ${NSTEPS} upto",
    ]
    return "\n".join(lines) + "\n"


def _integrator(c: Conditions) -> list[str]:
    """Return the fixes that move the atoms; an isolated system neither drifts nor spins."""
    still = (
        []
        if c.periodic
        else ["velocity        all zero linear", "fix             fm all momentum 1 linear 1 1 1 rescale"]
    )
    if c.ensemble == "nve":
        return [*still, "fix             1 all nve"]
    if c.ensemble == "nvt":
        return [*still, "fix             1 all nvt temp ${TEMP} ${TEMP} ${TAU_T}"]
    coupling = _COUPLING[c.ensemble]
    return [f"fix             1 all npt temp ${{TEMP}} ${{TEMP}} ${{TAU_T}} {coupling} ${{PRES}} ${{PRES}} ${{TAU_P}}"]
