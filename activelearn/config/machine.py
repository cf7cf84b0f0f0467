"""machine.json: how each of the three kinds of task is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activelearn.config import dpgen
from activelearn.errors import Problem
from activelearn.plugins import suggest

SECTIONS: dict[str, str] = {"train": "train", "explore": "model_devi", "label": "fp"}
"""The section of machine.json each stage runs with."""

TOP_LEVEL = ("api_version", "deepmd_version", *SECTIONS.values())
SECTION = ("command", "machine", "resources", "user_forward_files", "user_backward_files")
SECRET = ("password", "passphrase", "token", "totp_secret", "access_key", "secret")
"""Parts of names whose values are never written anywhere."""


@dataclass(frozen=True)
class Section:
    """One kind of task: its program and where it runs."""

    command: str
    """Shell text that starts the program; arguments are appended to it."""
    machine: Mapping[str, Any]
    """dpdispatcher's Machine."""
    resources: Mapping[str, Any]
    """dpdispatcher's Resources."""
    forward: tuple[str, ...] = ()
    """Further files each task gets, paths on this computer."""
    backward: tuple[str, ...] = ()
    """Further files to fetch from each task."""

    @property
    def group_size(self) -> int:
        """Tasks per job (0: all in one)."""
        return int(self.resources.get("group_size", 1))

    @property
    def para_deg(self) -> int:
        """Tasks of one job that run side by side."""
        return int(self.resources.get("para_deg", 1))

    @property
    def retry_count(self) -> int:
        """How often a task that was killed from outside is started again."""
        return max(0, int(self.machine.get("retry_count", 3)))


@dataclass(frozen=True)
class MachineFile:
    """A whole machine.json."""

    sections: Mapping[str, Section]
    """By stage."""
    export: Section
    """How models are exported where they are used: `dp` on the machine of exploration."""
    deepmd_version: str = ""
    """Version of DeePMD-kit, empty if the file does not say it."""


def decode(raw: Mapping[str, Any], file: str) -> tuple[MachineFile | None, list[Problem]]:
    """Check machine.json and split it by stage.

    Returns
    -------
    tuple
        The values, or None where they cannot be used, and all problems.
    """
    problems: list[Problem] = []
    for key in raw:
        if key == "handlers":
            problems.append(
                Problem(file, key, "mail on every log line is not supported yet", "it is ignored", "warning")
            )
        elif key not in TOP_LEVEL:
            problems.append(_unknown(file, "", key, TOP_LEVEL))
    version = str(raw.get("api_version", "1.0"))
    if _number(version) < 1:
        problems.append(Problem(file, "api_version", f"{version} is too old", 'write "1.0"'))
    deepmd = str(raw.get("deepmd_version", "2"))
    if not 1 <= _number(deepmd) < 4:
        problems.append(Problem(file, "deepmd_version", f"{deepmd} is not between 1 and 4", 'for example "3.2"'))
    sections: dict[str, Section] = {}
    for stage, name in SECTIONS.items():
        section, found = _section(raw.get(name), file, name)
        problems += found
        if section:
            sections[stage] = section
    if len(sections) < len(SECTIONS):
        return None, problems
    return MachineFile(sections, _export(raw["train"], sections), str(raw.get("deepmd_version", ""))), problems


def _export(train: Any, sections: Mapping[str, Section]) -> Section:
    """Return the section of model export: train.export_command on the machine that explores, one model per job."""
    given = train[0] if isinstance(train, list) else train
    explore = sections["explore"]
    command = given.get("export_command") or sections["train"].command
    return Section(str(command).strip(), explore.machine, {**explore.resources, "group_size": 1})


def _section(value: Any, file: str, name: str) -> tuple[Section | None, list[Problem]]:
    if value is None:
        hint = "add it, with command, machine and resources"
        return None, [Problem(file, name, "this section is missing", hint)]
    problems: list[Problem] = []
    if isinstance(value, list):
        if len(value) > 1:
            message = f"has {len(value)} machines; the first one is used, as in DP-GEN"
            problems.append(Problem(file, name, message, level="warning"))
        if not value:
            return None, [Problem(file, name, "is an empty list", "write one object")]
        value, name = value[0], f"{name}[0]"
    if not isinstance(value, dict):
        return None, [Problem(file, name, "must be an object with command, machine and resources")]
    for key in value:
        if key in dpgen.SECTION_LATER:
            problems.append(
                Problem(file, f"{name}.{key}", "activelearn does not support this key here yet", "remove it")
            )
        elif key == "export_command" and name.startswith("train"):
            if not isinstance(value[key], str):
                problems.append(Problem(file, f"{name}.{key}", "must be the command that starts dp"))
        elif key not in (*SECTION, "group_size"):
            problems.append(_unknown(file, f"{name}.", key, SECTION))
    command = value.get("command")
    if not isinstance(command, str) or not command.strip():
        problems.append(Problem(file, f"{name}.command", "must be the command that starts the program"))
    for part in ("machine", "resources"):
        if not isinstance(value.get(part), dict):
            problems.append(Problem(file, f"{name}.{part}", "must be an object"))
    for part in ("user_forward_files", "user_backward_files"):
        files = value.get(part, [])
        if not isinstance(files, list) or not all(isinstance(f, str) for f in files):
            problems.append(Problem(file, f"{name}.{part}", "must be a list of paths"))
    if any(problem.level == "error" for problem in problems):
        return None, problems
    machine = value["machine"]
    for key in ("batch_type", "context_type"):
        if not isinstance(machine.get(key), str):
            problems.append(
                Problem(file, f"{name}.machine.{key}", "must be a name", 'for example "Slurm", "LocalContext"')
            )
    if machine.get("local_root", "./") not in ("./", "."):
        problems.append(
            Problem(file, f"{name}.machine.local_root", 'must be "./"', "tasks start from the run directory")
        )
    resources = {"number_node": 1, "cpu_per_node": 1, "gpu_per_node": 0, "queue_name": "", "group_size": 1}
    for key, default in (*resources.items(), ("para_deg", 1)):
        given = value["resources"].get(key, _own_group_size(value).get(key, default))
        if isinstance(default, int) and (not isinstance(given, int) or given < 0):
            problems.append(Problem(file, f"{name}.resources.{key}", f"must be a whole number, not {given!r}"))
    section = Section(
        command=str(command).strip(),
        machine=machine,
        resources={**resources, **_own_group_size(value), **value["resources"]},
        forward=tuple(value.get("user_forward_files", [])),
        backward=tuple(value.get("user_backward_files", [])),
    )
    return section, problems


def _own_group_size(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the group_size that older files give beside resources."""
    return {"group_size": section["group_size"]} if "group_size" in section else {}


def without_secrets(value: Any) -> Any:
    """Return a copy in which passwords, keys and tokens are blank."""
    if isinstance(value, Mapping):
        return {
            key: "" if any(word in str(key).lower() for word in SECRET) else without_secrets(item)
            for key, item in value.items()
        }
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def with_secrets(value: Any, current: Any) -> Any:
    """Return a copy of what `without_secrets` made, with the blanks filled from the value as it is now."""
    if isinstance(value, Mapping):
        known = current if isinstance(current, Mapping) else {}
        return {
            key: known.get(key, item)
            if item == "" and any(word in str(key).lower() for word in SECRET)
            else with_secrets(item, known.get(key))
            for key, item in value.items()
        }
    return value


def _unknown(file: str, prefix: str, key: str, known: Sequence[str]) -> Problem:
    """Return an error for what looks like a slip of the pen, a warning for others: DP-GEN reads over them."""
    hint = suggest(key, list(known))
    return Problem(file, f"{prefix}{key}", "unknown key", hint, "error" if hint else "warning")


def _number(version: str) -> float:
    try:
        return float(".".join(version.split(".")[:2]))
    except ValueError:
        return -1.0
