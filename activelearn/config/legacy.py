"""Spellings of older DP-GEN versions, rewritten into today's, with one warning each that says what they became."""

from __future__ import annotations

from typing import Any

from activelearn.errors import Problem

Raw = dict[str, Any]

RENAMED = {"training_reuse_stop_batch": "training_reuse_numb_steps"}
"""Keys of param.json that have another name now."""

RENAMED_IN_JOB = {
    "Ts": "temps",
    "Ps": "press",
    "ens": "ensemble",
    "t_freq": "trj_freq",
    "traj_freq": "trj_freq",
    "s_t": "skip_training",
    "sk_tr": "skip_training",
    "skip_train": "skip_training",
}
"""Keys of an exploration job that have another name now."""

DEAD = {
    "model_devi_e_trust_lo": "the energy deviation does not take part in the selection any more",
    "model_devi_e_trust_hi": "the energy deviation does not take part in the selection any more",
    "train_param": "the name of the training input is always input.json",
    "training_reuse_decay_steps": "DeePMD-kit takes the decay from the learning rate and the number of steps",
    "init_multi_systems": "initial data are searched for nested systems anyway",
    "pretty_print": "`al schema` describes the keys",
    "pretty_format": "`al schema` describes the keys",
}
"""Keys of param.json that do nothing any more, and why nobody misses them."""

JOB_DEFAULTS = {"model_devi_taut": "taut", "model_devi_taup": "taup", "model_devi_neidelay": "neidelay"}
"""Keys of param.json that became keys of each exploration job."""


def param(raw: Raw, file: str) -> tuple[Raw, list[Problem]]:
    """Rewrite the old spellings of param.json.

    Returns
    -------
    tuple
        The same content in today's spelling, and one warning per kind of change.
    """
    new, problems = dict(raw), list[Problem]()
    for key in [key for key in DEAD if key in new]:
        problems.append(_warning(file, key, f"is ignored: {DEAD[key]}", "delete it"))
        del new[key]
    _rename(new, RENAMED, file, "", problems)
    jobs = new.get("model_devi_jobs")
    if isinstance(jobs, list) and all(isinstance(job, dict) for job in jobs):
        new["model_devi_jobs"] = [
            _job(dict(job), file, f"model_devi_jobs[{n}]", problems) for n, job in enumerate(jobs)
        ]
        for key in [key for key in JOB_DEFAULTS if key in new]:
            inner = JOB_DEFAULTS[key]
            problems.append(_warning(file, key, f"became `{inner}` of each exploration job", f"write {inner} there"))
            for job in new["model_devi_jobs"]:
                job.setdefault(inner, new[key])
            del new[key]
    return new, _once(problems)


def _job(job: Raw, file: str, where: str, problems: list[Problem]) -> Raw:
    _rename(job, RENAMED_IN_JOB, file, f"{where}.", problems)
    systems = job.get("sys_idx")
    if isinstance(systems, list) and any(isinstance(item, str) for item in systems):
        try:
            job["sys_idx"] = [number for item in systems for number in _range(item)]
            shown = ", ".join(f'"{item}"' for item in systems if isinstance(item, str))
            message = f"{shown}: a range in text, read as {job['sys_idx']} (its end is not part of it)"
            problems.append(_warning(file, f"{where}.sys_idx", message, "write the numbers"))
        except ValueError as error:
            message = f"{error} is neither a number nor a range"
            problems.append(Problem(file, f"{where}.sys_idx", message, 'for example 3, "2-5" (2, 3, 4) or "0-8:2"'))
            job["sys_idx"] = [item for item in systems if not isinstance(item, str)] or [0]
    return job


def _range(item: Any) -> list[Any]:
    """Return the numbers "first-end" or "first-end:step" stands for, without the end; others stay as they are."""
    if not isinstance(item, str):
        return [item]
    if item.isdigit():
        return [int(item)]
    try:
        span, _, step = item.partition(":")
        first, end = span.split("-")
        return list(range(int(first), int(end), int(step or 1)))
    except ValueError:
        raise ValueError(repr(item)) from None


def _rename(raw: Raw, names: dict[str, str], file: str, prefix: str, problems: list[Problem]) -> None:
    for old in [key for key in names if key in raw]:
        new, value = names[old], raw.pop(old)
        if new in raw and raw[new] != value:
            message = f"is the old name of {new}, which is given too, with another value"
            problems.append(Problem(file, f"{prefix}{old}", message, "keep one of them"))
            continue
        raw[new] = value
        problems.append(_warning(file, f"{prefix}{old}", f"is called {new} now", f"rename it to {new}"))


def _warning(file: str, path: str, message: str, hint: str) -> Problem:
    return Problem(file, path, message, hint, "warning")


def _once(problems: list[Problem]) -> list[Problem]:
    """Keep of equal warnings about many jobs the first one."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for problem in problems:
        key = (problem.path.rpartition(".")[2], problem.message)
        if problem.level == "error" or key not in seen:
            kept.append(problem)
        seen.add(key)
    return kept
