"""Gaussian: one input of one or more steps for each frame, taken as a molecule; energy and forces from its log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import ase
from pydantic import Field, PositiveInt

from activelearn.config.base import Settings
from activelearn.config.param import Param
from activelearn.dispatch.task import Batch, Task
from activelearn.errors import Problem
from activelearn.files import write_if_different
from activelearn.label import fragments, values
from activelearn.label.values import Picked

INPUT, OUTPUT = "input", "output"
CHECKPOINT = "label.chk"
Keywords = Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]


class GaussianParams(Settings):
    """What is calculated."""

    keywords: Keywords
    """Route section without #, such as "force b3lyp/6-31g**"; a list: several steps, each from the one before."""
    multiplicity: PositiveInt | Literal["auto"] = "auto"
    """Spin multiplicity; "auto": from the molecules in the frame (2 for a radical, 3 for O2)."""
    nproc: PositiveInt
    """Processors."""
    charge: int = 0
    """Charge, e."""
    fragment_guesses: bool = False
    """Start from a guess for each molecule (Gaussian 16); the multiplicity is then "auto"."""
    basis_set: str | None = None
    """Basis set, put below the coordinates (for keywords with gen or genecp)."""
    keywords_high_multiplicity: Keywords | None = None
    """Other keywords for frames with two unpaired electrons or more."""


class GaussianSettings(Settings):
    """Keys of param.json that concern Gaussian."""

    fp_params: GaussianParams | None = None
    """What is calculated."""
    user_fp_params: GaussianParams | None = None
    """The same under another name; it goes first."""


class Gaussian:
    """Labels from Gaussian."""

    Settings = GaussianSettings

    def __init__(self, settings: GaussianSettings, param: Param, _root: Path) -> None:
        self.params = settings.user_fp_params or settings.fp_params
        self.key = "fp_params" if settings.user_fp_params is None else "user_fp_params"
        self.type_map = list(param.type_map)

    def check(self, file: str, structures: Sequence[ase.Atoms]) -> list[Problem]:
        """Return what is wrong with the keywords and the multiplicity."""
        given = self.params
        if given is None:
            message = "is required but missing: keywords, nproc, ..."
            return [Problem(file, "fp_params", message, 'for example {"keywords": "force b3lyp/6-31g**", "nproc": 4}')]
        problems = []
        for key, keywords in (
            ("keywords", given.keywords),
            ("keywords_high_multiplicity", given.keywords_high_multiplicity),
        ):
            steps = [keywords] if isinstance(keywords, str) else keywords or ["force"]
            if not any("force" in step.lower() for step in steps):
                message = "asks for no forces"
                problems.append(Problem(file, f"{self.key}.{key}", message, 'add the word "force"'))
        if given.fragment_guesses and given.multiplicity != "auto":
            message = "is not used with fragment_guesses: it follows from the molecules"
            problems.append(Problem(file, f"{self.key}.multiplicity", message, 'write "auto"', "warning"))
        elif isinstance(given.multiplicity, int):
            odd = {(int(atoms.numbers.sum()) - given.charge) % 2 for atoms in structures}
            if odd and all((given.multiplicity + parity) % 2 == 0 for parity in odd):
                message = f"{given.multiplicity} does not go with the number of electrons of any structure"
                problems.append(Problem(file, f"{self.key}.multiplicity", message, 'write "auto"'))
        return problems

    def batch(self, folder: Path, frames: Iterable[Picked]) -> Batch:
        """Write the input of each frame."""
        tasks = []
        compositions: dict[str, dict[str, int]] = {}
        for frame in frames:
            atoms = values.in_type_map_order(frame.atoms, self.type_map)
            compositions[frame.task] = values.composition(atoms)
            if self.params is not None:
                write_if_different(folder / frame.task / INPUT, text(self.params, atoms))
            tasks.append(Task(frame.task, forward=(INPUT,), outputs=(OUTPUT,), result=(OUTPUT,)))
        return values.single_points(folder, tasks, compositions, self.read, OUTPUT, errors="fp.log")

    def read(self, folder: Path) -> Any:
        """Read one labelled frame, without a virial.

        Raises
        ------
        NotConvergedError, ValueError
            There is no converged label.
        """
        output = folder / OUTPUT
        printed = values.printed(output)
        if "Convergence failure -- run terminated" in printed or "Convergence criterion not met" in printed:
            raise values.NotConvergedError("not converged: Gaussian's SCF reached MaxCycle")
        if "Normal termination" not in printed:
            raise ValueError("Gaussian stopped before its end")
        return values.parse(str(output), "gaussian/log")


def text(given: GaussianParams, atoms: ase.Atoms) -> str:
    """Return the input of one frame; coordinates in A."""
    owner = fragments.fragments(atoms)
    spins = fragments.multiplicities(atoms, owner)
    chosen = given.keywords
    if given.keywords_high_multiplicity is not None and sum(spin - 1 for spin in spins) >= 2:
        chosen = given.keywords_high_multiplicity
    first, *more = [chosen] if isinstance(chosen, str) else chosen
    guess = given.fragment_guesses and len(spins) > 1
    if given.multiplicity != "auto" and not given.fragment_guesses:
        total = given.multiplicity
    elif guess:
        total = sum(spins) - len(spins) + 1
    else:
        total = 1 + spins.count(2) % 2 + 2 * spins.count(3)
    head = [f"%nproc={given.nproc}"]
    if more:
        head.insert(0, f"%chk={CHECKPOINT}")
    charges = f"{given.charge} {total}"
    parts = "".join(f" {given.charge} {spin}" for spin in spins) if guess else ""
    lines = [*head, f"#{first}" + (f" guess=fragment={len(spins)}" if guess else ""), "", "DPGEN", "", charges + parts]
    rows = zip(atoms.get_chemical_symbols(), atoms.positions, owner, strict=True)
    lines += [f"{s}{f'(Fragment={o + 1})' if guess else ''} {x:.8f} {y:.8f} {z:.8f}" for s, (x, y, z), o in rows]
    if given.basis_set is not None:
        lines += ["", given.basis_set, ""]
    for step in more:
        lines += ["", "--link1--", *head, f"#{step}", "", "DPGEN", "", charges, ""]
    return "\n".join([*lines, "", ""])
