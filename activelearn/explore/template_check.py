"""What can be known of template files before anything runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from activelearn.config.param import ExplorationJob, Param, Template
from activelearn.errors import Problem, about_files
from activelearn.explore import lammps_input, template
from activelearn.explore.lammps_settings import LammpsSettings


def read(root: Path, name: str) -> str:
    """Read a template; paths are relative to the run.

    Raises
    ------
    OSError
        It cannot be read.
    """
    return (root / os.path.expanduser(name)).read_text(encoding="utf-8", errors="replace")  # noqa: PTH111


def problems(
    file: str,
    where: str,
    job: ExplorationJob,
    param: Param,
    settings: LammpsSettings,
    root: Path,
    graphs: Sequence[str],
    electron: str | None,
) -> Iterator[Problem]:
    """Yield what is wrong with the templates of the job called `where`.

    Parameters
    ----------
    file, where
        param.json and the JSON path of the job.
    job, param, settings, root
        The job, all settings and the folder of the run.
    graphs
        What the models will be called.
    electron
        "fparam" or "aparam" where the models take the electron temperature.
    """
    if job.template is None:
        return
    texts: dict[str, str] = {}
    wanted = {"lmp": True, "plm": settings.model_devi_plumed, "plm_path": settings.model_devi_plumed_path}
    for key in (key for key, needed in wanted.items() if needed):
        path, name = f"{where}.template.{key}", getattr(job.template, key)
        if name is None:
            hint = "give the path of the file" if key == "plm" else "give the path of the PDB file"
            yield Problem(file, path, "is required but missing: PLUMED needs it", hint)
            continue
        try:
            texts[key] = read(root, name)
        except OSError as error:
            message = f"{root / name} cannot be read: {error.strerror}"
            yield from about_files([Problem(file, path, message, "paths are relative to the run")])
    yield from _twice(file, where, job, settings.model_devi_plumed)
    if "lmp" in texts:
        yield from about_files(_texts(file, where, job, job.template, param, settings, graphs, electron, texts))


def _texts(
    file: str,
    where: str,
    job: ExplorationJob,
    templates: Template,
    param: Param,
    settings: LammpsSettings,
    graphs: Sequence[str],
    electron: str | None,
    texts: dict[str, str],
) -> Iterator[Problem]:
    """Yield what is wrong with the contents of templates."""
    yield from _unused(file, where, job, texts, settings.model_devi_plumed)
    path = f"{where}.template.lmp"
    for message, hint in _lammps(texts["lmp"], job, settings, graphs, electron):
        yield Problem(file, path, f"{templates.lmp} {message}", hint)
    if settings.model_devi_nopbc and not re.search(r"^\s*boundary\s+[fsm]", texts["lmp"], flags=re.MULTILINE):
        message = f"{templates.lmp} has periodic boundaries, but model_devi_nopbc is true"
        yield Problem(file, path, message, "write: boundary f f f", "warning")
    left: dict[tuple[str, str], str] = {}
    for system in job.sys_idx:
        words = template.combinations(job, system, settings.model_devi_plumed)[0]
        try:
            left |= {("lmp", word): str(system) for word in _left(texts["lmp"], words, job, param, settings, electron)}
        except template.TemplateError as error:
            hint = "DP-GEN needs it as well: it is filled in for each task"
            yield Problem(file, path, f"{templates.lmp} {error}", hint)
            break
        if "plm" in texts:
            found = template.placeholders(template.plumed(texts["plm"], words))
            left |= {("plm", word): str(system) for word in found}
    for (key, word), number in left.items():
        message = f"{getattr(templates, key)} keeps the word {word} (system {number})"
        hint = f'give "{word}" in rev_mat.{key} or sys_rev_mat."{number}".{key}'
        yield Problem(file, f"{where}.rev_mat.{key}", message, hint)


def _left(
    text: str,
    words: template.Words,
    job: ExplorationJob,
    param: Param,
    settings: LammpsSettings,
    electron: str | None,
) -> list[str]:
    return template.placeholders(template.lammps(text, ["../graph"], param.type_map, job, settings, electron, words))


def _twice(file: str, where: str, job: ExplorationJob, plumed: bool) -> Iterator[Problem]:
    """Yield words that are given twice: the first value holds everywhere, others only repeat the task."""
    for system, revision in (("", None), *job.sys_rev_mat.items()):
        given = [*job.rev_mat.lmp.items(), *(job.rev_mat.plm.items() if plumed else ())]
        path = f"{where}.rev_mat"
        if revision is not None:
            given += [*revision.lmp.items(), *(revision.plm.items() if plumed else ())]
            path = f"{where}.sys_rev_mat.{system}"
            if not system.isdigit() or int(system) not in job.sys_idx:
                hint = f"keys are the indices in sys_idx, {job.sys_idx}"
                yield Problem(file, path, "has no effect: this job does not explore such a system", hint, "warning")
        for word in sorted({word for word, _ in given}):
            values = [value for name, value in given if name == word]
            if len(values) > 1 and not all(value == values[0] and len(value) == 1 for value in values):
                message = f"{word} is given {len(values)} times: the first values hold, for LAMMPS and for PLUMED"
                yield Problem(file, path, message, "keep it in one place, or the same task runs again", "warning")


def _unused(file: str, where: str, job: ExplorationJob, texts: dict[str, str], plumed: bool) -> Iterator[Problem]:
    """Yield words that no template has: their values only repeat the same task."""
    revisions = {f"{where}.rev_mat": job.rev_mat}
    revisions |= {f"{where}.sys_rev_mat.{system}": revision for system, revision in job.sys_rev_mat.items()}
    for path, revision in revisions.items():
        for kind, words in (("lmp", revision.lmp), ("plm", revision.plm if plumed else {})):
            files = [texts[key] for key in (("lmp", "plm") if kind == "lmp" else ("plm",)) if key in texts]
            for word in words:
                if files and not any(template.occurs(text, word) for text in files):
                    inside = any(word in text for text in files)
                    message = f"{word} occurs in no template" + (" except inside of longer words" if inside else "")
                    hint = "a word ends where letters, digits and _ end"
                    yield Problem(file, f"{path}.{kind}.{word}", message, hint, "warning")


def _lammps(
    text: str, job: ExplorationJob, settings: LammpsSettings, graphs: Sequence[str], electron: str | None
) -> Iterator[tuple[str, str]]:
    """Yield what a LAMMPS template lacks, and what to do."""
    bare = "\n".join(line.partition("#")[0] for line in text.splitlines())
    if template.written_out(text.splitlines(), len(graphs)):
        line = next(line for line in reversed(bare.splitlines()) if "pair_style" in line and "deepmd" in line)
        tokens = line.split()
        if "model_devi.out" not in tokens:
            yield "writes its deviations elsewhere than into model_devi.out", "write out_file model_devi.out"
        every = tokens[tokens.index("out_freq") + 1 :][:1] if "out_freq" in tokens else []
        if every and every[0].isdigit() and int(every[0]) != job.trj_freq:
            message = f"writes deviations every {every[0]} steps, but frames every {job.trj_freq} (trj_freq)"
            yield message, "make them equal: a deviation without a frame cannot be labelled"
        if settings.use_clusters and "atomic" not in tokens:
            yield "writes no deviations of single atoms, but use_clusters is true", "add the word atomic to pair_style"
    if settings.model_devi_f_avg_relative:
        message = "gives trajectories without forces, but model_devi_f_avg_relative divides by them"
        yield message, "set model_devi_f_avg_relative to false"
    if electron and not re.search(r"^\s*variable\s+ELE_TEMP\s", bare, flags=re.MULTILINE):
        yield "defines no variable ELE_TEMP, but use_ele_temp is on", "add: variable ELE_TEMP equal <K>"
    read_at = re.search(r"\bread_(data|restart)\b", bare)
    if read_at is None:
        yield "reads no structure", "add: read_data conf.lmp"
    elif lammps_input.needs_map(graphs):
        yes = re.search(r"^\s*atom_modify\b.*\bmap\s+(yes|array|hash)\b", bare, flags=re.MULTILINE)
        if yes is None or yes.start() > read_at.start():
            yield "lacks `atom_modify map yes`, which pt2 models need", "add it before read_data"
