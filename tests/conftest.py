"""Small projects for all tests, and what is on this machine."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
SHARED = Path(os.environ.get("AL_SHARED", Path(__file__).parents[2] / "shared"))
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "DP_INTRA_OP_PARALLELISM_THREADS": "1",
    "DP_INTER_OP_PARALLELISM_THREADS": "1",
    "NUM_WORKERS": "0",
}


def pytest_collection_modifyitems(items):
    missing = [name for name in ("dp", "lmp") if shutil.which(name) is None]
    for item in items:
        if missing and item.get_closest_marker("engines"):
            item.add_marker(pytest.mark.skip(reason=f"{' and '.join(missing)} not installed (extra [engines])"))
        if not SHARED.is_dir() and item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason=f"{SHARED} is not here"))


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    """dpdispatcher keeps files in the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def project(tmp_path):
    """A copper project labelled with EMT that passes `al check`; `.save()` after changing `.param` or `.machine`."""
    return Project(tmp_path / "run")


class Project:
    """A run directory with its two input files."""

    def __init__(self, root: Path) -> None:
        from tests.systems import copper_data, copper_structures

        self.root = root
        root.mkdir(parents=True)
        copper_data(root / "init" / "cu", seed=1, frames=4)
        copper_structures(root / "structures", 2)
        self.param = copper_param()
        self.machine = machine()
        self.save()

    def save(self) -> None:
        (self.root / "param.json").write_text(json.dumps(self.param, indent=1))
        (self.root / "machine.json").write_text(json.dumps(self.machine, indent=1))


def copper_param():
    return {
        "type_map": ["Cu"],
        "init_data_prefix": "init",
        "init_data_sys": ["cu"],
        "sys_configs": [["structures/0*/POSCAR"]],
        "numb_models": 2,
        "train_backend": "pytorch",
        "dp_train_skip_neighbor_stat": True,
        "default_training_param": {
            "model": {
                "descriptor": {
                    "type": "se_e2_a",
                    "rcut": 4.0,
                    "rcut_smth": 1.0,
                    "sel": [48],
                    "neuron": [4, 8],
                    "axis_neuron": 4,
                },
                "fitting_net": {"neuron": [8, 8]},
            },
            "learning_rate": {"type": "exp", "start_lr": 0.01, "stop_lr": 1e-4, "decay_steps": 10},
            "loss": {
                "start_pref_e": 0.02,
                "limit_pref_e": 1,
                "start_pref_f": 1000,
                "limit_pref_f": 1,
                "start_pref_v": 0,
                "limit_pref_v": 0,
            },
            "training": {"training_data": {"batch_size": 1}, "numb_steps": 60, "disp_freq": 20, "save_freq": 20},
        },
        "model_devi_dt": 0.002,
        "model_devi_skip": 0,
        "model_devi_f_trust_lo": 0.0,
        "model_devi_f_trust_hi": 100.0,
        "model_devi_jobs": [{"sys_idx": [0], "temps": [300], "trj_freq": 5, "nsteps": 50, "ensemble": "nvt"}],
        "fp_style": "ase",
        "user_fp_params": {"calculator": "emt"},
        "fp_task_max": 4,
        "fp_task_min": 1,
    }


def machine(context="LazyLocalContext", **commands):
    """A machine file for this computer; keyword arguments replace the commands."""
    command = {"train": "dp", "model_devi": "lmp", "fp": sys.executable, **commands}
    group = {"train": 1, "model_devi": 1, "fp": 50}
    where = {"batch_type": "Shell", "context_type": context, "local_root": "./"}
    if context == "LocalContext":
        where["remote_root"] = "./work"
    sections = {
        name: {
            "command": command[name],
            "machine": dict(where),
            "resources": {"group_size": group[name], "cpu_per_node": 1, "envs": ONE_THREAD},
        }
        for name in command
    }
    return {"api_version": "1.0", "deepmd_version": "3.2", **sections}
