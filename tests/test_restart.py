"""The shell text of an MD task: what it finds in the folder decides where LAMMPS goes on."""

import subprocess

import pytest

from activelearn.explore.restart import Deck, script

LMP = """#!/bin/bash
echo "$@"
ls > seen
exit ${CODE:-0}
"""
FRAME = "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n0\n"


@pytest.fixture
def run(tmp_path):
    """Run the script in a folder with given files; return LAMMPS's arguments and what it found there."""
    (tmp_path / "lmp").write_text(LMP)
    (tmp_path / "lmp").chmod(0o755)
    folder = tmp_path / "task"

    def run(deck, code=0, **files):
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CODE": str(code)}
        done = subprocess.run(
            ["bash", "-c", script("lmp", deck)], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return done.stdout.strip(), set((folder / "seen").read_text().split()), folder

    return run


def rows(*steps):
    return "# step\n" + "".join(f"{step} 1 1 1 1 1 1\n" for step in steps)


def test_rows_and_frames_from_the_restart_on_are_written_again(run):
    files = {"dpgen.restart.100": "x", "dpgen.restart.200": "x", "dpgen.restart.300": ""}
    dump = "".join(FRAME.format(step) for step in (0, 190, 200, 210))
    told, _, folder = run(Deck(), 1, **files, **{"model_devi.out": rows(0, 190, 200, 210), "all.lammpstrj": dump})
    assert told == "-i input.lammps -v restart 1 -log none"
    assert (folder / "model_devi.out").read_text() == rows(0, 190)
    assert (folder / "all.lammpstrj").read_text() == "".join(FRAME.format(step) for step in (0, 190))
    _, seen, _ = run(Deck(), 1)  # no step further: the restart file before is taken
    assert "dpgen.restart.200" not in seen
    assert (folder / "al.restarted").read_text() == "100\n"
    _, seen, _ = run(Deck())
    assert not any(name.startswith("dpgen.restart") for name in seen)  # and then the start
    assert "model_devi.out" not in seen


def test_beads_go_on_from_a_step_all_of_them_have(run):
    deck = Deck(beads=("1", "2"))
    files = {"dpgen.restart1.100": "x", "dpgen.restart2.100": "x", "dpgen.restart1.200": "x"}
    files |= {f"model_devi{bead}.out": rows(0, 90, 100, 150) for bead in "12"}
    told, seen, folder = run(deck, 1, **files)
    assert told == "-p 2x1 -i input.lammps -v restart 1 -log none"
    assert {name for name in seen if name.startswith("dpgen")} == {"dpgen.restart1.100", "dpgen.restart2.100"}
    for bead in "12":
        assert (folder / f"model_devi{bead}.out").read_text() == rows(0, 90)


def test_a_template_that_cannot_restart_starts_again(run):
    files = {"dpgen.restart.100": "x", "model_devi.out": rows(0, 5), "all.lammpstrj": FRAME.format(0)}
    told, seen, _ = run(Deck(restart=None, own_log=False), 1, **files)
    assert told == "-i input.lammps -v restart 0 -log log.lammps"
    assert not {"model_devi.out", "all.lammpstrj"} & seen


def test_a_template_that_names_its_restart_file(run):
    deck = Deck(restart="dpgen.restart.100", own_log=False)
    files = {"dpgen.restart.100": "x", "dpgen.restart.200": "x", "model_devi.out": rows(0, 95, 100, 250)}
    told, _, folder = run(deck, 1, **files, **{"log.lammps": "before"})
    assert told == "-i input.lammps -v restart 1 -log log.lammps"
    assert (folder / "model_devi.out").read_text() == rows(0, 95)
    assert (folder / "log.lammps").read_text().startswith("before\n")
