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
{{  # bash reads all of it before it starts: a copy that arrives later cannot change what runs
tag="$1 $2"
me={stem}.lock.$(uname -n).$$
ended() {{ [ "$(cut -d' ' -f1,2 {stem}.status 2>/dev/null)" = "$tag" ]; }}
abandoned() {{  # the wrapper that holds the lock and the command under it are both gone
    host= holder= group=
    {{ read -r host holder; read -r group; }} 2>/dev/null < {stem}.lock
    [ -n "$holder" ] || return 1
    if [ "$host" = "$(uname -n)" ]; then
        ! kill -0 "$holder" 2>/dev/null && {{ [ -z "$group" ] || ! kill -0 -- "-$group" 2>/dev/null; }}
    else
        [ -z "$(find {stem}.lock -mmin -{minutes} 2>/dev/null)" ]
    fi
}}
clear_lock() {{  # one copy at a time, and each looks again: nobody removes the lock of a living one
    find {stem}.clearing -prune -mmin +{minutes} -exec rmdir {{}} \\; 2>/dev/null
    mkdir {stem}.clearing 2>/dev/null || return 0
    abandoned && rm -f {stem}.lock
    rmdir {stem}.clearing
}}
ended && exit 0
echo "$(uname -n) $$" > "$me"
until ln "$me" {stem}.lock 2>/dev/null; do
    abandoned && clear_lock && continue
    sleep 2
    if ended; then rm -f "$me"; exit 0; fi
done
rm -f "$me"
if ended; then rm -f {stem}.lock; exit 0; fi
start=$(date +%s)
set -m  # the command gets a process group of its own: what it started can be found and ended with it
(
{script}
) {redirect} &
pid=$!
set +m
echo "$pid" >> {stem}.lock
trap 'kill -- "-$pid" 2>/dev/null' TERM INT HUP
( while kill -0 -- "-$pid" 2>/dev/null; do touch -c {stem}.lock; sleep 10; done ) >/dev/null 2>&1 &
beat=$!
wait "$pid"; code=$?
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; code=$?; done
kill "$beat" 2>/dev/null
kill -KILL -- "-$pid" 2>/dev/null
echo "$tag $code $(( $(date +%s) - start ))" > {stem}.status.new && mv {stem}.status.new {stem}.status
rm -f {stem}.lock
exit 0
}}
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
