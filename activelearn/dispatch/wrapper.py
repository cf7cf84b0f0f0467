"""The shell text a chunk runs under: one copy at a time, and a word about how it ended.

dpdispatcher's own word is not enough: it knows neither whether inputs changed nor which of two copies it looks at.
The chunk's command is `bash STEM.sh DIGEST ATTEMPT`, so that its hash changes with the inputs and with each retry.
The wrapper always exits 0; no status file means that it was killed from outside.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

STALE_MINUTES = 10
"""A lock that another computer did not touch for so long is nobody's (it is touched every 10 s)."""

_TEMPLATE = """\
# Written by activelearn. Usage: bash {stem}.sh DIGEST ATTEMPT
tag="$1 $2"
ended() {{ [ "$(cut -d' ' -f1,2 {stem}.status 2>/dev/null)" = "$tag" ]; }}
abandoned() {{
    read -r host pid < {stem}.lock/owner 2>/dev/null || host=
    if [ "$host" = "$(uname -n)" ]; then ! kill -0 -- "-$pid" 2>/dev/null; return; fi
    [ -z "$(find {stem}.lock -prune -mmin -{minutes} 2>/dev/null)" ]
}}
ended && exit 0
until mkdir {stem}.lock 2>/dev/null; do
    if abandoned; then rm -rf {stem}.lock; continue; fi
    sleep 2
    ended && exit 0
done
if ended; then rm -rf {stem}.lock; exit 0; fi
start=$(date +%s)
set -m  # the command gets a process group of its own: what it started can be found and ended with it
(
{script}
) {redirect} &
pid=$!
set +m
echo "$(uname -n) $pid" > {stem}.lock/owner
trap 'kill -- "-$pid" 2>/dev/null' TERM INT HUP
( while kill -0 -- "-$pid" 2>/dev/null; do touch {stem}.lock; sleep 10; done ) >/dev/null 2>&1 &
beat=$!
wait "$pid"; code=$?
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; code=$?; done
kill "$beat" 2>/dev/null
kill -KILL -- "-$pid" 2>/dev/null
echo "$tag $code $(( $(date +%s) - start ))" > {stem}.status.new && mv {stem}.status.new {stem}.status
rm -rf {stem}.lock
exit 0
"""


@dataclass(frozen=True)
class Status:
    """How a chunk ended."""

    digest: str
    attempt: int
    code: int
    """Exit status of the command."""
    seconds: float
    """Wall time, s."""


def text(stem: str, script: str, log: str, errors: str | None) -> str:
    """Return the wrapper around `script`; output is appended to the log (a restart continues it)."""
    redirect = f">> {shlex.quote(log)} 2>&1" if errors is None else f"> {shlex.quote(log)} 2> {shlex.quote(errors)}"
    return _TEMPLATE.format(stem=stem, script=script.rstrip("\n"), redirect=redirect, minutes=STALE_MINUTES)


def read_status(file: Path) -> Status | None:
    """Read how a chunk ended; None if it left no word."""
    try:
        digest, attempt, code, seconds = file.read_text().split()
        return Status(digest, int(attempt), int(code), float(seconds))
    except (OSError, ValueError):
        return None
