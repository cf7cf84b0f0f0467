"""Exploration with a real `lmp`: what the decks and templates ask for is what happens, also after a kill."""

import re
import shutil
import stat
from itertools import pairwise

import numpy as np
import pytest

from activelearn import project as projects
from activelearn import stages
from activelearn.data import dataset, deviation, forces
from activelearn.dispatch import batch
from activelearn.dispatch.batch import Site
from activelearn.errors import EngineError
from tests import md

pytestmark = pytest.mark.engines

TEMPLATE = """\
variable        TEMP equal V_TEMP
units           metal
atom_style      atomic
neighbor        1.0 bin
box             tilt large
if "${restart} > 0" then "read_restart dpgen.restart.*" else "read_data conf.lmp"
mass            1 63.546
pair_style      deepmd
pair_coeff      * *
thermo_style    custom step temp vol
thermo          5
dump            dpgen_dump
restart         50 dpgen.restart
if "${restart} == 0" then "velocity all create ${TEMP} V_SEED"
fix             1 all V_ENS temp ${TEMP} ${TEMP} 0.1
timestep        0.001
run             V_STEPS upto
"""


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    return md.models(tmp_path_factory.mktemp("models"))


def one_structure(project, **job):
    project.param["sys_configs"] = [["structures/00/POSCAR"]]
    project.param["model_devi_jobs"] = [{"sys_idx": [0], "trj_freq": 5, **job}]
    return project.root / "iter.000000" / "01.model_devi"


def killed_once(project, moment):
    """Let the machine's lmp be killed when a file that matches `moment` is there, the first time it runs."""
    script = project.root / "lmp.sh"
    script.write_text(f"""#!/bin/bash
{shutil.which("lmp")} "$@" &
if [ ! -f {project.root}/killed ]; then
    until compgen -G "{moment}" > /dev/null || ! kill -0 $!; do sleep 0.01; done
    kill -9 $!
    echo "$(ls -m)" > {project.root}/killed
fi
wait $!
""")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    project.machine["model_devi"]["command"] = str(script)
    return project.root / "killed"


def dumped(file):
    lines = file.read_text().splitlines()
    return [int(step) for mark, step in pairwise(lines) if mark == "ITEM: TIMESTEP"]


def test_recoil(project, ensemble):
    """The first atom has all of the kinetic energy; then the whole is brought to rest."""
    folder = one_structure(project, ensemble="nve", temps=[300], nsteps=10, pka_e=12.5, dt=0.0001)
    _, result = md.explore(project, ensemble)
    assert result["frames"] == 3
    log = (folder / "task.000.000000" / "log.lammps").read_text().splitlines()
    place = next(number for number, line in enumerate(log) if line.split()[:1] == ["Step"])
    rows = [dict(zip(log[place].split(), line.split(), strict=True)) for line in log[place + 1 : place + 4]]
    assert float(rows[0]["KinEng"]) == pytest.approx(12.5, rel=1e-5)
    n_atoms = 8
    assert float(rows[1]["KinEng"]) == pytest.approx(12.5 * (1 - 1 / n_atoms), rel=0.05)


def test_own_times_of_a_job_and_relative_deviations(project, ensemble):
    own = {"dt": 0.0005, "taut": 0.25, "taup": 0.75, "neidelay": 3}
    folder = one_structure(project, ensemble="npt", temps=[300], press=[1.0], nsteps=20, **own)
    project.param["model_devi_f_avg_relative"] = True
    loaded, result = md.explore(project, ensemble)
    assert (result["tasks"], result["frames"], result["died"]) == (1, 5, 0)
    task = folder / "task.000.000000"
    log = (task / "log.lammps").read_text()
    assert "timestep        0.0005" in log
    assert "neigh_modify    delay 3" in log
    assert "fix             1 all npt temp 300 300 0.25 iso 1 1 0.75" in log
    frames = loaded.explorer.frames(task, range(0, 21, 5), ["Cu"])
    every = np.concatenate([atoms.arrays["model_forces"] for atoms in frames.values()])
    assert forces.rms(task) == pytest.approx(np.sqrt(np.square(every).sum(axis=1).mean()), rel=1e-6)
    plain = deviation.read(task / "model_devi.out")
    for _ in range(2):  # DP-GEN stops at the second reading
        found = loaded.explorer.deviation(task)
        np.testing.assert_allclose(found.force * forces.rms(task), plain.force)
        np.testing.assert_array_equal(found.virial, plain.virial)
    for file in loaded.explorer.trajectories(task):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    with pytest.raises(EngineError, match="no frame with forces"):
        loaded.explorer.deviation(task)
    shutil.copy(task / "model_devi.out", task / "model_devi_avgf.out")  # DP-GEN's, of a finished iteration
    np.testing.assert_array_equal(loaded.explorer.deviation(task).force, plain.force)


def test_clusters_of_atoms_whose_deviation_lammps_writes(project, ensemble):
    """The columns are the atoms in the order of their numbers; copper clusters are cut out of the box they span."""
    folder = one_structure(project, ensemble="nvt", temps=[300], nsteps=20) / "task.000.000000"
    project.param.update(use_clusters=True, cluster_cutoff=3.0, use_atom_pref=True, _activelearn={"health": False})
    loaded, _ = md.explore(project, ensemble)
    found = loaded.explorer.deviation(folder)
    assert found.atomic.shape == (5, 8)
    np.testing.assert_allclose(found.atomic.max(axis=1), found.force, rtol=1e-5)
    median = float(np.median(found.atomic))
    project.param.update(model_devi_f_trust_lo=median, model_devi_f_trust_hi=100 * median)
    project.save()
    loaded = projects.load(project.root / "param.json", project.root / "machine.json", project.root)[0]
    with pytest.raises(StopIteration) as end:
        next(stages.select(loaded, 0))
    assert (end.value.value["candidate"], end.value.value["picked"]) == (20, 4)
    site = Site(project.root, loaded.machine.sections["label"], None, loaded.digests)
    steps = stages.label(loaded, 0)
    with pytest.raises(StopIteration) as end:
        steps.send(batch.run(next(steps), site))
    assert end.value.value["labelled"] == 4
    for system in dataset.find(folder.parents[1] / "02.fp" / "data.000"):
        assert not system.periodic
        assert set(system.array("atom_pref").sum(axis=1)) == {1.0}


def test_template_tasks(project, ensemble):
    words = {"lmp": {"V_TEMP": [100, 200], "V_STEPS": [20]}}
    special = {"0": {"lmp": {"V_ENS": ["nvt"], "V_SEED": [2]}}}
    folder = one_structure(project, template={"lmp": "deck.in"}, rev_mat=words, sys_rev_mat=special)
    (project.root / "deck.in").write_text(TEMPLATE)
    loaded, result = md.explore(project, ensemble)
    assert (result["tasks"], result["frames"], result["died"]) == (2, 10, 0)
    conditions = [run["conditions"] for run in md.runs(project)]
    assert [(c["V_TEMP"], c["V_SEED"]) for c in conditions] == [(100, 2), (200, 2)]
    steps = np.arange(0, 21, 5)
    for run, name in zip(md.runs(project), sorted(folder.glob("task.*")), strict=True):
        found = loaded.explorer.deviation(name)
        assert found.steps.tolist() == steps.tolist()
        assert sorted(loaded.explorer.frames(name, steps.tolist(), ["Cu"])) == steps.tolist()
        assert loaded.explorer.volume_ratio(name, steps).tolist() == [1.0] * 5
        first = re.search(r"^\s*0\s+(\S+)", (name / "log.lammps").read_text(), flags=re.MULTILINE)
        assert float(first[1]) == pytest.approx(run["conditions"]["V_TEMP"])
    with pytest.raises(StopIteration) as end:
        next(stages.select(loaded, 0))
    assert (end.value.value["candidate"], end.value.value["picked"]) == (10, 4)


def test_template_that_restarts_loses_nothing(project, ensemble):
    words = {"lmp": {"V_TEMP": [100], "V_STEPS": [400], "V_ENS": ["nvt"], "V_SEED": [1]}}
    folder = one_structure(project, template={"lmp": "deck.in"}, rev_mat=words) / "task.000.000000"
    (project.root / "deck.in").write_text(TEMPLATE)
    killed = killed_once(project, "dpgen.restart.100")
    loaded, result = md.explore(project, ensemble)
    assert "dpgen.restart.100" in killed.read_text()
    assert (result["frames"], result["died"]) == (81, 0)
    steps = list(range(0, 401, 5))
    assert [
        int(line.split()[0]) for line in (folder / "model_devi.out").read_text().splitlines() if line[0] != "#"
    ] == (steps)
    assert dumped(folder / "all.lammpstrj") == steps
    assert sorted(loaded.explorer.frames(folder, steps, ["Cu"])) == steps
    assert loaded.explorer.volume_ratio(folder, np.array(steps[28:])).tolist() == [1.0] * 53
    log = (folder / "log.lammps").read_text()
    assert len(re.findall(r"^read_restart dpgen", log, flags=re.MULTILINE)) == 1
    assert len(re.findall(r"^velocity all create 100 1$", log, flags=re.MULTILINE)) == 1
    assert not list(folder.glob("dpgen.restart*"))


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="beads run on MPI partitions")
def test_path_integral_beads(project, ensemble):
    folder = one_structure(project, ensemble="nvt", temps=[300], nsteps=200, nbeads=2) / "task.000.000000"
    killed = killed_once(project, "dpgen.restart2.60")
    program = shutil.which("lmp")
    script = project.root / "lmp.sh"
    script.write_text(script.read_text().replace(program, f"mpirun -n 2 {program}"))
    loaded, result = md.explore(project, ensemble)
    assert "dpgen.restart2.60" in killed.read_text()
    assert (result["frames"], result["died"]) == (82, 0)
    found = loaded.explorer.deviation(folder)
    assert found.steps.tolist() == [*range(0, 201, 5), *range(201, 402, 5)]
    one, two = (deviation.read(folder / f"model_devi{bead}.out") for bead in (1, 2))
    np.testing.assert_array_equal(found.force, np.concatenate([one.force, two.force]))
    frames = loaded.explorer.frames(folder, [5, 200, 206, 401], ["Cu"])
    assert sorted(frames) == [5, 200, 206, 401]
    assert not np.allclose(frames[200].positions, frames[401].positions)
    late = found.steps[np.isin(found.steps % 201, range(60, 201))]
    assert loaded.explorer.volume_ratio(folder, late).tolist() == [1.0] * len(late)
    assert len(loaded.explorer.trajectories(folder)) == 3
