"""One driver per run: a lock file that names its holder and is touched while it lives."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from activelearn.errors import ActiveLearnError

TOUCH, DEAD = 60.0, 600.0
"""Seconds between two touches; seconds of silence after which a holder on another computer counts as dead."""


@contextlib.contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold the lock while the block runs.

    Raises
    ------
    ActiveLearnError
        Another driver holds it.
    """
    mine = file.with_name(f"{file.name}.{os.uname().nodename}.{os.getpid()}")
    mine.write_text(json.dumps(_identity(os.getpid())))
    while True:
        try:
            os.link(mine, file)  # whole at once, and only if nobody holds it
        except FileExistsError:
            holder = _holder(file)
            if holder is not None:
                mine.unlink()
                raise ActiveLearnError(
                    f"another driver works on this run: process {holder.get('pid')} on {holder.get('host')}\n"
                    f"    -> wait for it or end it; if it is surely gone, delete {file}"
                ) from None
            with contextlib.suppress(FileNotFoundError):  # of two that take it over, one gets it out of the way
                dead = file.with_name(f"{mine.name}.dead")
                file.rename(dead)
                dead.unlink()
            continue
        mine.unlink()
        break
    stop = threading.Event()
    thread = threading.Thread(target=_touch, args=(file, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        file.unlink(missing_ok=True)


def _touch(file: Path, stop: threading.Event) -> None:
    while not stop.wait(TOUCH):
        with contextlib.suppress(OSError):
            os.utime(file)


def _holder(file: Path) -> dict[str, Any] | None:
    """Return who holds the lock, None if nobody alive does."""
    try:
        holder: dict[str, Any] = json.loads(file.read_text())
        age = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None
    except ValueError:
        return None  # killed while it was written
    if holder.get("host") == os.uname().nodename:
        return holder if holder == _identity(int(holder.get("pid", 0))) else None
    return holder if age < DEAD else None


def _identity(pid: int) -> dict[str, Any]:
    """Return what tells a process from another one that has its number later."""
    boot = start = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start = fields[19] if fields[0] != "Z" else "dead"
    return {"host": os.uname().nodename, "pid": pid, "boot": boot, "start": start}
