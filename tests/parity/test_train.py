"""Training inputs, commands and links equal those of DP-GEN's make_train, run_train and post_train, but for seeds."""

import copy
import json
import os
import shlex
import subprocess
from pathlib import Path

import dpdata
import h5py
import pytest

from activelearn import project as projects
from activelearn import stages
from tests.conftest import copper_param, machine
from tests.systems import copper, labelled, write_data

REFEREE = """
import glob, random
import dpgen.generator.run as run
from dpgen.generator.arginfo import run_jdata_arginfo
from dpgen.remote.decide_machine import convert_mdata
from dpgen.util import normalize

class Recorder:
    def run_submission(self):
        pass

result = {}
for name, case in args["cases"].items():
    os.chdir(case["folder"])
    asked = []
    def record(machine, resources, **rest):
        asked.append(rest)
        return Recorder()
    run.make_submission = record
    jdata = json.load(open("param.json"))
    if case["checked"]:
        jdata = normalize(run_jdata_arginfo(), jdata)
    mdata = convert_mdata(json.load(open("machine.json")))
    random.seed(1)
    for task in (run.make_train, run.run_train, run.post_train):
        task(case["iteration"], jdata, mdata)
    result[name] = asked
"""
FAKE_DP = """#!/bin/sh
echo "$@" >> "$LOG"
case " $* " in
  *" --pt"*" train "*) echo 1 > model.ckpt-20.pt; ln -sf model.ckpt-20.pt model.ckpt.pt
    echo model.ckpt-20.pt > checkpoint;;
  *" --jax"*" train "*) mkdir -p model.ckpt-20.jax; ln -sfn model.ckpt-20.jax model.ckpt.jax;;
  *" train "*) for end in index meta data-00000-of-00001; do
      echo 1 > model.ckpt-20.$end; ln -sf model.ckpt-20.$end model.ckpt.$end; done
    echo 'model_checkpoint_path: "model.ckpt-20"' > checkpoint;;
esac
"""
PT = {"train_backend": "pytorch"}
OTHER = {"type": "se_e2_r", "rcut": 4.0, "rcut_smth": 1.0, "sel": [48], "neuron": [4, 8]}


def _training(**changes):
    """Return a change of default_training_param; keys are paths with `__`."""
    given = copper_param()["default_training_param"]
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = given
        for key in parents:
            part = part[key]
        part[last] = value
    return {"default_training_param": given}


def _two_inputs():
    one, two = (copper_param()["default_training_param"] for _ in range(2))
    two["model"]["descriptor"] = OTHER
    two["training"]["numb_steps"] = 99
    return {"default_training_param": [one, two]}


def _hybrid():
    plain = copper_param()["default_training_param"]["model"]["descriptor"]
    return _training(
        model__descriptor={"type": "hybrid", "list": [plain, OTHER]}, model__type_embedding={"neuron": [2, 4]}
    )


def _older():
    """Return training parameters in the words of DeePMD-kit 1.x."""
    given = copper_param()["default_training_param"]
    given["training"] = {"systems": [], "set_prefix": "set", "stop_batch": 60, "batch_size": 1, "disp_freq": 20}
    return {"default_training_param": given}


REUSE = {
    "training_reuse_iter": 1,
    "training_reuse_start_lr": 1e-4,
    "training_reuse_start_pref_e": 0.5,
    "training_reuse_start_pref_f": 7,
}
OLD = {"training_init_model": True, "training_iter0_model_path": ["old/b*", "old/a"]}
CASES = {
    "plain": (0, {}, {}),
    "batch sizes": (2, {"init_batch_size": [3, "auto", 2, "auto"], "sys_batch_size": ["auto", 5]}, {}),
    "nothing is too small": (2, {"fp_task_min": 0}, {}),
    "automatic share": (2, {**REUSE, **PT, "training_reuse_numb_steps": 10}, {}),
    "share auto:3": (1, {**REUSE, "training_reuse_old_ratio": "auto:3"}, {}),
    "share given": (2, {**REUSE, **PT, "training_reuse_old_ratio": 0.3, "training_reuse_stop_batch": 11}, {}),
    "stop_batch": (1, {**REUSE, **PT, "training_reuse_numb_steps": 10, **_training(training__stop_batch=5)}, {}),
    "reuse comes later": (1, {**REUSE, "training_reuse_iter": 2, "training_reuse_numb_steps": 10}, {}),
    "loss without force": (1, {**REUSE, **PT, **_training(loss={"start_pref_e": 1})}, {}),
    "init model": (0, {**OLD, **PT}, {}),
    "init model, tensorflow": (0, OLD, {}),
    "init model, jax": (1, {"training_init_model": True, "train_backend": "jax"}, {}),
    "init model, later": (1, {**OLD, **PT}, {}),
    "init model, after models were carried over": (2, {**OLD, **PT}, {}),
    "frozen": (0, {"training_init_frozen_model": ["old/m0.PB", "old/m1.pb"]}, {}),
    "frozen, later": (1, {"training_init_frozen_model": ["old/m0.PB", "old/m1.pb"]}, {}),
    "finetune": (0, {**PT, "training_finetune_model": ["old/a/model.ckpt.pt", "old/b1/model.ckpt.pt"]}, {}),
    "one input per model": (0, {**PT, **_two_inputs()}, {}),
    "hybrid": (0, _hybrid(), {}),
    "loc_frame": (0, _training(model__descriptor={"type": "loc_frame", "rcut": 4.0}), {}),
    "own type_map": (0, {**PT, **_training(model__type_map=["H", "Cu", "O"])}, {}),
    "activation": (0, {"model_devi_activation_func": [["tanh", "gelu"], ["relu", "tanh"]]}, {}),
    "activation, one name": (0, {"model_devi_activation_func": ["gelu", "relu"]}, {}),
    "table": (0, {"srtab_file_path": "old/table.txt", **_training(model__use_srtab="table.txt")}, {}),
    "one file": (2, {"one_h5": True}, {}),
    "fparam": (0, {"use_ele_temp": 1, **_training(model__fitting_net={"numb_aparam": 3})}, {}),
    "aparam": (0, {"use_ele_temp": 2, **_training(model__fitting_net={"numb_fparam": 3})}, {}),
    "mixed batch": (1, _training(training__training_data={"batch_size": "mixed:64", "auto_prob": "prob_uniform"}), {}),
    "lost batch": (0, _training(training__training_data={"batch_size": "auto:256"}), {}),
    "compressed": (0, {**PT, "dp_compress": True, "dp_train_skip_neighbor_stat": False}, {}),
    "jax": (0, {"train_backend": "jax"}, {}),
    "exportable": (0, {"train_backend": "pt-expt", "dp_compress": True}, {"export_command": "there/dp"}),
    "dpa4": (
        0,
        {**PT, "model_format": "pt2", **_training(model={"type": "DPA4", "descriptor": {"type": "dpa4", "rcut": 4.0}})},
        {"export_command": None},
    ),
    "dpa4c": (
        0,
        {"train_backend": "pytorch-exportable", **_training(model__descriptor={"type": "dpa4c", "rcut": 4.0})},
        {"export_command": None},
    ),
    "version 1": (2, {**REUSE, **_older(), "training_reuse_numb_steps": 10}, {"deepmd_version": "1.2"}),
    "nothing new": (2, {"fp_task_min": 9, **PT}, {}),
    "skipped": (1, {"model_devi_jobs": "skip", **PT}, {}),
}  # fmt: skip
UNCHECKED = ("activation, one name", "skipped")
"""DP-GEN's code knows them, its check of param.json refuses them."""
TRAINED = [name for name in CASES if name not in ("nothing new", "skipped")]
SEED = "seed"


def _data(seed, frames):
    return [labelled(copper(1000 * seed + n)) for n in range(frames)]


def prepare(root, param, machine_file):
    """Make a run directory as it is before the training of iteration 2."""
    root.mkdir()
    for place, frames in (("cu", 4), ("many/b", 3), ("many/a/deep", 2)):
        write_data(_data(len(place), frames), root / "init" / place)
    (system,) = dpdata.MultiSystems(*_data(9, 2))
    with h5py.File(root / "init" / "two.hdf5", "w") as file:
        for name in ("x/y", "z"):
            system.to("deepmd/hdf5", file.create_group(name))
    with h5py.File(root / "init" / "one.hdf5", "w") as file:
        system.to("deepmd/hdf5", file)
    for iteration, system, frames in ((0, 0, 3), (0, 1, 1), (1, 0, 2), (1, 1, 5)):
        write_data(_data(20 + iteration, frames), root / f"iter.00000{iteration}/02.fp/data.00{system}/Cu8")
    checkpoint = ["model.ckpt.meta", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.ckpt.pt"]
    for n, folder in enumerate(["iter.000000/00.train/000", "iter.000000/00.train/001", "old/a", "old/b1"]):
        (root / folder / "model.ckpt.jax").mkdir(parents=True)
        (root / folder / "model.ckpt.jax" / "array").write_text(f"{n}")
        for name in [*checkpoint, "frozen_model.pth", "frozen_model.pb"]:
            (root / folder / name).write_text(f"{n} {name}")
    second = root / "iter.000001" / "00.train"
    second.mkdir(parents=True)
    (second / "copied").touch()
    for n in (0, 1):
        (root / f"old/m{n}.pb").write_text("frozen")
        (root / f"iter.000000/00.train/graph.00{n}.pth").symlink_to(f"00{n}/frozen_model.pth")
        (second / f"00{n}").symlink_to(f"../../iter.000000/00.train/00{n}")
        (second / f"graph.00{n}.pth").symlink_to(f"00{n}/frozen_model.pth")
    (root / "old/m0.pb").rename(root / "old/m0.PB")
    (root / "old/table.txt").write_text("1 2 3\n")
    (root / "param.json").write_text(json.dumps(param))
    (root / "machine.json").write_text(json.dumps(machine_file))
    return root


def inputs(changes, machine_changes):
    param = copper_param()
    del param["train_backend"], param["user_fp_params"]
    job = {"sys_idx": [0], "temps": [300], "trj_freq": 5, "nsteps": 50, "ensemble": "nvt"}
    param.update(
        init_data_sys=["cu", "many", "two.hdf5", "one.hdf5"],
        sys_configs=[["x"], ["y"]],
        model_devi_jobs=[dict(job) for _ in range(3)],
        model_devi_f_trust_lo=0.1,
        model_devi_f_trust_hi=0.2,
        fp_task_min=2,
        fp_style="vasp",
        fp_pp_path="p",
        fp_pp_files=["P"],
        fp_incar="INCAR",
    )
    param.update(copy.deepcopy(changes))
    if param["model_devi_jobs"] == "skip":
        param["model_devi_jobs"] = [{**job, "skip_training": True}]
    machine_file = machine()
    if "deepmd_version" in machine_changes:
        machine_file["deepmd_version"] = machine_changes["deepmd_version"]
    if machine_changes.get("export_command"):
        machine_file["train"]["export_command"] = machine_changes["export_command"]
    return param, machine_file


class Ours:
    """What one case is with us: the folder and the batch, or none where models are carried over."""

    def __init__(self, root, iteration):
        project, _ = projects.load(root / "param.json", root / "machine.json", root)
        self.folder = root / f"iter.00000{iteration}" / "00.train"
        self.project = project
        previous = {"models": [project.trainer.graph_name(n) for n in range(2)]} if iteration else None
        try:
            self.batch = next(stages.train(project, iteration, previous))
        except StopIteration:
            self.batch = None


@pytest.fixture(scope="module")
def both(dpgen, tmp_path_factory):
    """Every case in a folder of its own, by DP-GEN and by us."""
    folder = tmp_path_factory.mktemp("train")
    asked, ours = {}, {}
    for number, (name, (iteration, *changes)) in enumerate(CASES.items()):
        theirs = prepare(folder / f"{number}.dpgen", *inputs(*changes))
        asked[name] = {"folder": str(theirs), "iteration": iteration, "checked": name not in UNCHECKED}
        ours[name] = Ours(prepare(folder / f"{number}.al", *inputs(*changes)), iteration)
    recorded = dpgen(folder, REFEREE, cases=asked)
    return {
        name: (Path(case["folder"]), f"iter.00000{case['iteration']}/00.train", recorded[name], ours[name])
        for name, case in asked.items()
    }


def without_seeds(value):
    if isinstance(value, dict):
        return {key: without_seeds(item) for key, item in value.items() if key != SEED}
    return [without_seeds(item) for item in value] if isinstance(value, list) else value


def seeds(value, path=""):
    if isinstance(value, dict):
        found = [path] if SEED in value else []
        return found + [at for key, item in value.items() for at in seeds(item, f"{path}/{key}")]
    return [at for n, item in enumerate(value) for at in seeds(item, f"{path}/{n}")] if isinstance(value, list) else []


def content(task, system):
    """Return the arrays and elements of a system in the one HDF5 file."""
    file, _, group = system.partition("#")
    arrays = {}
    with h5py.File(task / file) as opened:
        top = opened[group]
        for part in (name for name in top if name.startswith("set.")):
            arrays |= {f"{part}/{name}": array[()].ravel().tolist() for name, array in top[part].items()}
        arrays["type_map.raw"] = [name.decode() for name in top["type_map.raw"]]
        arrays["type.raw"] = top["type.raw"][()].tolist()
    return arrays


def place(task, root, system):
    """Return where a system really lies, relative to the run."""
    file, mark, group = system.partition("#")
    return f"{os.path.relpath((task / file).resolve(), root.resolve())}{mark}{group.rstrip('/')}"


def data_of(given, legacy):
    return given["training"] if legacy else given["training"]["training_data"]


@pytest.mark.parametrize("case", TRAINED)
def test_input(both, case):
    theirs, stage, _, ours = both[case]
    root = ours.project.workdir.root
    for number in ("000", "001"):
        wanted, given = (json.loads((f / stage / number / "input.json").read_text()) for f in (theirs, root))
        assert seeds(given) == seeds(wanted)
        there, here = (part["training"].get("training_data", part["training"]) for part in (wanted, given))
        systems = [there.pop("systems"), here.pop("systems")]
        assert len(systems[1]) > 5
        places = [
            [place(f / stage / number, f, s) for s in found] for f, found in zip((theirs, root), systems, strict=True)
        ]
        last = f"iter.{CASES[case][0] - 1:06d}"
        n_old = sum(last not in s for s in places[0])
        assert sorted(places[1][:n_old]) == sorted(places[0][:n_old])  # auto_prob counts on it
        assert sorted(places[1]) == sorted(places[0])
        if isinstance(there.get("batch_size"), list):
            sizes = [dict(zip(places[n], part.pop("batch_size"), strict=True)) for n, part in enumerate((there, here))]
            assert sizes[1] == sizes[0]
        if case == "one file":
            frames = [
                {at: content(f / stage / number, s) for at, s in zip(places[n], systems[n], strict=True)}
                for n, f in enumerate((theirs, root))
            ]
            assert frames[1] == frames[0]
            assert all(len(arrays) > 4 for arrays in frames[1].values())
        assert without_seeds(given) == without_seeds(wanted)


@pytest.mark.parametrize("case", TRAINED)
def test_files(both, case):
    """Each task gets the files DP-GEN sends, with the same contents."""
    theirs, stage, asked, ours = both[case]
    for number, task in zip(("000", "001"), ours.batch.tasks, strict=True):
        assert set(task.forward) == set(asked[0]["forward_files"])
        for name in set(task.forward) - {"input.json"}:
            wanted, given = (folder / number / name for folder in (theirs / stage, ours.folder))
            if given.is_dir():
                wanted, given = wanted / "array", given / "array"
            assert given.read_text() == wanted.read_text()
    wanted = {os.path.normpath(name) for name in asked[0]["forward_common_files"]}
    files = {
        str(f.relative_to(theirs / stage))
        for name in wanted
        for f in ([theirs / stage / name] if (theirs / stage / name).is_file() else (theirs / stage / name).iterdir())
    }
    too_small = {f for f in files if "data.001" in f and "iter.000000" in f}  # sent, but not trained on
    assert set(ours.batch.common) | (too_small if case != "nothing is too small" else set()) == files
    fetched = {n.replace("model.ckpt", "model.ckpt-20") for n in asked[0]["backward_files"]}  # the files, not the links
    task = ours.batch.tasks[0]
    left = {n for n in fetched if not any(Path(n).match(p) for p in (*task.outputs, *task.restart))}
    assert left <= {"train.log", ".dpgen_train_complete"}


def calls(folder, script, begun, flag=""):
    """Run shell text with a `dp` that notes its arguments; `begun`: a checkpoint is there."""
    folder.mkdir(parents=True)
    tools = folder / "bin" / "there"
    tools.mkdir(parents=True)
    for dp in (tools / "dp", tools.parent / "dp"):
        dp.write_text(FAKE_DP)
        dp.chmod(0o755)
    where = {"PATH": f"{tools.parent}:{os.environ['PATH']}", "LOG": str(folder / "calls")}
    if begun:
        subprocess.run(["dp", flag, "train"], cwd=folder, env=where, check=True)
        (folder / "calls").unlink()
    (folder / "there").symlink_to(tools)
    subprocess.run(["bash", "-c", script], cwd=folder, env=where, check=True)
    return [meaning(line) for line in (folder / "calls").read_text().splitlines()]


def meaning(line):
    """Return one call of `dp` as command and options; defaults and the kind of name a checkpoint has are the same."""
    words = shlex.split(line)
    commands = [w for w in words if w in ("train", "freeze", "compress")]
    options, key = {}, None
    for word in words:
        if word.startswith("-"):
            key = word
            options[key] = ""
        elif word not in commands and key:
            options[key] = word.removesuffix(".pt2").removesuffix(".pt").removesuffix("-20")
            key = None
    for flag, default in (("-o", "frozen_model"), ("-i", "frozen_model"), ("-o", "frozen_model_compressed")):
        if Path(options.get(flag, "")).stem == default:
            del options[flag]
    return commands[0], options


@pytest.mark.parametrize("begun", [False, True], ids=["fresh", "begun"])
@pytest.mark.parametrize("case", TRAINED)
def test_commands(both, case, begun, tmp_path):
    _, _, asked, ours = both[case]
    command = ours.project.machine.sections["train"].command
    flag = ours.project.trainer.backend.flag
    wanted = calls(tmp_path / "theirs", "\n".join(asked[0]["commands"]), begun, flag)
    given = calls(tmp_path / "ours", ours.batch.script(command, ours.batch.tasks), begun, flag)
    if flag == "--jax" and begun:  # DP-GEN looks for a file, JAX writes a folder: it never restarts
        assert "--restart" not in wanted[0][1]
        wanted[0][1].pop("--init-model", None)
        wanted[0][1]["--restart"] = "model.ckpt-20.jax"
    assert given == wanted
    assert any(name == "train" and ("--restart" in options) == begun for name, options in given)


@pytest.mark.parametrize("case", ["exportable", "dpa4", "dpa4c"])
def test_export(both, case, tmp_path):
    """Compiled models are made on the machine that explores, by export_command."""
    _, _, asked, ours = both[case]
    for n in ("000", "001"):
        (ours.folder / n / "model.ckpt.pt").write_text(n)
    batch = ours.project.trainer.export(stages.TrainingJob(ours.folder, (), (), ()))
    section = ours.project.machine.export
    assert section.machine == ours.project.machine.sections["explore"].machine
    script = batch.script(section.command, batch.tasks)
    assert script.split()[0] == asked[1]["commands"][0].split()[0]
    assert calls(tmp_path / "ours", script, True) == calls(tmp_path / "theirs", "\n".join(asked[1]["commands"]), True)
    for number, task in zip(("000", "001"), batch.tasks, strict=True):
        assert list(task.forward) == asked[1]["forward_files"]
        assert (batch.folder / task.name / "model.ckpt.pt").read_text() == number
        assert set(asked[1]["backward_files"]) == set(task.outputs)


@pytest.mark.parametrize("case", list(CASES))
def test_models_are_known_by_the_same_names(both, case):
    theirs, stage, _, ours = both[case]
    wanted = {link.name for link in (theirs / stage).glob("graph.*")}
    given = {name for name in ours.project.trainer.links(ours.folder) if name.startswith("graph.")}
    assert given == wanted
    for name in wanted:
        target = ours.project.trainer.links(ours.folder)[name]
        assert target == str((theirs / stage / name).readlink())


@pytest.mark.parametrize("case", ["nothing new", "skipped"])
def test_carried_over(both, case):
    theirs, stage, asked, ours = both[case]
    assert asked == []
    assert ours.batch is None
    found = []
    for folder in (theirs, ours.project.workdir.root):
        names = sorted(file.name for file in (folder / stage).iterdir())
        found.append({n: os.path.relpath((folder / stage / n).resolve(), folder) for n in names})
    assert found[0] == found[1]
    assert found[0]["graph.001.pth"] == "iter.000000/00.train/001/frozen_model.pth"
