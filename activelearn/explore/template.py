"""Template mode: the user's own LAMMPS and PLUMED input, filled in for each task.

Only what must follow from the run is rewritten, as in DP-GEN: the line `pair_style deepmd` (unless it is written out in
full) with its `pair_coeff`, `dump dpgen_dump`, `fix dpgen_plm`, and the words of rev_mat and sys_rev_mat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from activelearn.config.param import ExplorationJob, Revision, Value
from activelearn.explore import lammps_input
from activelearn.explore.lammps_settings import LammpsSettings

FULL = ("pair_style", "deepmd", "out_freq", "10", "out_file", "model_devi.out")
"""A `pair_style deepmd` of as many words as these, and one for each model, is the user's and stays as it is."""
_PLACEHOLDER = re.compile(r"(?<![A-Za-z0-9])V_[A-Z0-9_]*[A-Z0-9]\b")


class TemplateError(ValueError):
    """A template lacks a line it must have, or has it twice."""


@dataclass(frozen=True)
class Words:
    """The words one task replaces, and their values."""

    lammps: dict[str, Value]
    """In the LAMMPS file."""
    plumed: dict[str, Value]
    """In the PLUMED file, which those of the LAMMPS file are replaced in as well."""

    @property
    def all(self) -> dict[str, Value]:
        """All words, in DP-GEN's order; of a word that is given for both files, the value for LAMMPS holds."""
        return self.lammps | {word: value for word, value in self.plumed.items() if word not in self.lammps}


def combinations(job: ExplorationJob, system: int, plumed: bool) -> list[Words]:
    """Return every combination of values for one entry of sys_configs, the last word changing fastest."""
    revisions = [job.rev_mat, job.sys_rev_mat.get(str(system), Revision())]
    names: list[tuple[str, str]] = []
    values: list[list[Value]] = []
    for revision in revisions:
        for kind, words in (("lmp", revision.lmp), ("plm", revision.plm if plumed else {})):
            names += [(kind, word) for word in words]
            values += words.values()
    found = []
    for chosen in product(*values):
        given: dict[str, dict[str, Value]] = {"lmp": {}, "plm": {}}
        for (kind, word), value in zip(names, chosen, strict=True):
            given[kind].setdefault(word, value)  # of a word that is given twice the first value holds
        found.append(Words(given["lmp"], given["plm"]))
    return found


def replace(text: str, words: Mapping[str, Value]) -> str:
    """Replace words, in their order; a word inside a longer one is left alone (V_T in V_TEMP).

    A word that starts with V_ may have a lower-case letter or an underscore before it (`colvar_V_X`).
    """
    for word, value in words.items():
        text = _occurrence(word).sub(lambda _, value=value: str(value), text)  # type: ignore[misc]
    return text


def occurs(text: str, word: str) -> bool:
    """Return whether `replace` finds the word in the text."""
    return bool(_occurrence(word).search(text))


def _occurrence(word: str) -> re.Pattern[str]:
    before = "A-Z0-9" if word.startswith("V_") else "A-Za-z0-9_"
    left = f"(?<![{before}])" if re.match(r"\w", word) else ""
    right = r"(?!\w)" if re.search(r"\w$", word) else ""
    return re.compile(left + re.escape(word) + right)


def placeholders(text: str) -> list[str]:
    """Return words that look like ones to be replaced (V_...) and are no name the file itself defines."""
    bare = "\n".join(line.partition("#")[0] for line in text.splitlines())
    defined = set(re.findall(r"^\s*variable\s+(\w+)|^\s*(\w+):|LABEL=(\w+)", bare, flags=re.MULTILINE))
    names = {name for group in defined for name in group if name}
    return sorted({found for found in _PLACEHOLDER.findall(bare) if found not in names})


def lammps(
    text: str,
    graphs: Sequence[str],
    type_map: Sequence[str],
    job: ExplorationJob,
    settings: LammpsSettings,
    electron: str | None,
    words: Words,
) -> str:
    """Return the LAMMPS input of one task.

    Parameters
    ----------
    text
        The template.
    graphs
        Files of the models.
    type_map
        Elements.
    job
        The exploration job.
    settings
        Settings.
    electron
        "fparam" or "aparam" where the models take the electron temperature.
    words
        What is replaced.

    Raises
    ------
    TemplateError
        A line that is needed is not there, or there twice.
    """
    lines = text.splitlines()
    merged = settings.model_devi_merge_traj
    if not written_out(lines, len(graphs)):
        place = _the(lines, ("pair_style", "deepmd"))
        lines[place] = _pair_style(graphs, job.trj_freq, settings, electron)
    _coefficients(lines, type_map, settings)
    _neighbours(lines, settings)
    place = _the(lines, ("dump", "dpgen_dump"))
    target = "all.lammpstrj" if merged else "traj/*.lammpstrj"
    lines[place] = f"dump            dpgen_dump all custom {job.trj_freq} {target} id type x y z"
    if merged and restarts(text) and not _find(lines, ("dump_modify", "dpgen_dump")):
        lines.insert(place + 1, 'if "${restart} > 0" then "dump_modify dpgen_dump append yes"')
    lines = replace("\n".join(lines), words.lammps).split("\n")
    if settings.model_devi_plumed:
        place = _the(lines, ("fix", "dpgen_plm"))
        lines[place] = "fix             dpgen_plm all plumed plumedfile input.plumed outfile output.plumed"
    return "\n".join(lines) + "\n"


def plumed(text: str, words: Words) -> str:
    """Return the PLUMED input of one task."""
    return replace(text, words.all)


def plumed_files(text: str) -> list[str]:
    """Return the files a PLUMED template writes, as far as their names are the same in all tasks.

    A biased MD that is continued needs them: its hills are part of its state.
    """
    bare = "\n".join(line.partition("#")[0] for line in text.splitlines())
    named = set(re.findall(r"\bFILE=([\w.-]+)", bare))
    hills = {"HILLS"} if re.search(r"^(?!.*\bFILE=).*\bMETAD\b", bare, flags=re.MULTILINE) else set()
    return sorted(name for name in {"COLVAR"} | named | hills if not _PLACEHOLDER.search(name))


def written_out(lines: Sequence[str], n_models: int) -> bool:
    """Return whether the user has written `pair_style deepmd` out in full, models and all (a hybrid one always is)."""
    found = [line.split() for line in lines if not line.startswith("#") and "pair_style" in line and "deepmd" in line]
    if not found:
        return False
    hybrid = found[-1][:1] == ["pair_style"] and found[-1][1].startswith("hybrid") and "out_file" in found[-1]
    return hybrid or len(found[-1]) == n_models + len(FULL)


def restarts(text: str) -> str | None:
    """Return the restart files a template continues from when the variable `restart` is 1; None: it does not."""
    bare = "\n".join(line.partition("#")[0] for line in text.splitlines())
    found = re.search(r"\bread_restart\s+(dpgen\.restart\.[\w*]+)", bare)
    asks = re.search(r"\$\{restart\}|\bv_restart\b", bare)
    return found[1] if found and asks else None


def steps(text: str) -> int | None:
    """Return how many MD steps a deck makes, None where it cannot be told from its text."""
    values: dict[str, str] = {}
    total = 0
    for tokens in _commands(text):
        if tokens[0] == "variable" and len(tokens) > 3 and tokens[2] in ("equal", "index", "string"):
            values[tokens[1]] = tokens[3]
        if tokens[0] == "run" and len(tokens) > 1:
            name = re.fullmatch(r"\$\{(\w+)\}|\$(\w)", tokens[1])
            number = values.get(name[1] or name[2], "") if name else tokens[1]
            if not number.isdigit():
                return None
            total = max(total, int(number)) if "upto" in tokens[2:] else total + int(number)
        if tokens[0] == "jump" or (tokens[0] == "if" and re.search(r"\brun\b", " ".join(tokens))):
            return None
    return total


def electron_temperature(text: str) -> float | None:
    """Return the value of the variable ELE_TEMP of a deck, K."""
    for tokens in _commands(text):
        if tokens[:3] == ["variable", "ELE_TEMP", "equal"] and len(tokens) > 3:
            try:
                return float(tokens[3])
            except ValueError:
                return None
    return None


def _commands(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        tokens = line.partition("#")[0].split()
        if tokens:
            yield tokens


def _find(lines: Sequence[str], start: tuple[str, ...]) -> list[int]:
    return [place for place, line in enumerate(lines) if tuple(line.split()[: len(start)]) == start]


def _the(lines: Sequence[str], start: tuple[str, ...]) -> int:
    found = _find(lines, start)
    if len(found) != 1:
        many = f"{len(found)} lines" if found else "no line"
        raise TemplateError(f"has {many} that start with `{' '.join(start)}`")
    return found[0]


def _pair_style(graphs: Sequence[str], trj_freq: int, settings: LammpsSettings, electron: str | None) -> str:
    words = ["deepmd", *graphs, f"out_freq {trj_freq} out_file model_devi.out"]
    words += lammps_input.keywords(settings, electron)
    if settings.d3 is None:
        return f"pair_style      {' '.join(words)}"
    return f"pair_style      hybrid/overlay {' '.join(words)} dispersion/d3 {lammps_input.dispersion(settings)}"


def _coefficients(lines: list[str], type_map: Sequence[str], settings: LammpsSettings) -> None:
    """Give the models' `pair_coeff` the elements where it has none, and add that of the dispersion correction."""
    bare = [line.partition("#")[0].split() for line in lines]
    styles = [place for place, tokens in enumerate(bare) if tokens[:1] == ["pair_style"] and "deepmd" in tokens[1:]]
    if len(styles) != 1:
        raise TemplateError(f"has {len(styles)} pair_style lines with deepmd instead of one")
    style = styles[0]
    end = next((p for p in range(style + 1, len(lines)) if bare[p][:1] == ["pair_style"]), len(lines))
    coefficients = [place for place in range(style + 1, end) if bare[place][:1] == ["pair_coeff"]]
    correction = [place for place in coefficients if "dispersion/d3" in bare[place]]
    named = [place for place in coefficients if bare[place][3:4] == ["deepmd"] and place not in correction]
    others = [place for place in coefficients if place not in correction and place not in named]
    hybrid, d3 = bare[style][1].startswith("hybrid"), settings.d3 is not None
    types = " ".join(type_map)
    mine = named[0] if named else None
    if mine is None and others and (not hybrid or (d3 and _without_elements(bare[others[0]]))):
        mine = others[0]
    if mine is None:
        mine = style + 1
        lines.insert(mine, f"pair_coeff      * * {'deepmd ' if d3 or hybrid else ''}{types}")
        correction = [place + 1 for place in correction]
    elif d3:
        tokens = bare[mine]
        given = [token for token in tokens[3:] if token != "deepmd"] if tokens[1:3] == ["*", "*"] else []
        lines[mine] = f"pair_coeff      * * deepmd {' '.join(given) or types}"
    elif _without_elements(bare[mine]):
        lines[mine] = f"pair_coeff      * * {'deepmd ' if mine in named else ''}{types}"
    if d3:
        line = f"pair_coeff      * * dispersion/d3 {types}"
        if not correction:
            lines.insert(mine + 1, line)
        elif lines[correction[-1]].partition("#")[0].split() == ["pair_coeff", "*", "*", "dispersion/d3"]:
            lines[correction[-1]] = line


def _without_elements(tokens: Sequence[str]) -> bool:
    return [token for token in tokens[1:] if token != "*"] in ([], ["deepmd"])


def _neighbours(lines: list[str], settings: LammpsSettings) -> None:
    """Make room for as many neighbours as lmp_neigh_modify_one says, unless the template says it."""
    if settings.lmp_neigh_modify_one is None:
        return
    started = [line.split() for line in lines]
    if any(tokens[:1] == ["neigh_modify"] and "one" in tokens for tokens in started):
        return
    for command in ("neighbor", "units"):
        places = [place for place, tokens in enumerate(started) if tokens[:1] == [command]]
        if places:
            where = places[-1] if command == "neighbor" else places[0]
            lines.insert(where + 1, f"neigh_modify    one {settings.lmp_neigh_modify_one}")
            return
