"""The keys of training: what is refused, what is accepted, and what becomes of it."""

import json
import stat
import subprocess
import sys

import dpdata
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from activelearn import project as projects
from activelearn import stages
from activelearn.cli import main
from activelearn.data import dataset
from activelearn.dispatch.ledger import Digests
from activelearn.errors import EngineError
from tests import driver
from tests.systems import alloy, copper, labelled, write_data
from tests.test_wrong_inputs import problems, vasp

TRAINING = "default_training_param"


def with_model(project, **changes):
    project.param[TRAINING]["model"].update(changes)


def old_models(project, *names, file="model.ckpt.pt"):
    for name in names:
        (project.root / name).mkdir()
        (project.root / name / file).write_text(name)


def two_inputs(project, **changes):
    one, two = (json.loads(json.dumps(project.param[TRAINING])) for _ in range(2))
    two["model"]["descriptor"].update(changes)
    project.param[TRAINING] = [one, two]


def _set(**keys):
    return lambda project: project.param.update(keys)


def _old(names, **keys):
    def change(project):
        old_models(project, *names)
        project.param.update(keys)

    return change


def _both(one, two):
    return lambda project: (one(project), two(project))


def _hdf5(project, group="g", entry="x.hdf5", change=lambda opened: None):
    system = dpdata.LabeledSystem(str(project.root / "init" / "cu"), fmt="deepmd/npy")
    with h5py.File(project.root / "init" / "x.hdf5", "w") as file:
        system.to("deepmd/hdf5", file.create_group(group))
        change(file)
    project.param["init_data_sys"] = [entry]


def _fparam(project):
    np.save(project.root / "init/cu/set.000/fparam.npy", np.ones((4, 1)))


def _nan(opened):
    opened["g/set.000/force.npy"][0] = np.nan


def _mixed(project, types=None):
    frames = dpdata.MultiSystems(labelled(alloy(1)), labelled(copper(2)), type_map=["Al", "Cu"])
    frames.to("deepmd/npy/mixed", str(project.root / "init" / "mixed"))
    if types is not None:
        np.save(project.root / "init/mixed/8/set.000/real_atom_types.npy", types)
    project.param["type_map"] = ["Al", "Cu"]
    project.param[TRAINING]["model"]["descriptor"]["sel"] = [40, 60]
    project.param["init_data_sys"] = ["cu", "mixed"]


INIT = {"training_init_model": True, "training_iter0_model_path": ["old*"]}
FROZEN, FINETUNE = "training_init_frozen_model", "training_finetune_model"
WRONG = {
    "too few inputs": (_set(default_training_param=[{}]), TRAINING, "1 entries for 2"),
    "broken second input": (
        lambda p: (two_inputs(p), p.param[TRAINING][1].pop("loss")),
        f"{TRAINING}[1].loss",
        "missing",
    ),
    "other cutoff": (lambda p: two_inputs(p, rcut=5.0), f"{TRAINING}[1]", "the cutoff is 5.0, but 4.0"),
    "activation of one model": (_set(model_devi_activation_func=["tanh"]), "model_devi_activation_func", "1 entries"),
    "pb of pytorch": (_set(model_format="pb"), "model_format", "pth, pt2"),
    "pte for LAMMPS": (_set(train_backend="pt-expt", model_format="pte"), "model_format", '"pt2"'),
    "pt2 of a plain model": (_set(model_format="pt2"), "model_format", "only dpa4"),
    "pt2 compressed": (
        lambda p: (p.param.update(model_format="pt2", dp_compress=True), with_model(p, type="dpa4")),
        "dp_compress",
        "pt2",
    ),
    "dpa4 with another backend": (
        lambda p: (p.param.update(train_backend="jax"), with_model(p, type="SeZM")),
        "train_backend",
        '"pytorch"',
    ),
    "dpa4 as pth": (lambda p: with_model(p, type="dpa4"), "model_format", "pt2 only"),
    "option of dpa4c": (
        lambda p: (
            p.param.update(model_format="pt2"),
            with_model(p, type="dpa4"),
            p.param[TRAINING]["training"].update(enable_tf32=True),
        ),
        f"{TRAINING}.training.enable_tf32",
        "model.enable_tf32",
    ),
    "old DeePMD-kit": (
        lambda p: (p.param.update(train_backend="pt-expt"), p.machine.update(deepmd_version="3.1")),
        "train_backend",
        "3.2",
    ),
    "frozen models exclude checkpoints": (_old(["old0", "old1"], **INIT, training_finetune_model=["old0", "old1"]),
        FINETUNE, "exclude"),
    "too few checkpoints": (_old(["old0"], **INIT), "training_iter0_model_path", "1 folders found for 2"),
    "no checkpoints": (_set(training_init_model=True), "training_iter0_model_path", "0 folders"),
    "checkpoints of another backend": (
        _old(["old0", "old1"], **INIT, train_backend="jax"),
        "training_iter0_model_path",
        "model.ckpt.jax",
    ),
    "frozen models are missing": (_set(**{FROZEN: ["old/a.pth", "old/b.pth"]}), f"{FROZEN}[0]", "does not exist"),
    "one frozen model": (_both(_old(["a.pth"]), _set(**{FROZEN: "a.pth"})), FROZEN, "1 files for 2"),
    "frozen models of two kinds": (
        _both(_old(["a.pth", "b.pb"]), _set(**{FROZEN: ["a.pth", "b.pb"]})),
        FROZEN,
        "suffix",
    ),
    "frozen model for exportable": (
        _both(_old(["a.pth", "b.pth"]), _set(**{FROZEN: ["a.pth", "b.pth"]}, train_backend="pt-expt")),
        FROZEN,
        "cannot start",
    ),
    "share is nonsense": (_set(training_reuse_old_ratio="auto:x"), "training_reuse_old_ratio", "auto:F"),
    "share above 1": (_set(training_reuse_old_ratio=1.5), "training_reuse_old_ratio", "between 0 and 1"),
    "table is missing": (_set(srtab_file_path="zbl.txt"), "srtab_file_path", "does not exist"),
    "another engine": (_set(mlp_engine="gap"), "mlp_engine", "dp"),
    "electron temperature without VASP": (_both(_fparam, _set(use_ele_temp=1)), "use_ele_temp", "fp_style"),
    "electron temperature not in the data": (
        _both(lambda p: (_fparam(p), vasp(p)), _set(use_ele_temp=2)),
        "init_data_sys[0]",
        "aparam.npy is missing",
    ),
    "no such group": (lambda p: _hdf5(p, entry="x.hdf5#/h"), "init_data_sys[0]", "no labelled system"),
    "no HDF5": (lambda p: ((p.root / "init/x.h5").write_text("no"), _set(init_data_sys=["x.h5"])(p)),
        "init_data_sys[0]", "no labelled system"),
    "NaN in HDF5": (lambda p: _hdf5(p, change=_nan), "init_data_sys[0]", "x.hdf5#/g: set.000/force.npy has values"),
    "array missing in HDF5": (
        lambda p: _hdf5(p, change=lambda f: f.__delitem__("g/set.000/energy.npy")),
        "init_data_sys[0]",
        "energy.npy is missing",
    ),
    "HDF5 held out and trained on": (
        lambda p: (_hdf5(p), p.param.update(_activelearn={"validation_data_sys": ["x.hdf5#/g"]})),
        "_activelearn.validation_data_sys",
        "tested on what they were trained on",
    ),
    "mixed types of no element": (
        lambda p: _mixed(p, np.full((2, 8), 2)),
        "init_data_sys[1]",
        "real_atom_types.npy has type 2",
    ),
    "types without names": (
        lambda p: (
            (p.root / "init/cu/type_map.raw").unlink(),
            with_model(p, type_map=["Al", "Cu"]),
            p.param[TRAINING]["model"]["descriptor"].update(sel=[4, 60]),
        ),
        "init_data_sys",
        "no type_map.raw",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_one_clear_error(project, case):
    change, path, words = WRONG[case]
    change(project)
    errors = problems(project)["errors"]
    assert {error["path"].partition("[")[0] for error in errors} == {path.partition("[")[0]}
    assert errors[0]["path"] == path
    assert words in f"{errors[0]['message']} {errors[0]['hint']}"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (_old(["old0", "old1"], training_iter0_model_path=["old0", "old1"]), "training_iter0_model_path"),
        (_set(init_batch_size=[1, 2]), "init_batch_size"),
        (_set(sys_batch_size=[]), "sys_batch_size"),
        (lambda p: write_data([labelled(copper(5))], p.root / "init" / "cu" / "more"), "init_data_sys[0]"),
    ],
)
def test_warning(project, change, path):
    change(project)
    answer = problems(project)
    assert answer["ok"], answer
    assert [warning["path"] for warning in answer["warnings"]] == [path]


GOOD = {
    "HDF5 file": (lambda p: _hdf5(p, "a/b"), 4),
    "HDF5 group": (lambda p: _hdf5(p, "a/b", "x.hdf5#/a"), 4),
    "HDF5 root": (lambda p: _hdf5(p, "a", "x.hdf5#/"), 4),
    "mixed types": (_mixed, 6),
    "padded mixed types": (lambda p: _mixed(p, np.array([[0] * 4 + [1] * 4, [1] * 6 + [-1] * 2])), 6),
    "batch sizes in a word": (_set(init_batch_size="auto"), 4),
    "several inputs": (two_inputs, 4),
    "larger type_map": (
        lambda p: (with_model(p, type_map=["Cu", "H"]), p.param[TRAINING]["model"]["descriptor"].update(sel=[60, 4])),
        4,
    ),
    "old models in place": (_old(["old0", "old1"], **INIT), 4),
    "one for all": (_both(_old(["old0", "old1"]), _set(training_init_model=True, training_iter0_model_path="old*")), 4),
}


@pytest.mark.parametrize("case", GOOD)
def test_good(project, case):
    change, frames = GOOD[case]
    change(project)
    answer = problems(project)
    assert (answer["errors"], answer["warnings"]) == ([], [])
    arguments = [str(project.root / name) for name in ("param.json", "machine.json")]
    shown = CliRunner().invoke(main, ["check", *arguments, "-C", str(project.root)]).stdout
    assert f"{frames} frames in" in shown


def test_old_models_may_go_when_they_were_used(project):
    project.param.update(training_finetune_model=["a.pt", "b.pt"])
    assert not problems(project)["ok"]
    (project.root / "iter.000000" / "01.model_devi").mkdir(parents=True)
    assert problems(project)["ok"]


@pytest.mark.parametrize(
    ("given", "flag", "suffix"),
    [
        ({"train_backend": "TensorFlow"}, "", "pb"),
        ({"train_backend": "tf", "model_format": ".PB"}, "", "pb"),
        ({"train_backend": "pt"}, "--pt ", "pth"),
        ({"train_backend": "pytorch", "model_format": "PTH"}, "--pt ", "pth"),
        ({"train_backend": "pt-expt"}, "--pt-expt ", "pt2"),
        ({"train_backend": "PyTorch-Exportable", "model_format": "pt2"}, "--pt-expt ", "pt2"),
        ({"train_backend": "jax"}, "--jax ", "savedmodel"),
    ],
)
def test_spellings_of_backends(project, given, flag, suffix):
    project.param.pop("train_backend")
    project.param.update(given)
    trainer = prepared(project).trainer
    assert trainer.graph_name(1) == f"graph.001.{suffix}"
    assert f"mydp {flag}train input.json" in trainer.script("mydp", heldout=False)
    assert subprocess.run(["bash", "-n"], input=trainer.script("mydp", heldout=True), text=True).returncode == 0


def prepared(project):
    project.save()
    return projects.load(project.root / "param.json", project.root / "machine.json", project.root)[0]


@pytest.mark.parametrize("old", [True, False])
def test_reuse_from_iteration_0(project, old):
    """There are no older data yet; without models to start from it is an ordinary training."""
    project.param.update(training_reuse_iter=0, training_reuse_numb_steps=7)
    if old:
        old_models(project, "old0", "old1")
        project.param["training_iter0_model_path"] = ["old?"]
    batch = next(stages.train(prepared(project), 0, None))
    given = json.loads((project.root / "iter.000000/00.train/000/input.json").read_text())["training"]
    assert given["numb_steps"] == (7 if old else 60)
    assert "auto_prob" not in given["training_data"]
    assert ("--init-model" in batch.script("dp", batch.tasks)) == old
    assert (batch.tasks[1].forward[-1] == "old/model.ckpt.pt") == old


def test_changed_old_model_is_another_task(project):
    """What a training starts from is one of its inputs: it counts for whether the task is done."""
    old_models(project, "old0", "old1")
    project.param.update(INIT)
    loaded = prepared(project)
    batch = next(stages.train(loaded, 0, None))

    def digest(number):
        files = [(name, batch.folder / batch.tasks[number].name / name) for name in batch.tasks[number].forward]
        return Digests().of_inputs("", files)

    before = [digest(0), digest(1)]
    (project.root / "old1" / "model.ckpt.pt").write_text("better")
    assert digest(0) == before[0]
    assert digest(1) != before[1]


def test_digest_of_a_folder(tmp_path):
    """Checkpoints of JAX are folders."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("1")
    first = Digests().of_file(tmp_path / "a")
    assert Digests().of_file(tmp_path / "a") == first
    (tmp_path / "a" / "b" / "c").write_text("2")
    second = Digests().of_file(tmp_path / "a")
    (tmp_path / "a" / "b" / "c").rename(tmp_path / "a" / "c")
    assert len({first, second, Digests().of_file(tmp_path / "a")}) == 3


def test_activation_of_a_hybrid_descriptor(project):
    descriptor = project.param[TRAINING]["model"]["descriptor"]
    with_model(project, descriptor={"type": "hybrid", "list": [dict(descriptor) for _ in range(2)]})
    project.param["model_devi_activation_func"] = [["tanh", "gelu"], ["relu", "relu"]]
    next(stages.train(prepared(project), 0, None))
    model = json.loads((project.root / "iter.000000/00.train/000/input.json").read_text())["model"]
    assert [part["activation_function"] for part in model["descriptor"]["list"]] == ["tanh", "tanh"]
    assert "activation_function" not in model["descriptor"]
    assert model["fitting_net"]["activation_function"] == "gelu"


@pytest.mark.parametrize("iteration", [0, 1])
def test_no_checkpoint_to_start_from(project, iteration):
    project.param["training_init_model"] = True
    write_data([labelled(copper(3))], project.root / "iter.000000/02.fp/data.000/Cu8")
    with pytest.raises(EngineError, match="no checkpoint"):
        next(stages.train(prepared(project), iteration, {"models": []} if iteration else None))


def test_collect_brings_all_forms_together(project, tmp_path):
    _mixed(project)
    with h5py.File(project.root / "init" / "y.hdf5", "w") as file:
        labelled(copper(9)).to("deepmd/hdf5", file)
    project.param["init_data_sys"] += ["y.hdf5"]
    project.save()
    arguments = ["collect", str(project.root / "param.json"), "-C", str(project.root), "-o", str(tmp_path / "all")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    frames = {system.path.name: system.nframes for system in dataset.find(tmp_path / "all")}
    assert frames == {"Al4Cu4": 1, "Al0Cu8": 6}


def test_one_file_is_made_once_and_always_the_same(project):
    project.param["one_h5"] = True
    loaded = prepared(project)
    next(stages.train(loaded, 0, None))
    file = project.root / "iter.000000" / "00.train" / "data.hdf5"
    first, before = file.read_bytes(), file.stat().st_mtime_ns
    next(stages.train(loaded, 0, None))
    assert file.stat().st_mtime_ns == before
    file.unlink()
    next(stages.train(loaded, 0, None))
    assert file.read_bytes() == first
    coord = project.root / "init" / "cu" / "set.000" / "coord.npy"
    np.save(coord, np.load(coord) + 0.01)
    next(stages.train(loaded, 0, None))
    assert file.read_bytes() != first


def test_carrying_over_can_be_taken_back(project):
    """A training that is decided on after all writes nothing into the folders of the models carried over."""
    write_data([labelled(copper(3))], project.root / "iter.000000/02.fp/data.000/Cu8")
    first, second = (project.root / f"iter.00000{n}" / "00.train" for n in (0, 1))
    for n in (0, 1):
        (first / f"00{n}").mkdir(parents=True)
        (first / f"00{n}" / "frozen_model.pth").write_text("old")
        (first / f"graph.00{n}.pth").symlink_to(f"00{n}/frozen_model.pth")
    previous = {"models": ["graph.000.pth", "graph.001.pth"]}
    project.param["fp_task_min"] = 2
    (second / "000").mkdir(parents=True)
    (second / "000" / "mine").touch()
    with pytest.raises(StopIteration):
        next(stages.train(prepared(project), 1, previous))
    assert (second / "000.bk000" / "mine").exists()
    assert (second / "000").resolve() == first / "000"
    project.param["fp_task_min"] = 1
    next(stages.train(prepared(project), 1, previous))
    assert not (second / "copied").exists()
    assert (second / "000" / "input.json").exists()
    assert not (first / "000" / "input.json").exists()


DP = """#!{python}
import pathlib, sys
here = pathlib.Path.cwd()
with open({log!r}, "a") as log:
    print({name!r}, here.name, *sys.argv[1:], file=log)
if "train" in sys.argv:
    pathlib.Path("lcurve.out").write_text("# step rmse_trn rmse_e_trn rmse_f_trn lr\\n60 0.1 0.01 0.01 1e-4\\n")
    pathlib.Path("model.ckpt-60.pt").write_text(here.name)
    pathlib.Path("checkpoint").write_text("model.ckpt-60.pt")
elif "test" not in sys.argv:
    made = "frozen_model.pt2" if "freeze" in sys.argv else "frozen_model_compressed.pt2"
    pathlib.Path(made).write_text(made + " from " + pathlib.Path("model.ckpt.pt").read_text())
"""


@pytest.mark.parametrize("context", ["LazyLocalContext", "LocalContext"])
def test_compiled_models_are_exported_where_they_are_used(project, context):
    """`dp` is a stand-in: the files and the machines are what is looked at."""
    from tests.conftest import machine

    log = project.root / "calls"
    programs = {}
    for name in ("trains", "exports"):
        programs[name] = project.root / name
        programs[name].write_text(DP.format(python=sys.executable, log=str(log), name=name))
        programs[name].chmod(programs[name].stat().st_mode | stat.S_IXUSR)
    project.param.update(train_backend="pt-expt", dp_compress=True)
    project.machine = machine(context, train=str(programs["trains"]), model_devi="false")
    project.machine["train"]["export_command"] = str(programs["exports"])
    project.save()
    for _ in range(2):  # exploration fails; the second time nothing of the training is done again
        subprocess.run(driver.COMMAND, cwd=project.root, capture_output=True, check=False)
    assert driver.recorded(project.root) == [(0, "train")]
    stage = project.root / "iter.000000" / "00.train"
    for n in ("000", "001"):
        assert (stage / f"graph.{n}.pt2").read_text() == f"frozen_model_compressed.pt2 from {n}"
        assert (stage / n / "frozen_model.pt2").read_text() == f"frozen_model.pt2 from {n}"
    said = sorted(line.replace(" --skip-neighbor-stat", "") for line in log.read_text().splitlines())
    freeze = "--pt-expt freeze -c model.ckpt.pt -o frozen_model.pt2 --lower-kind nlist"
    compress = "--pt-expt compress -i frozen_model.pt2 -o frozen_model_compressed.pt2"
    assert said == sorted(
        [f"trains {n} --pt-expt train input.json" for n in ("000", "001")]
        + [f"exports {n} {what}" for n in ("000", "001") for what in (freeze, compress)]
    )
