"""A stand-in for vasp_std in tests: the same four input files, OUTCAR and vasprun.xml of the same format.

The energy is that of ASE's EMT if it knows all elements, else of a Lennard-Jones potential (one for all pairs). TOTEN
is the calculator's energy, from which forces and stress derive. Wrong input ends with exit status 1, also where VASP
would go on silently: a POTCAR that does not fit POSCAR, a tag given twice in INCAR with different values.

VASP_STANDIN_COUNT     a file to which each start appends the name of its folder
VASP_STANDIN_FAIL      names of folders, separated by commas, in which the calculation fails
VASP_STANDIN_FAIL_HOW  unconverged, crash, garbage or no-outcar
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.units import GPa

STEPS_TO_CONVERGE = 12
ENTROPY = -0.002  # eV; the energy without entropy is this much above TOTEN, that for sigma -> 0 half as much
KBAR = 0.1 * GPa
SECTION = f"\n\n{'-' * 104}\n\n"
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
OUTCAR_START = " vasp.6.2.1.standin (not VASP) complex\n\n running on    1 total cores\n"
XML_START = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
<generator><i name="program" type="string">vasp </i><i name="version" type="string">6.2.1.standin </i></generator>
"""


@dataclass(frozen=True)
class Job:
    """The four input files."""

    tags: dict[str, str]
    title: str
    atoms: Atoms
    counts: list[int]
    titles: list[tuple[str, str]]
    echo: list[str]
    nelect: float
    magmoms: list[float]
    scheme: str
    mesh: list[int]
    points: list[tuple[float, ...]]
    settings: dict[str, int]


@dataclass(frozen=True)
class Result:
    """Free energy after each electronic step (eV), forces (eV/A), minus the stress (kbar)."""

    steps: list[float]
    converged: bool
    forces: np.ndarray
    pressure: np.ndarray


def read_tags(text: str) -> dict[str, str]:
    """Return the tags of INCAR by upper-case name."""
    found: dict[str, str] = {}
    for line in re.sub(r"\\[ \t]*\n", " ", text).splitlines():
        for statement in re.split(r"[#!]", line)[0].split(";"):
            match = re.match(r"\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*$", statement)
            if match and found.setdefault(match[1].upper(), match[2]) != match[2]:
                raise ValueError(f"INCAR has {match[1]} twice, with different values")
    return found


def expand(value: str) -> list[float]:
    """Expand N*m of MAGMOM; what follows the numbers is a comment."""
    matches = (re.fullmatch(rf"(?:(\d+)\*)?({NUMBER})", word) for word in value.split())
    return [float(match[2]) for match in itertools.takewhile(bool, matches) for _ in range(int(match[1] or 1))]


def read_poscar(text: str) -> tuple[list[str], list[int], Atoms]:
    """Return species, number of atoms of each, and the atoms, moved into the cell as VASP does it."""
    lines = text.splitlines()
    scale = float(lines[1].split()[0])
    cell = np.array([[float(x) for x in line.split()[:3]] for line in lines[2:5]]).reshape(3, 3)
    species = [re.split(r"[/_]", word)[0] for word in lines[5].split()]
    counts = [int(word) for word in lines[6].split()]
    start = 8 if lines[7].strip()[:1] in ("S", "s") else 7
    cartesian = lines[start].strip()[:1] in ("C", "c", "K", "k")
    rows = [row.split() for row in itertools.takewhile(str.strip, lines[start + 1 :])]
    if not species or len(species) != len(counts) or min(counts) < 1 or not set(species) <= set(atomic_numbers):
        raise ValueError(f"POSCAR has the species {species} with the numbers {counts}")
    if len(rows) != sum(counts):
        raise ValueError(f"POSCAR has {len(rows)} lines of coordinates for {sum(counts)} ions")
    if np.linalg.det(cell) <= 0 or scale == 0:
        raise ValueError("the triple product of the basis vectors is not positive: exchange two basis vectors")
    coordinates = np.array([[float(x) for x in row[:3]] for row in rows]).reshape(-1, 3)
    fractional = np.linalg.solve(cell.T, coordinates.T).T if cartesian else coordinates
    cell *= scale if scale > 0 else (-scale / np.linalg.det(cell)) ** (1 / 3)
    return species, counts, Atoms(np.repeat(species, counts), cell=cell, scaled_positions=fractional % 1.0, pbc=True)


def read_potcar(text: str) -> tuple[list[tuple[str, str]], list[float], list[str]]:
    """Return TITEL and element of each dataset, valences (4 if they are left out), and the lines to echo in OUTCAR."""
    titles = re.findall(r"^[ \t]*TITEL\s*=\s*(\S+ +([A-Z][a-z]?)(?![a-z]).*?)\s*$", text, re.MULTILINE)
    valences = [float(number) for number in re.findall(rf"\bZVAL\s*=\s*({NUMBER})", text)]
    echo = [line for line in text.splitlines() if re.search(r"\b(TITEL|VRHFIN|POMASS|ZVAL)\s*=", line)]
    return titles, valences if len(valences) == len(titles) else [4.0] * len(titles), echo


def read_kpoints(text: str) -> tuple[str, list[int], list[tuple[float, ...]]]:
    """Return scheme and divisions of the mesh, and all its points (none left out by symmetry)."""
    lines = [*text.splitlines(), *[""] * 5]
    scheme = lines[2].strip()[:1].upper()
    words, whole = lines[3].split()[:3], re.compile(r"[1-9]\d*")
    if lines[1].split()[:1] != ["0"] or scheme not in ("G", "M") or len(list(filter(whole.fullmatch, words))) != 3:
        raise ValueError("KPOINTS has no automatic Gamma or Monkhorst-Pack mesh of three positive numbers")
    mesh = [int(word) for word in words]
    shifts = [float(word) for word in lines[4].split()[:3]] or [0.0] * 3
    starts = [shift + (0.0 if scheme == "G" or n % 2 else 0.5) for n, shift in zip(mesh, shifts, strict=True)]
    axes = [[(start + i) / n for i in range(n)] for n, start in zip(mesh, starts, strict=True)]
    return {"G": "Gamma", "M": "Monkhorst-Pack"}[scheme], mesh, list(itertools.product(*axes))


def read_job(folder: Path) -> Job:
    """Read the input files and compare them; ISIF is 0 by default for molecular dynamics, as in VASP."""
    texts = {}
    for name in ("INCAR", "POSCAR", "POTCAR", "KPOINTS"):
        texts[name] = (folder / name).read_text() if (folder / name).is_file() else ""
        if not texts[name].strip():
            raise ValueError(f"No {name} found, STOPPING")
    tags = read_tags(texts["INCAR"])
    defaults = {"NELM": "60", "NSW": "0", "ISPIN": "1"}
    settings = {tag: int(tags.get(tag, value).split()[0]) for tag, value in defaults.items()}
    ibrion = int(tags.get("IBRION", "0" if settings["NSW"] else "-1").split()[0])
    settings["ISIF"] = int(tags.get("ISIF", "2" if ibrion else "0").split()[0])
    settings["IBRION"] = ibrion if settings["NSW"] else -1
    species, counts, atoms = read_poscar(texts["POSCAR"])
    titles, valences, echo = read_potcar(texts["POTCAR"])
    magmoms = expand(tags["MAGMOM"]) if "MAGMOM" in tags else [1.0] * len(atoms)
    if [element for _, element in titles] != species:
        raise ValueError(f"POTCAR has {[titel for titel, _ in titles]}, POSCAR has {species}")
    if len(magmoms) != len(atoms):
        raise ValueError(f"Error reading item 'MAGMOM' from file INCAR: {len(magmoms)} numbers for {len(atoms)} ions")
    if settings["NSW"] > 1 or settings["NELM"] < 1:
        raise ValueError(f"{settings}: there is at most one ionic step here, of one iteration at least")
    title, nelect = texts["POSCAR"].splitlines()[0].strip()[:40], float(np.dot(counts, valences))
    return Job(tags, title, atoms, counts, titles, echo, nelect, magmoms, *read_kpoints(texts["KPOINTS"]), settings)


def compute(job: Job, unconverged: bool) -> Result:
    """Evaluate the potential and make up the way to self-consistency."""
    from ase.calculators import emt, lj  # slow, and of no use where the input is wrong

    atoms = job.atoms.copy()
    known = set(atoms.symbols) <= set(emt.parameters)
    atoms.calc = emt.EMT() if known else lj.LennardJones(sigma=2.2, epsilon=0.05, rc=5.0, smooth=True)
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
    if not all(np.isfinite(x).all() for x in (energy, forces, stress)):
        raise ValueError("the ions are too close to each other")
    converged = job.settings["NELM"] >= STEPS_TO_CONVERGE and not unconverged
    numbers = range(1, 1 + (STEPS_TO_CONVERGE if converged else job.settings["NELM"]))
    steps = [float(energy + (0.5 * math.cos(n) if unconverged else 10.0 * math.exp(-1.5 * n))) for n in numbers]
    return Result([*steps[:-1], float(energy)] if converged else steps, converged, forces, -stress / KBAR)


def fixed(values: float | Iterable[float], width: int, digits: int) -> str:
    """Write numbers as Fortran's F format does: stars if one is too long for its column."""
    words = (f"{value:{width}.{digits}f}" for value in np.atleast_1d(values))
    return "".join(word if len(word) <= width else "*" * width for word in words)


def lattice(atoms: Atoms) -> list[str]:
    """Return the lines of OUTCAR on the cell."""
    cell, reciprocal = atoms.cell.array, np.linalg.inv(atoms.cell.array).T
    lines = ["  energy-cutoff  :      400.00", f"  volume of cell :{fixed(atoms.get_volume(), 12, 2)}"]
    lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
    lines += [f"   {fixed(a, 13, 9)}   {fixed(b, 13, 9)}" for a, b in zip(cell, reciprocal, strict=True)]
    return [*lines, "", ""]


def outcar_head(job: Job) -> list[str]:
    """Return the lines of OUTCAR before the first electronic step."""
    lines = [SECTION, " INCAR:", *(f" POTCAR:    {titel:<38}" for titel, _ in job.titles * 2), *job.echo]
    k, bands = len(job.points), f"number of bands    NBANDS={math.ceil(job.nelect):7d}"
    lines += ["", f" POSCAR: {job.title}", " KPOINTS: Automatic mesh", SECTION, " Dimension of arrays:"]
    lines += [f"   k-points           NKPTS ={k:7d}   k-points in BZ     NKDIM ={k:7d}   {bands}"]
    lines += [f"   number of dos      NEDOS =    301   number of ions     NIONS ={len(job.atoms):7d}"]
    lines += ["   total plane-waves  NPLWV =   8640"]
    lines += [f"   ions per type =            {''.join(f'{n:4d}' for n in job.counts)}", ""]
    lines += [f" SYSTEM =  {job.tags.get('SYSTEM', 'unknown system')[:40]:<40}", f" POSCAR =  {job.title:<40}", ""]
    lines += [" Startparameter for this run:", "   NWRITE =      2    write-flag & timer"]
    nelm, nsw, ispin, isif, ibrion = (f"{value:7d}" for value in job.settings.values())
    lines += [f"   ISPIN  ={ispin}    spin polarized calculation?", "", " Electronic Relaxation 1"]
    lines += [f"   NELM   ={nelm};   NELMIN=  2; NELMDL= -5     # of ELM steps ", " Ionic relaxation"]
    lines += [f"   NSW    ={nsw}    number of steps for IOM", f"   IBRION ={ibrion}", f"   ISIF   ={isif}"]
    lines += [f"   NELECT ={fixed(job.nelect, 13, 4)}    total number of electrons", SECTION, *lattice(job.atoms)]
    lines += [" k-points in reciprocal lattice and weights: Automatic mesh"]
    return [*lines, *(f" {fixed(point, 12, 8)}{fixed(1 / k, 12, 3)}" for point in job.points), SECTION]


def outcar_steps(job: Job, result: Result) -> list[str]:
    """Return the lines of OUTCAR on the electronic steps."""
    lines, moment = [], fixed(0.0, 15, 7) if job.settings["ISPIN"] == 2 else ""
    for step, (before, energy) in enumerate(itertools.pairwise([0.0, *result.steps]), 1):
        lines += [f"{'-' * 39} Iteration{1:7d}({step:4d})  {'-' * 39}", "", ""]
        lines += [f" total energy-change (2. order) :{energy - before:14.6E}  ({energy - before:14.6E})"]
        lines += [f" number of electron {fixed(job.nelect, 15, 7)} magnetization {moment}", ""]
        lines += [" Free energy of the ion-electron system (eV)", f"  entropy T*S    EENTRO ={fixed(ENTROPY, 19, 8)}"]
        lines += [f"  free energy    TOTEN  ={fixed(energy, 19, 8)} eV", ""]
        lines += [f"  energy without entropy ={with_entropy(energy)}", SECTION]
    lines += [" E-fermi :   3.9419     XC(G=0):  -9.6474     alpha+bet : -9.6808", "", ""]
    how = "because EDIFF is reached" if result.converged else "EDIFF was not reached (unconverged)"
    return [*lines, f"{'-' * 24} aborting loop {how} {'-' * 40}", "", ""]


def with_entropy(free: float) -> str:
    return f"{fixed(free - ENTROPY, 18, 8)}  energy(sigma->0) ={fixed(free - ENTROPY / 2, 18, 8)}"


def outcar_stress(job: Job, result: Result) -> list[str]:
    """Return the block of OUTCAR on the stress; dpdata wants `in kB` at least 14 lines after the first."""
    in_kb = [result.pressure[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))]
    in_ev = [value * KBAR * job.atoms.get_volume() for value in in_kb]
    lines = ["  FORCE on cell =-STRESS in cart. coord.  units (eV):"]
    lines += ["  Direction    XX          YY          ZZ          XY          YZ          ZX", f"  {'-' * 86}"]
    lines += [f"  Alpha Z{fixed([0.0] * 3, 12, 5)}", f"  Local  {fixed(in_ev, 12, 5)}"]
    others = ("Ewald", "Hartree", "E(xc)", "n-local", "augment", "Kinetic", "Fock")
    lines += [f"  {name:<7}{fixed([0.0] * 6, 12, 5)}" for name in others]
    lines += [f"  {'-' * 85}", f"  Total  {fixed(in_ev, 12, 5)}", f"  in kB  {fixed(in_kb, 12, 5)}"]
    external = fixed(sum(in_kb[:3]) / 3, 12, 2)
    return [*lines, f"  external pressure ={external} kB  Pullay stress =        0.00 kB", "", ""]


def outcar(job: Job, result: Result) -> str:
    stress = outcar_stress(job, result) if job.settings["ISIF"] else []
    lines = [*outcar_head(job), *outcar_steps(job, result), *stress]
    lines += [" VOLUME and BASIS-vectors are now :", f" {'-' * 77}", *lattice(job.atoms)]
    lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", f" {'-' * 83}"]
    rows = zip(job.atoms.positions, result.forces, strict=True)
    lines += [f"{fixed(position, 13, 5)}   {fixed(force, 14, 6)}" for position, force in rows]
    lines += [f" {'-' * 83}", f"    total drift:                      {fixed(sum(result.forces), 16, 6)}", SECTION]
    lines += ["", "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", f"  {'-' * 51}"]
    lines += [f"  free  energy   TOTEN  ={fixed(result.steps[-1], 19, 8)} eV", ""]
    lines += [f"  energy  without entropy={with_entropy(result.steps[-1])}", SECTION]
    lines += [" General timing and accounting informations for this job:", f" {'=' * 56}", "  "]
    times = [f"{name:>43}:{fixed(1.0, 13, 3)}" for name in ("Total CPU time used (sec)", "Elapsed time (sec)")]
    return "\n".join([OUTCAR_START, *lines, *times, "", f"{'Voluntary context switches':>43}:{355:13d}", ""])


def item(name: str, value: str | float, kind: str = "") -> str:
    """Return one value of vasprun.xml; a number without a type is real."""
    attribute = f' type="{kind}"' if kind else ""
    return f'<i{attribute} name="{name}">{escape(value) if isinstance(value, str) else fixed(value, 16, 8)}</i>'


def array(name: str, rows: Iterable[Iterable[float]]) -> list[str]:
    """Return a varray of vasprun.xml."""
    vectors = ["".join(f" {fixed(x, 16, 8)}" for x in row) for row in rows]
    return [f'<varray name="{name}" >', *(f" <v>{vector} </v>" for vector in vectors), "</varray>"]


def structure(atoms: Atoms, head: str) -> list[str]:
    """Return a structure of vasprun.xml."""
    cell = [*array("basis", atoms.cell.array), item("volume", atoms.get_volume())]
    cell += array("rec_basis", np.linalg.inv(atoms.cell.array).T)
    return [head, "<crystal>", *cell, "</crystal>", *array("positions", atoms.get_scaled_positions()), "</structure>"]


def energies(*values: float) -> list[str]:
    return ["<energy>", *map(item, ("e_fr_energy", "e_wo_entrp", "e_0_energy"), values), "</energy>"]


def table(name: str, rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a table of vasprun.xml."""
    cells = ("".join(f"<c>{escape(word)}</c>" for word in row) for row in rows)
    return [f'<array name="{name}" >', "<set>", *(f"<rc>{row}</rc>" for row in cells), "</set>", "</array>"]


def vasprun(job: Job, result: Result) -> str:
    """Return vasprun.xml, with VASP's mistake: the last energies are TOTEN, that for sigma -> 0, and the entropy."""
    lines = ["<incar>", *(item(tag, text, "string") for tag, text in job.tags.items() if tag != "MAGMOM"), "</incar>"]
    lines += ["<kpoints>", f'<generation param="{job.scheme}">']
    lines += [f'<v type="int" name="divisions">{"".join(f"{n:9d}" for n in job.mesh)} </v>', "</generation>"]
    lines += [*array("kpointlist", job.points), *array("weights", [[1 / len(job.points)]] * len(job.points))]
    lines += ["</kpoints>", "<parameters>", item("NELECT", job.nelect), item("PSTRESS", 0.0)]
    lines += [item(tag, f"{value:6d}", "int") for tag, value in job.settings.items()]
    lines += [f'<v name="MAGMOM">{fixed(job.magmoms, 16, 8)}</v>', "</parameters>", "<atominfo>"]
    kinds = [(f"{n:4d}", *title) for n, title in zip(job.counts, job.titles, strict=True)]
    atoms = [(f"{name:<2}", f"{kind:4d}") for kind, (n, _, name) in enumerate(kinds, 1) for _ in range(int(n))]
    species = [(n, f"{name:<2}", "1.0", "1.0", f"  {titel:<38}") for n, titel, name in kinds]
    lines += [*table("atoms", atoms), *table("atomtypes", species), "</atominfo>"]
    lines += [*structure(job.atoms, '<structure name="initialpos" >'), "<calculation>"]
    for energy in result.steps:
        lines += ["<scstep>", *energies(energy, energy - ENTROPY, energy - ENTROPY / 2), "</scstep>"]
    lines += [*structure(job.atoms, "<structure>"), *array("forces", result.forces)]
    lines += array("stress", result.pressure) if job.settings["ISIF"] else []
    lines += [*energies(result.steps[-1], result.steps[-1] - ENTROPY / 2, ENTROPY), "</calculation>"]
    return XML_START + "\n".join([*lines, *structure(job.atoms, '<structure name="finalpos" >'), "</modeling>", ""])


def prepare(name: str) -> str:
    """Note that a calculation starts in the folder of this name; return how it is to fail, nothing if it is not."""
    if "VASP_STANDIN_COUNT" in os.environ:
        with open(os.environ["VASP_STANDIN_COUNT"], "a") as stream:  # O_APPEND, and one write when it is closed
            stream.write(f"{name}\n")
    if name not in [word.strip() for word in os.environ.get("VASP_STANDIN_FAIL", "").split(",")]:
        return ""
    how = os.environ.get("VASP_STANDIN_FAIL_HOW", "")
    if how not in ("unconverged", "crash", "garbage", "no-outcar"):
        raise SystemExit(f"VASP_STANDIN_FAIL_HOW = {how!r} is unknown")
    return how


def main() -> int:
    """Run in the current folder and return the exit status."""
    text_file, xml_file = Path("OUTCAR"), Path("vasprun.xml")
    how = prepare(Path.cwd().name)
    print(f" running on 1 total cores\n{OUTCAR_START.splitlines()[0]}")
    text_file.write_text(OUTCAR_START)
    xml_file.write_text(XML_START)
    try:
        job = read_job(Path())
        result = compute(job, how == "unconverged")
    except (ValueError, IndexError) as error:
        print(f" ERROR: {error}\n\n     ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB ... BYE!!! <----")
        return 1
    text, xml = outcar(job, result), vasprun(job, result)
    if how == "crash":
        text_file.write_text(text[: len(text) // 2])
        xml_file.unlink()
        return 139
    text_file.write_bytes(np.random.default_rng(1).bytes(len(text)) if how == "garbage" else text.encode())
    xml_file.write_text(xml[: len(xml) // 2] if how == "garbage" else xml)
    if how == "no-outcar":
        text_file.unlink()
    for step, (before, energy) in enumerate(itertools.pairwise([0.0, *result.steps]), 1):
        print(f"DAV:{step:4d}{energy:23.12E}{energy - before:15.5E}{energy - before:15.5E}   864   0.100E+01")
    print(f"   1 F= {result.steps[-1]:14.7E} E0= {result.steps[-1] - ENTROPY / 2:14.7E}  d E ={ENTROPY:12.5E}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
