"""Old spellings of DP-GEN's files mean what their new ones mean, and each is named once."""

import json

import pytest
from click.testing import CliRunner

from activelearn.cli import main
from activelearn.config import legacy, legacy_machine
from activelearn.config.machine import decode
from tests.conftest import SHARED, machine


def said(problems):
    return {(problem.path, problem.level): problem.message for problem in problems}


def test_old_names_of_a_job():
    old = {
        "sys_idx": ["2-5", 7, "10-20:4"],
        "Ts": [50],
        "Ps": [1.0],
        "t_freq": 10,
        "nsteps": 100,
        "ens": "npt",
        "s_t": True,
    }
    new, problems = legacy.param({"model_devi_jobs": [old, dict(old)]}, "param.json")
    for job in new["model_devi_jobs"]:
        assert job == {
            "sys_idx": [2, 3, 4, 7, 10, 14, 18],
            "temps": [50],
            "press": [1.0],
            "trj_freq": 10,
            "nsteps": 100,
            "ensemble": "npt",
            "skip_training": True,
        }
    assert {problem.level for problem in problems} == {"warning"}
    assert sorted(problem.path for problem in problems) == sorted(
        f"model_devi_jobs[0].{key}" for key in ("Ts", "Ps", "t_freq", "ens", "s_t", "sys_idx")
    )
    assert "temps" in said(problems)["model_devi_jobs[0].Ts", "warning"]


def test_nothing_is_said_about_todays_files(project):
    raw = json.loads((project.root / "param.json").read_text())
    assert legacy.param(raw, "param.json") == (raw, [])
    assert legacy_machine.machine(project.machine, "machine.json") == (project.machine, [])


def test_settings_that_moved_into_the_jobs():
    jobs = [{"sys_idx": [0]}, {"sys_idx": [0], "taut": 0.3}]
    new, problems = legacy.param({"model_devi_taut": 0.2, "model_devi_taup": 0.7, "model_devi_jobs": jobs}, "p")
    assert [job["taut"] for job in new["model_devi_jobs"]] == [0.2, 0.3]
    assert [job["taup"] for job in new["model_devi_jobs"]] == [0.7, 0.7]
    assert "model_devi_taut" not in new
    assert len(problems) == 2
    assert jobs == [{"sys_idx": [0]}, {"sys_idx": [0], "taut": 0.3}]  # what was read is not changed


@pytest.mark.parametrize("key", sorted(legacy.DEAD))
def test_dead_keys_are_dropped_and_named(key):
    new, (problem,) = legacy.param({key: 1e10}, "param.json")
    assert new == {}
    assert (problem.path, problem.level) == (key, "warning")


def test_both_names_with_different_values_are_an_error():
    _, (problem,) = legacy.param({"model_devi_jobs": [{"Ts": [50], "temps": [60]}]}, "param.json")
    assert problem.level == "error"
    assert problem.path == "model_devi_jobs[0].Ts"


def test_a_range_that_is_none_is_an_error():
    _, (problem,) = legacy.param({"model_devi_jobs": [{"sys_idx": ["all"]}]}, "param.json")
    assert (problem.level, problem.path) == ("error", "model_devi_jobs[0].sys_idx")


FLAT = {
    "deepmd_path": "/opt/deepmd/",
    "train_machine": {
        "machine_type": "slurm",
        "hostname": "cluster",
        "port": 22,
        "username": "me",
        "password": "hush",
        "work_path": "/scratch/me",
    },
    "train_resources": {
        "numb_node": 1,
        "numb_gpu": 1,
        "task_per_node": 8,
        "partition": "gpu",
        "exclude_list": ["n1", "n2"],
        "source_list": ["/opt/env.sh"],
        "module_list": [],
        "time_limit": "23:0:0",
        "mem_limit": 32,
    },
    "lmp_command": "lmp_serial",
    "model_devi_group_size": 5,
    "model_devi_machine": {"batch": "shell", "work_path": "/tmp/work"},
    "model_devi_resources": {"numb_node": 1, "task_per_node": 4},
    "fp_command": "vasp_std",
    "fp_machine": {"batch": "pbs", "lazy_local": True},
    "fp_resources": {"numb_node": 2, "task_per_node": 16, "with_mpi": True, "time_limit": "1:0:0", "mem_limit": -1},
}


def test_flat_machine_file():
    new, problems = legacy_machine.machine(FLAT, "machine.json")
    assert new["train"] == {
        "command": "/opt/deepmd/bin/dp",
        "machine": {
            "batch_type": "Slurm",
            "context_type": "SSHContext",
            "local_root": "./",
            "remote_root": "/scratch/me",
            "remote_profile": {"hostname": "cluster", "port": 22, "username": "me", "password": "hush"},
        },
        "resources": {
            "number_node": 1,
            "cpu_per_node": 8,
            "gpu_per_node": 1,
            "queue_name": "gpu",
            "source_list": ["/opt/env.sh"],
            "custom_flags": ["#SBATCH --time=23:0:0", "#SBATCH --mem=32G", "#SBATCH --exclude=n1,n2"],
        },
    }
    assert new["model_devi"]["command"] == "lmp_serial"
    assert new["model_devi"]["machine"]["context_type"] == "LocalContext"
    assert new["fp"]["command"] == "mpirun -n 32 vasp_std"
    assert new["fp"]["machine"] == {"batch_type": "PBS", "context_type": "LazyLocalContext", "local_root": "./"}
    assert new["fp"]["resources"]["custom_flags"] == ["#PBS -l walltime=1:0:0"]
    assert [problem.path for problem in problems] == ["train", "model_devi", "fp"]
    assert not any("hush" in str(problem) for problem in problems)
    decoded, rest = decode(new, "machine.json")
    assert rest == []
    assert decoded.sections["explore"].group_size == 5


def test_lists_of_machines_in_the_old_form():
    section = {"machine": FLAT["train_machine"], "resources": FLAT["train_resources"], "deepmd_path": "/opt/deepmd"}
    modern = machine()
    new, (problem,) = legacy_machine.machine({**modern, "train": [section]}, "machine.json")
    assert new["train"][0]["command"] == "/opt/deepmd/bin/dp"
    assert new["train"][0]["resources"]["queue_name"] == "gpu"
    assert problem.path == "train"


def test_flat_keys_around_dpdispatchers_own_form():
    modern = machine()["train"]
    flat = {f"train_{key}": value for key, value in modern.items()}
    new, (problem,) = legacy_machine.machine(flat, "machine.json")
    assert new == {"train": modern}
    assert problem.level == "warning"


@pytest.mark.shared
def test_published_flat_file_is_understood(project):
    file = SHARED / "data" / "dpgen" / "ch4__machine.json"
    result = CliRunner().invoke(
        main, ["check", str(project.root / "param.json"), str(file), "-C", str(project.root), "--json"]
    )
    answer = json.loads(result.stdout)
    assert [problem["path"] for problem in answer["warnings"]] == ["train", "model_devi", "fp"]
    assert answer["errors"] == []


def test_flat_keys_beside_their_section_are_ignored():
    modern = machine()
    new, (problem,) = legacy_machine.machine({**modern, "train_command": "dp1"}, "machine.json")
    assert new == modern
    assert (problem.path, problem.level) == ("train_command", "warning")
