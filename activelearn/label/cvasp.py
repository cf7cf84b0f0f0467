#!/usr/bin/env python3
"""Run VASP under Custodian, which mends common failures; forwarded with each task when param.json says `cvasp`.

Usage: python cvasp.py "mpirun -n 32 vasp_std" MAX_ERRORS

Needs only custodian, on the machine that labels.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence

HANDLERS = (
    "VaspErrorHandler",
    "FrozenJobErrorHandler",
    "StdErrHandler",
    "NonConvergingErrorHandler",
    "WalltimeHandler",
    "PositiveEnergyErrorHandler",
    "UnconvergedErrorHandler",
)
VALIDATORS = ("VaspFilesValidator", "VasprunXMLValidator")


def main(arguments: Sequence[str]) -> int:
    """Run the command until it succeeds or has failed too often."""
    parser = argparse.ArgumentParser(description="Run VASP under Custodian.")
    parser.add_argument("command", help="how VASP is started, in one argument")
    parser.add_argument("max_errors", type=int, help="give up after so many errors")
    given = parser.parse_args(arguments)
    custodian = importlib.import_module("custodian")
    vasp = {name: importlib.import_module(f"custodian.vasp.{name}") for name in ("handlers", "jobs", "validators")}
    job = vasp["jobs"].VaspJob(shlex.split(given.command), auto_npar=False, auto_gamma=False, backup=False)
    custodian.Custodian(
        [getattr(vasp["handlers"], name)() for name in HANDLERS],
        [job],
        validators=[getattr(vasp["validators"], name)() for name in VALIDATORS],
        max_errors=given.max_errors,
    ).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
