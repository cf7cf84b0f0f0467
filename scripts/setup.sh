# Sourced by demo and test: a virtual environment in .venv with activelearn and the extras named in $extras.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "activelearn needs Python 3.11 or later; set PYTHON to one" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
PATH="$PWD/.venv/bin:$PATH"
export PATH
