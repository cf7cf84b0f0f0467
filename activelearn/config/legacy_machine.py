"""Machine files of DP-GEN before 0.10, rewritten into sections of command, machine and resources for dpdispatcher."""

from __future__ import annotations

import json
from typing import Any

from activelearn.config.machine import SECTIONS, without_secrets
from activelearn.errors import Problem

Raw = dict[str, Any]

PARTS = ("command", "machine", "resources", "group_size", "user_forward_files", "user_backward_files")
"""What the flat form writes behind `train_`, `model_devi_` and `fp_`."""

PROFILE = ("hostname", "port", "username", "password", "key_filename", "passphrase", "timeout", "totp_secret")
"""Keys of an old machine that describe the connection."""

RENAMED = {
    "numb_node": "number_node",
    "task_per_node": "cpu_per_node",
    "numb_gpu": "gpu_per_node",
    "partition": "queue_name",
}
"""Keys of old resources that have another name now."""

KEPT = ("group_size", "module_list", "module_unload_list", "source_list", "envs")

BATCH = {"slurm": "Slurm", "pbs": "PBS", "torque": "Torque", "sge": "SGE", "lsf": "LSF", "shell": "Shell"}

FLAGS = {
    "Slurm": {
        "time_limit": "#SBATCH --time={}",
        "mem_limit": "#SBATCH --mem={}G",
        "account": "#SBATCH --account={}",
        "qos": "#SBATCH --qos={}",
        "constraint_list": "#SBATCH --constraint={}",
        "license_list": "#SBATCH --licenses={}",
        "exclude_list": "#SBATCH --exclude={}",
    },
    "PBS": {
        "time_limit": "#PBS -l walltime={}",
        "mem_limit": "#PBS -l mem={}G",
        "account": "#PBS -A {}",
    },
    "LSF": {
        "time_limit": "#BSUB -W {}",
        "mem_limit": "#BSUB -M {}G",
        "account": "#BSUB -P {}",
    },
}
FLAGS |= {"Torque": FLAGS["PBS"], "SGE": {"time_limit": "#$ -l h_rt={}"}, "Shell": {}}
"""Limits that are lines for the batch system now, by batch system."""


def machine(raw: Raw, file: str) -> tuple[Raw, list[Problem]]:
    """Rewrite the old forms of machine.json.

    Returns
    -------
    tuple
        The same content in today's form, and one warning per section that says what it became.
    """
    new, problems = dict(raw), list[Problem]()
    for name in SECTIONS.values():
        for key in [f"{name}_{part}" for part in PARTS if name in new and f"{name}_{part}" in new]:
            problems.append(Problem(file, key, f"is ignored: the section {name} is there", "delete it", "warning"))
            del new[key]
        flat = _collect(new, name)
        if name in new:
            given = new[name]
        elif flat:
            given = flat
        else:
            continue
        items = given if isinstance(given, list) else [given]
        if not all(isinstance(item, dict) for item in items):
            continue
        modern = [_section(dict(item), name) for item in items]
        new[name] = modern if isinstance(given, list) else modern[0]
        if flat or modern != items:
            shown = json.dumps(without_secrets(modern[0]))
            what = f"the flat keys {name}_..." if flat else "the form of DP-GEN before 0.10"
            problems.append(Problem(file, name, f"{what} became this section", f'write "{name}": {shown}', "warning"))
    return new, problems


def _collect(raw: Raw, name: str) -> Raw:
    """Take the flat keys of one section out of the file."""
    if name in raw:
        return {}
    found = {part: raw.pop(f"{name}_{part}") for part in PARTS if f"{name}_{part}" in raw}
    if name == "train":
        found |= {key: raw.pop(key) for key in ("deepmd_path", "python_path") if key in raw}
        found |= {key: raw.pop(f"train_{key}") for key in ("deepmd_path", "python_path") if f"train_{key}" in raw}
    if name == "model_devi" and "lmp_command" in raw:
        found.setdefault("command", raw.pop("lmp_command"))
    return found


def _section(section: Raw, name: str) -> Raw:
    """Rewrite one section; what is modern already stays as it is."""
    deepmd, python = section.pop("deepmd_path", None), section.pop("python_path", None)
    if "command" not in section and name == "train":
        if python:
            section["command"] = f"{python} -m deepmd"
        elif deepmd:
            section["command"] = f"{str(deepmd).rstrip('/')}/bin/dp"
    machine, resources = section.get("machine"), section.get("resources")
    if not isinstance(machine, dict) or not isinstance(resources, dict) or "batch_type" in machine:
        return section
    if not {"machine_type", "batch", "work_path"} & set(machine):
        return section
    section["machine"] = _machine(machine)
    section["resources"], launcher = _resources(resources, section["machine"]["batch_type"])
    if launcher and "command" in section:
        section["command"] = f"{launcher} {section['command']}"
    return section


def _machine(old: Raw) -> Raw:
    named = str(old.get("batch", old.get("machine_type", "shell")))
    context = "SSHContext" if old.get("hostname") else "LocalContext"
    if context == "LocalContext" and (old.get("lazy_local") or old.get("lazy-local")):
        context = "LazyLocalContext"
    new: Raw = {"batch_type": BATCH.get(named.lower(), named), "context_type": context, "local_root": "./"}
    if context != "LazyLocalContext":
        new["remote_root"] = old.get("work_path", "")
    profile = {key: old[key] for key in PROFILE if key in old}
    if context == "SSHContext":
        new["remote_profile"] = profile
    return new


def _resources(old: Raw, batch: str) -> tuple[Raw, str]:
    """Return today's resources, and the text that starts the program under MPI, if that was asked for."""
    new: Raw = {"number_node": 1, "cpu_per_node": 1, "gpu_per_node": 0, "queue_name": ""}
    new |= {RENAMED[key]: value for key, value in old.items() if key in RENAMED}
    new |= {key: old[key] for key in KEPT if old.get(key)}
    flags = []
    for key, flag in FLAGS.get(batch, {}).items():
        value = old.get(key)
        if value and value != -1:
            flags.append(flag.format(",".join(map(str, value)) if isinstance(value, list) else value))
    if flags:
        new["custom_flags"] = flags
    if not old.get("with_mpi"):
        return new, ""
    tasks = int(new["number_node"]) * int(new["cpu_per_node"])
    return new, "srun" if batch == "Slurm" else f"mpirun -n {tasks}"
