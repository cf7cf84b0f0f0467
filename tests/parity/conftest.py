"""DP-GEN itself as the referee: its own functions, run by the Python of the environment it is installed in."""

import json
import os
import subprocess
from pathlib import Path

import pytest

VERSION = "0.14.0"
PYTHON = Path(os.environ.get("AL_DPGEN_PYTHON", Path(__file__).parents[2] / ".venv-dpgen/bin/python"))
PRELUDE = """
import json, os, sys
args = json.load(open(sys.argv[1]))
result = None
"""


class Referee:
    """Runs code in DP-GEN's Python."""

    def __call__(self, folder, code, **args):
        """Run `code` with `folder` as working directory; it finds `args` and leaves `result` (JSON values)."""
        asked, answer = Path(folder) / ".referee.in.json", Path(folder) / ".referee.out.json"
        asked.write_text(json.dumps(args))
        text = f"{PRELUDE}{code}\njson.dump(result, open({str(answer)!r}, 'w'))\n"
        done = subprocess.run([PYTHON, "-c", text, asked], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(answer.read_text())
        asked.unlink()
        answer.unlink()
        return found


@pytest.fixture(scope="session")
def dpgen():
    """DP-GEN 0.14.0."""
    if not PYTHON.exists():
        pytest.skip(f"DP-GEN is not installed in {PYTHON} (./scripts/test does it)")
    code = "from importlib.metadata import version; print(version('dpgen'))"
    found = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    if found != VERSION:
        pytest.skip(f"DP-GEN {found or '?'} instead of {VERSION} in {PYTHON}")
    return Referee()
