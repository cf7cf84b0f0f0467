"""Logging set-up: INFO to the console, DEBUG to al.log in the run directory."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

LOGGER = "activelearn"


def set_up(logfile: Path | None, verbose: bool = False) -> logging.Logger:
    """Send the package's log to standard output and, when given, to `logfile`; return its logger."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.DEBUG)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.DEBUG if verbose else logging.INFO)
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(console)
    if logfile is not None:
        file = logging.FileHandler(logfile)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(file)
    logger.propagate = False
    return logger


def tail(file: Path, lines: int = 15) -> str:
    """Return the last lines of a text file, or what to say when it is not there."""
    try:
        with file.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 20_000))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return f"({file.name} does not exist)"
    kept = text.rstrip().splitlines()[-lines:]
    return "\n".join(kept) if kept else f"({file.name} is empty)"
