"""Wrappers around the engines that write down when each call starts and ends, and in which folder."""

import json
import shlex
import shutil
import sys
import time
from pathlib import Path

_WRAPPER = """\
#!/bin/bash
here="$(pwd -P)"
id="$$.$RANDOM"
printf '%s start %s {name} %s %s\\n' "$(date +%s.%N)" "$id" "$here" "$*" >> {log}
{program} "$@"
code=$?
printf '%s end %s {name} %s %s\\n' "$(date +%s.%N)" "$id" "$here" "$code" >> {log}
exit $code
"""


def wrap(folder: Path, log: Path, **other: str) -> dict:
    """Make counting `dp`, `lmp` and `python`, or `other` programs, in `folder`; return them by section."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = {"train": shutil.which("dp"), "model_devi": shutil.which("lmp"), "fp": sys.executable, **other}
    commands = {}
    for section, program in programs.items():
        file = folder / section
        file.write_text(_WRAPPER.format(name=section, log=shlex.quote(str(log)), program=shlex.quote(program)))
        file.chmod(0o755)
        commands[section] = str(file)
    return commands


def calls(log: Path) -> list:
    """Return the calls as dicts with section, folder, arguments, start, end and code (None if it never ended)."""
    found = {}
    for line in log.read_text().splitlines():
        when, what, key, section, folder, *rest = line.split(" ")
        if what == "start":
            found[key] = {
                "section": section,
                "folder": folder,
                "arguments": " ".join(rest),
                "start": float(when),
                "end": None,
                "code": None,
            }
        else:
            found[key].update(end=float(when), code=int(rest[0]))
    return list(found.values())


def end_killed(log: Path) -> None:
    """Write down the end of calls that were killed together with their wrapper."""
    started = {}
    for line in log.read_text().splitlines():
        _, what, key, section, folder, *_ = line.split(" ")
        if what == "start":
            started[key] = (section, folder)
        else:
            started.pop(key)
    with log.open("a") as stream:
        for key, (section, folder) in started.items():
            stream.write(f"{time.time():.9f} end {key} {section} {folder} 137\n")


def overlapping(found: list) -> list:
    """Return pairs of calls of one kind that ran in the same folder at the same time."""
    pairs = []
    for place, one in enumerate(found):
        for other in found[place + 1 :]:
            if (one["section"], task(one)) != (other["section"], task(other)):
                continue
            first, second = sorted((one, other), key=lambda call: call["start"])
            if first["end"] is None or first["end"] > second["start"]:
                pairs.append((json.dumps(first), json.dumps(second)))
    return pairs


def task(call) -> str:
    """Return iteration, stage and task of a call, wherever dpdispatcher ran it."""
    return "/".join(Path(call["folder"]).parts[-3:]) if "iter." in call["folder"] else call["folder"]


def succeeded_twice(found: list) -> list:
    """Return what ended well more than once: the same command in the same task folder."""
    seen, twice = set(), []
    for call in found:
        if call["code"] == 0:
            key = (call["section"], task(call), call["arguments"])
            if key in seen:
                twice.append(key)
            seen.add(key)
    return twice
