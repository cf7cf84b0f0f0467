"""LAMMPS input decks with DP-GEN's physics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from activelearn.explore.lammps_settings import LammpsSettings

_COUPLING = {
    "npt": "iso",
    "npt-i": "iso",
    "npt-iso": "iso",
    "npt-a": "aniso",
    "npt-aniso": "aniso",
    "npt-t": "tri",
    "npt-tri": "tri",
}

MVV2E = 1.0364269e-4
"""eV of 1 u at 1 A/ps, squared: LAMMPS's own number for metal units."""


@dataclass(frozen=True)
class Recoil:
    """A primary knock-on atom."""

    energy: float
    """eV."""
    direction: tuple[float, float, float]
    """Unit vector."""


@dataclass(frozen=True)
class Conditions:
    """What one MD task is run under."""

    ensemble: str
    nsteps: int
    trj_freq: int
    timestep: float
    """ps."""
    tau_t: float
    """Relaxation time of the thermostat, ps."""
    tau_p: float
    """Relaxation time of the barostat, ps."""
    neighbour_delay: int | None
    """Steps without a new neighbour list after each new one."""
    temperature: float
    """K."""
    electron_temperature: float | None
    """K."""
    pressure: float | None
    """bar."""
    seed: int
    """Of the starting velocities."""
    n_beads: int | None
    """Of path-integral MD."""
    recoil: Recoil | None = None
    """What sets the atoms in motion instead of the temperature."""


def restart_interval(nsteps: int, trj_freq: int) -> int:
    """Return how often to write restart files: ten times a run, at most every 10,000 steps, with a frame each time."""
    return max(1, min(10_000, nsteps // 10) // trj_freq) * trj_freq


def keywords(settings: LammpsSettings, electron: str | None) -> list[str]:
    """Return what `pair_style deepmd` is told beside the models and the deviation file.

    Parameters
    ----------
    settings
        Settings.
    electron
        "fparam" or "aparam" where the models take the electron temperature, which the deck calls ELE_TEMP.
    """
    words = ["atomic"] if settings.use_clusters else []
    if settings.use_relative:
        words.append(f"relative {settings.epsilon}")
    if settings.use_relative_v:
        words.append(f"relative_v {settings.epsilon_v}")
    if electron:
        words.append(f"{electron} ${{ELE_TEMP}}")
    return words


def dispersion(settings: LammpsSettings) -> str:
    """Return the arguments of `dispersion/d3`; empty where there is none."""
    d3 = settings.d3
    return f"{d3.damping_function} {d3.functional} {d3.cutoff} {d3.cn_cutoff}" if d3 else ""


def render(
    graphs: Sequence[str],
    masses: Sequence[float],
    type_map: Sequence[str],
    conditions: Conditions,
    settings: LammpsSettings,
    electron: str | None = None,
) -> str:
    """Return the input deck of one task.

    The variable `restart` is 0 on a fresh start and 1 when restart files are to be continued from; frames and
    deviations are written at the same steps. In path-integral MD `ibead` numbers the partitions from 1.

    Parameters
    ----------
    graphs
        Files of the models; the first one moves the atoms.
    masses
        In the order of type_map, u.
    type_map
        Elements.
    conditions
        What is held.
    settings
        Settings.
    electron
        "fparam" or "aparam" where the models take the electron temperature.
    """
    c, merged = conditions, settings.model_devi_merge_traj
    bead = "${ibead}" if c.n_beads else ""
    target = f"all.lammpstrj{bead}" if merged else f"traj/*.lammpstrj{bead}"
    lines = [
        *_variables(c),
        "",
        f"log             log.lammps{'.' + bead if bead else ''} append",
        *(["atom_modify     map yes"] if needs_map(graphs) or c.n_beads or c.recoil else []),
        "units           metal",
        f"boundary        {'f f f' if settings.model_devi_nopbc else 'p p p'}",
        "atom_style      atomic",
        "neighbor        1.0 bin",
        *_neighbours(c, settings),
        "box             tilt large",
        f'if "${{restart}} > 0" then "read_restart dpgen.restart{bead}.*" else "read_data conf.lmp"',
        "change_box      all triclinic",
        *(f"mass            {number} {mass:f}" for number, mass in enumerate(masses, 1)),
        *_potential(graphs, type_map, settings, electron, bead),
        "",
        "thermo_style    custom step temp pe ke etotal press vol lx ly lz xy xz yz",
        "thermo          ${THERMO_FREQ}",
        f"dump            1 all custom ${{DUMP_FREQ}} {target} id type x y z fx fy fz",
        "dump_modify     1 sort id format float %.15g",
        *(['if "${restart} > 0" then "dump_modify 1 append yes"'] if merged else []),
        f"restart         {restart_interval(c.nsteps, c.trj_freq)} dpgen.restart{bead}",
        "",
        *(_recoil(c.recoil) if c.recoil else [_velocities(c)]),
        _path_integral(c) if c.n_beads else _integrator(c),
        *(_still() if settings.model_devi_nopbc else []),
        f"timestep        {c.timestep:f}",
        "run             ${NSTEPS} upto",
    ]
    return "\n".join(lines) + "\n"


def needs_map(graphs: Sequence[str]) -> bool:
    """Return whether models of this format find atoms by their id."""
    return any(graph.endswith(".pt2") for graph in graphs)


def _variables(c: Conditions) -> list[str]:
    beads, electron = c.n_beads, c.electron_temperature
    return [
        f"variable        NSTEPS          equal {c.nsteps}",
        *([f"variable        ibead           uloop {10 ** len(str(beads)) - 1} pad"] if beads else []),
        f"variable        THERMO_FREQ     equal {c.trj_freq}",
        f"variable        DUMP_FREQ       equal {c.trj_freq}",
        f"variable        TEMP            equal {c.temperature:f}",
        *([f"variable        TEMP_NBEADS     equal {c.temperature * beads:f}"] if beads else []),
        *([f"variable        ELE_TEMP        equal {electron:f}"] if electron is not None else []),
        *([f"variable        PRES            equal {c.pressure:f}"] if c.pressure is not None else []),
        f"variable        TAU_T           equal {c.tau_t:f}",
        *([f"variable        TAU_P           equal {c.tau_p:f}"] if c.pressure is not None else []),
    ]


def _neighbours(c: Conditions, settings: LammpsSettings) -> list[str]:
    options = {"delay": c.neighbour_delay, "one": settings.lmp_neigh_modify_one}
    words = [f"{name} {value}" for name, value in options.items() if value is not None]
    return [f"neigh_modify    {' '.join(words)}"] if words else []


def _potential(
    graphs: Sequence[str], type_map: Sequence[str], settings: LammpsSettings, electron: str | None, bead: str
) -> list[str]:
    """Return the lines that load the models, and the dispersion correction on top."""
    output = ["out_freq ${THERMO_FREQ}", f"out_file model_devi{bead}.out"]
    models = " ".join(["deepmd", *graphs, *output, *keywords(settings, electron)])
    types = " ".join(type_map)
    if settings.d3 is None:
        return [f"pair_style      {models}", f"pair_coeff      * * {types}"]
    return [
        f"pair_style      hybrid/overlay {models} dispersion/d3 {dispersion(settings)}",
        f"pair_coeff      * * deepmd {types}",
        f"pair_coeff      * * dispersion/d3 {types}",
    ]


def _integrator(c: Conditions) -> str:
    """Return the fix that moves the atoms."""
    if c.ensemble == "nve":
        return "fix             1 all nve"
    if c.ensemble == "nvt":
        return "fix             1 all nvt temp ${TEMP} ${TEMP} ${TAU_T}"
    coupling = _COUPLING[c.ensemble]
    return f"fix             1 all npt temp ${{TEMP}} ${{TEMP}} ${{TAU_T}} {coupling} ${{PRES}} ${{PRES}} ${{TAU_P}}"


def _path_integral(c: Conditions) -> str:
    """Return the fix that moves the beads."""
    words = [
        "fix             1 all pimd/langevin fmmode physical ensemble",
        c.ensemble.split("-")[0],
        "integrator obabo",
    ]
    if c.ensemble == "nve":
        return " ".join([*words, "temp ${TEMP}"])
    words.append("thermostat PILE_L ${ibead} temp ${TEMP} tau ${TAU_T} scale 1.0")
    if c.ensemble != "nvt":
        words.append(f"barostat BZP {_COUPLING[c.ensemble]} ${{PRES}} taup ${{TAU_P}}")
    return " ".join(words)


def _still() -> list[str]:
    """Return what keeps an isolated system from drifting."""
    return ["velocity        all zero linear", "fix             fm all momentum 1 linear 1 1 1"]


def _velocities(c: Conditions) -> str:
    temperature = "TEMP_NBEADS" if c.n_beads else "TEMP"
    return f'if "${{restart}} == 0" then "velocity all create ${{{temperature}}} {c.seed}"'


def _recoil(recoil: Recoil) -> list[str]:
    """Return the lines that set the first atom in motion; the whole does not drift."""
    components = " ".join(f"$(v_PKA_V*{x:.6f})" for x in recoil.direction)
    return [
        "group           first id 1",
        f"variable        PKA_V           equal sqrt({recoil.energy:f}/(0.5*mass[1]*{MVV2E}))",
        f'if "${{restart}} == 0" then "velocity first set {components} units box"',
        "fix             2 all momentum 1 linear 1 1 1",
    ]
