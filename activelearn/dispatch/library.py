"""dpdispatcher, imported and called without what it does to the program around it."""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)


def load() -> Any:
    """Import dpdispatcher without the log file and the output it would start with."""
    logger = logging.getLogger("dpdispatcher")
    logger.disabled = True
    import dpdispatcher

    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.parent = log
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    logger.disabled = False
    return dpdispatcher


@contextlib.contextmanager
def same_random() -> Iterator[None]:
    """Undo what dpdispatcher does to the global random generator."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what dpdispatcher prints to the debug log."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        if printed.getvalue():
            log.debug("dpdispatcher: %s", printed.getvalue())
