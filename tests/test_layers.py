"""Imports point down, and heavy packages are imported where they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "activelearn"
LAYERS = {
    "errors": 0, "files": 0, "log": 0, "lock": 0, "plugins": 0, "workdir": 0,
    "config": 1, "data": 1,
    "dispatch": 2, "record": 2,
    "train": 3, "explore": 3, "select": 3, "label": 3,
    "project": 4, "stages": 4, "preflight": 4, "schema": 4,
    "adopt": 5, "loop": 5, "report": 5,
    "cli": 6, "__main__": 7,
}  # fmt: skip
SIBLINGS = ("train", "explore", "select", "label")
HEAVY = ("torch", "deepmd", "lammps", "dpdispatcher", "matplotlib")
ALLOWED = {("dispatch/hpc.py", "dpdispatcher"), ("dispatch/library.py", "dpdispatcher")}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def part(name):
    return name.split(".")[1] if name.startswith("activelearn.") else None


def test_every_module_has_a_layer():
    tops = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in modules()} - {"__init__"}
    assert tops == set(LAYERS)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file):
    mine = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if mine == "__init__":
        return
    for node in ast.walk(ast.parse(file.read_text())):
        for name in imported(node):
            other = part(name)
            if other is None or other == mine or other == "__version__":
                continue
            assert LAYERS[other] <= LAYERS[mine], f"{name} is above {mine}"
            assert not (mine in SIBLINGS and other in SIBLINGS), f"{name} is a sibling of {mine}"


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_packages_only_where_they_are_used(file):
    tree = ast.parse(file.read_text())
    place = str(file.relative_to(PACKAGE))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        for name in imported(node):
            package = name.split(".")[0]
            if package in HEAVY:
                assert (place, package) in ALLOWED, f"{name} in {place}"
                assert id(node) not in top, f"{name} is imported with the module"


@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_no_engine(command):
    code = (
        "import sys; from activelearn.cli import main\n"
        f"try: main({command!r})\nexcept SystemExit: pass\n"
        f"print(sorted(set({(*HEAVY, 'numpy', 'pydantic', 'ase', 'dpdata')!r}) & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_no_smells():
    for file in modules():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("print", "os.chdir", "random.seed", "np.random.seed"), f"{name} in {file}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"bare except in {file}"
