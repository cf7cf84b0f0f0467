"""Each wrong input gives one clear error that names file, JSON path and remedy, before anything is computed."""

import copy
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from activelearn.cli import main
from tests.systems import alloy

VASP = {"fp_style": "vasp", "fp_pp_path": "potcars", "fp_pp_files": ["POTCAR.Cu"], "fp_incar": "INCAR"}


def check(project, *options):
    project.save()
    arguments = ["check", str(project.root / "param.json"), str(project.root / "machine.json"), "-C", str(project.root)]
    return CliRunner().invoke(main, [*arguments, *options])


def problems(project):
    result = check(project, "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == (0 if answer["ok"] else 2)
    return answer


def vasp(project, incar="KSPACING = 0.5\nKGAMMA = T\n", element="Cu"):
    del project.param["user_fp_params"]
    project.param.update(copy.deepcopy(VASP))
    (project.root / "INCAR").write_text(incar)
    (project.root / "potcars").mkdir()
    (project.root / "potcars" / "POTCAR.Cu").write_text(f"  TITEL  = PAW_PBE {element} 05Jan2001\n")


def pwscf(project):
    project.param.update(
        fp_style="pwscf",
        fp_pp_path="pseudo",
        fp_pp_files=["Cu.UPF"],
        user_fp_params={"control": {}, "system": {"ecutwfc": 20}, "electrons": {}, "kspacing": 0.5},
    )
    (project.root / "pseudo").mkdir()
    (project.root / "pseudo" / "Cu.UPF").write_text('<PP_HEADER element="Cu" />')


def test_good_input_has_no_problem_and_a_plan(project):
    answer = problems(project)
    assert answer == {"ok": True, "errors": [], "warnings": [], "plan": answer["plan"]}
    assert answer["plan"] == [{"iteration": 0, "systems": [0], "tasks": 2, "frames": 22, "labels": 4}]
    shown = check(project)
    assert "4 frames in 1 systems" in shown.stdout
    assert shown.exit_code == 0


def _set(path, value):
    def change(project):
        *parents, last = path
        place = project.param
        for key in parents:
            place = place[key]
        place[last] = value

    return change


def _drop(key):
    return lambda project: project.param.pop(key)


def _machine(path, value):
    def change(project):
        *parents, last = path
        place = project.machine
        for key in parents:
            place = place[key]
        place[last] = value

    return change


def _drop_machine(section):
    return lambda project: project.machine.pop(section)


def _alloy_start(project):
    alloy().write(project.root / "structures" / "00" / "POSCAR", format="vasp", sort=True)


def _empty_set(project):
    for file in (project.root / "init" / "cu" / "set.000").iterdir():
        np.save(file, np.load(file)[:0])


def _nan_label(project):
    file = project.root / "init" / "cu" / "set.000" / "force.npy"
    values = np.load(file)
    values[1, 2] = np.nan
    np.save(file, values)


def _garbage_poscar(project):
    (project.root / "structures" / "01" / "POSCAR").write_text("not a structure\n")


def _heldout_is_trained_on(project):
    project.param["_activelearn"] = {"validation_data_sys": ["cu"]}


def _potcar_missing(project):
    vasp(project)
    (project.root / "potcars" / "POTCAR.Cu").unlink()


def _two_potcars(project):
    vasp(project)
    project.param["fp_pp_files"] *= 2


def _incar_missing(project):
    vasp(project)
    (project.root / "INCAR").unlink()


def _siesta(project):
    project.param["fp_style"] = "siesta"
    del project.param["user_fp_params"]


def _style(style, *files, **given):
    """A good project of another labeler, changed by `given`; `files` are written (name, text)."""

    def change(project):
        del project.param["user_fp_params"]
        project.param.update(fp_style=style, **{key: value for key, value in given.items() if value is not None})
        for name, text in files:
            (project.root / name).parent.mkdir(exist_ok=True)
            (project.root / name).write_text(text)

    return change


TEMPLATE = "&CELL\n ABC 9 9 9\n&END\n&COORD\n @include coord.xyz\n&END\n&PRINT\n &FORCES ON\n &END\n&END\n"
CP2K = {"FORCE_EVAL": {"DFT": {"UKS": "T"}, "SUBSYS": {"KIND": {"_": ["Cu"], "POTENTIAL": ["P"], "BASIS_SET": ["B"]}}}}


def _cp2k(**sections):
    """user_fp_params of CP2K with parts of FORCE_EVAL replaced."""
    return _style("cp2k", user_fp_params={"FORCE_EVAL": {**CP2K["FORCE_EVAL"], **sections}})


def _abacus(*files, drop=(), **given):
    good = {"fp_pp_path": "pp", "fp_pp_files": ["Cu.upf"], "user_fp_params": {"ecutwfc": 50, "kspacing": 0.2}}
    good = {key: value for key, value in {**good, **given}.items() if key not in drop}
    return _style("abacus", ("pp/Cu.upf", '<PP_HEADER element="Cu">'), *files, **good)


def _gaussian(**given):
    return _style("gaussian", fp_params={"keywords": "force b3lyp/6-31g**", "nproc": 4, **given})


def _custom(**given):
    good = {"input_fmt": "vasp/poscar", "input_fn": "a", "output_fmt": "vasp/outcar", "output_fn": "b"}
    return _style("custom", fp_params={**good, **given})


def _short_vasp(**given):
    short = {"ecut": 400, "ediff": 1e-5, "npar": 2, "kpar": 1, "kspacing": 0.3}
    files = ("potcars/POTCAR.Cu", "  TITEL  = PAW_PBE Cu 05Jan2001\n")
    good = {key: value for key, value in VASP.items() if key not in ("fp_style", "fp_incar")}
    return _style("vasp", files, **good, **{"fp_params": short, **given})


def _hot(change):
    """The same with an electron temperature for each frame of the initial data."""

    def both(project):
        change(project)
        for part in (project.root / "init").rglob("set.*"):
            np.save(part / "fparam.npy", np.full((len(np.load(part / "energy.npy")), 1), 1000.0))

    return both


LABELERS = {
    "cp2k without input": (_style("cp2k"), "user_fp_params", "external_input_path"),
    "cp2k input is a list": (_style("cp2k", user_fp_params=[]), "user_fp_params", "dict"),
    "cp2k without the element": (
        _cp2k(SUBSYS={"KIND": {"_": ["Al"], "POTENTIAL": ["P"], "BASIS_SET": ["B"]}}),
        "user_fp_params.FORCE_EVAL.SUBSYS.KIND",
        "has no Cu",
    ),
    "cp2k lists of different lengths": (
        _cp2k(SUBSYS={"KIND": {"_": ["Cu"], "POTENTIAL": ["P", "Q"], "BASIS_SET": ["B"]}}),
        "user_fp_params.FORCE_EVAL.SUBSYS.KIND",
        "different lengths",
    ),
    "cp2k relaxes": (
        _style("cp2k", user_fp_params={**CP2K, "GLOBAL": {"RUN_TYPE": "GEO_OPT"}}),
        "user_fp_params.GLOBAL.RUN_TYPE",
        "ENERGY_FORCE",
    ),
    "cp2k template missing": (
        _style("cp2k", external_input_path="t.inp"),
        "external_input_path",
        "does not exist",
    ),
    "cp2k template without cell": (
        _style("cp2k", ("t.inp", TEMPLATE.replace("ABC", "A")), external_input_path="t.inp"),
        "external_input_path",
        "ABC",
    ),
    "cp2k template without coordinates": (
        _style("cp2k", ("t.inp", TEMPLATE.replace("@include", "!")), external_input_path="t.inp"),
        "external_input_path",
        "@include coord.xyz",
    ),
    "cp2k template without forces": (
        _style("cp2k", ("t.inp", TEMPLATE.replace("&FORCES", "&MOMENTS")), external_input_path="t.inp"),
        "external_input_path",
        "forces",
    ),
    "cp2k file missing": (
        _style("cp2k", user_fp_params=CP2K, fp_pp_path="pp", fp_pp_files=["BASIS"]),
        "fp_pp_files[0]",
        "does not exist",
    ),
    "abacus without INPUT": (_abacus(drop=["user_fp_params"]), "user_fp_params", "fp_incar"),
    "abacus INPUT missing": (_abacus(drop=["user_fp_params"], fp_incar="I"), "fp_incar", "does not exist"),
    "abacus pseudopotential missing": (_abacus(fp_pp_files=["x.upf"]), "fp_pp_files[0]", "does not exist"),
    "abacus pseudopotential of another element": (
        _abacus(("pp/Al.upf", '<PP_HEADER element="Al">'), fp_pp_files=["Al.upf"]),
        "fp_pp_files[0]",
        "is for Al",
    ),
    "abacus without orbitals": (
        _abacus(user_fp_params={"basis_type": "lcao", "kspacing": 0.2}),
        "fp_orb_files",
        "required",
    ),
    "abacus orbital missing": (
        _abacus(user_fp_params={"basis_type": "lcao", "kspacing": 0.2}, fp_orb_files=["x.orb"]),
        "fp_orb_files[0]",
        "does not exist",
    ),
    "abacus without descriptor": (
        _abacus(user_fp_params={"deepks_scf": 1, "kspacing": 0.2}),
        "fp_dpks_descriptor",
        "required",
    ),
    "abacus DeePKS model missing": (
        _abacus(user_fp_params={"deepks_model": "m.ptg", "kspacing": 0.2}),
        "user_fp_params.deepks_model",
        "fp_pp_path",
    ),
    "abacus without k points": (_abacus(user_fp_params={"gamma_only": 0}), "k_points", "kspacing"),
    "abacus KPT missing": (_abacus(user_fp_params={"nspin": 2}, fp_kpt_file="KPT"), "fp_kpt_file", "does not exist"),
    "abacus k points too short": (_abacus(k_points=[1, 1, 1]), "k_points", "6"),
    "abacus parameter is text": (
        _abacus(user_fp_params={"ecutwfc": "high", "kspacing": 0.2}),
        "user_fp_params.ecutwfc",
        "high",
    ),
    "abacus basis unknown": (
        _abacus(user_fp_params={"basis_type": "gto", "kspacing": 0.2}),
        "user_fp_params.basis_type",
        "lcao",
    ),
    "abacus without forces": (
        _abacus(user_fp_params={"cal_force": 0, "kspacing": 0.2}),
        "user_fp_params.cal_force",
        "write 1",
    ),
    "gaussian without parameters": (_style("gaussian"), "fp_params", "keywords"),
    "gaussian without forces": (_gaussian(keywords="opt hf/3-21g"), "fp_params.keywords", "force"),
    "gaussian processors are text": (_gaussian(nproc="all"), "fp_params.nproc", "all"),
    "gaussian multiplicity is a word": (_gaussian(multiplicity="odd"), "fp_params.multiplicity", "odd"),
    "gaussian multiplicity cannot be": (_gaussian(multiplicity=2), "fp_params.multiplicity", "auto"),
    "gaussian key misspelt": (_gaussian(keyword="x"), "fp_params.keyword", "'keywords'"),
    "custom without parameters": (_style("custom"), "fp_params", "required"),
    "custom format unknown": (_custom(input_fmt="vasp/poscarr"), "fp_params.input_fmt", "vasp/poscar"),
    "custom format without labels": (_custom(output_fmt="lammps/lmp"), "fp_params.output_fmt", "read labels"),
    "custom format cannot be written": (_custom(input_fmt="vasp/outcar"), "fp_params.input_fmt", "cannot write"),
    "custom file in a folder": (_custom(output_fn="a/b"), "fp_params.output_fn", "a/b"),
    "vasp without INCAR": (_short_vasp(fp_params=None), "fp_incar", "required"),
    "vasp tags without KGAMMA": (
        _short_vasp(fp_params=None, user_fp_params={"KSPACING": 0.2}),
        "user_fp_params",
        "KGAMMA",
    ),
    "vasp short form without cutoff": (
        _short_vasp(fp_params={"ediff": 1, "npar": 1, "kpar": 1, "kspacing": 1}),
        "fp_params.ecut",
        "required",
    ),
    "vasp smearing unknown": (
        _short_vasp(fp_params={"ecut": 1, "ediff": 1, "npar": 1, "kpar": 1, "kspacing": 1, "smearing": "x"}),
        "fp_params.smearing",
        "gauss",
    ),
    "vasp kspacing for two directions": (_short_vasp(fp_aniso_kspacing=[0.2, 0.3]), "fp_aniso_kspacing", "3"),
    "vasp bands from nowhere": (
        _hot(_short_vasp(use_ele_temp=1, fp_nbands_esti_data="bands")),
        "fp_nbands_esti_data",
        "bands",
    ),
}


JOB = ("model_devi_jobs", 0)
TRAINING = "default_training_param"
RES = ("train", "resources")

CASES = {
    # what is done to a good project: (JSON path of the only error, words of its message or hint)
    "type_map missing": (_drop("type_map"), "type_map", "required"),
    "type_map empty": (_set(["type_map"], []), "type_map", "at least 1"),
    "element twice": (_set(["type_map"], ["Cu", "Cu"]), "type_map", "twice"),
    "no such element": (_set(["type_map"], ["Cu", "Xx"]), "type_map", "chemical symbols"),
    "masses and elements differ": (_set(["mass_map"], [63.5, 1.0]), "mass_map", "one mass per element"),
    "mass is text": (_set(["mass_map"], "heavy"), "mass_map", "heavy"),
    "structures have another element": (_alloy_start, "sys_configs[0][0]", "Al"),
    "glob without match": (_set(["sys_configs"], [["nowhere/*"]]), "sys_configs[0][0]", "no file matches"),
    "sys_configs is flat": (_set(["sys_configs"], ["structures/0*"]), "sys_configs[0]", "list"),
    "structure is garbage": (_garbage_poscar, "sys_configs[0][0]", "sys_format"),
    "unknown structure format": (_set(["sys_format"], "vasp/poscarr"), "sys_configs[0][0]", "vasp/poscarr"),
    "initial data missing": (_set(["init_data_sys"], ["cuu"]), "init_data_sys[0]", "not a folder"),
    "initial data folder is empty": (_set(["init_data_sys"], ["../structures"]), "init_data_sys[0]", "type.raw"),
    "initial data without frames": (_empty_set, "init_data_sys[0]", "no frames"),
    "NaN in the labels": (_nan_label, "init_data_sys[0]", "force.npy has values that are not finite"),
    "held-out data are trained on": (_heldout_is_trained_on, "_activelearn.validation_data_sys", "trained on"),
    "held-out data missing": (
        _set(["_activelearn"], {"validation_data_sys": ["x"]}),
        "_activelearn.validation_data_sys[0]",
        "not a folder",
    ),
    "unknown key of ours": (_set(["_activelearn"], {"sead": 1}), "_activelearn.sead", "'seed'"),
    "unknown key": (_set(["fp_task_maks"], 3), "fp_task_maks", "'fp_task_max'"),
    "DP-GEN key we lack": (_set(["gromacs_settings"], {"a": 1}), "gromacs_settings", "does not run"),
    "DP-GEN job key we lack": (_set([*JOB, "lambdas"], [1.0]), "model_devi_jobs[0].lambdas", None),
    "wrong type": (_set(["fp_task_max"], "many"), "fp_task_max", "many"),
    "list instead of number in a job": (_set([*JOB, "nsteps"], [5, 6]), "model_devi_jobs[0].nsteps", "integer"),
    "misspelt job key": (_set([*JOB, "tempss"], [5]), "model_devi_jobs[0].tempss", "'temps'"),
    "no such ensemble": (_set([*JOB, "ensemble"], "npv"), "model_devi_jobs[0].ensemble", "'nvt'"),
    "npt without pressure": (_set([*JOB, "ensemble"], "npt"), "model_devi_jobs[0].press", "pressures"),
    "no such system": (_set([*JOB, "sys_idx"], [1]), "model_devi_jobs[0].sys_idx", "there is no system 1"),
    "system twice": (_set([*JOB, "sys_idx"], [0, 0]), "model_devi_jobs[0].sys_idx", "twice"),
    "no frame in a trajectory": (_set([*JOB, "trj_freq"], 500), "model_devi_jobs[0].nsteps", "trj_freq"),
    "temperature is negative": (_set([*JOB, "temps"], [-3]), "model_devi_jobs[0].temps[0]", "greater than 0"),
    "trust levels swapped": (_set(["model_devi_f_trust_lo"], 200.0), "model_devi_f_trust_lo", "not below"),
    "trust level of a system missing": (_set(["model_devi_f_trust_lo"], {}), "model_devi_f_trust_lo", '"0"'),
    "too many trust levels": (_set(["model_devi_f_trust_hi"], [1, 2]), "model_devi_f_trust_hi", "2 levels"),
    "trust level of no system": (_set(["model_devi_v_trust_lo"], {"7": 1}), "model_devi_v_trust_lo.7", "'7'"),
    "batch size is a word": (_set(["sys_batch_size"], ["big"]), "sys_batch_size[0]", "big"),
    "one model": (_set(["numb_models"], 1), "numb_models", "greater than or equal to 2"),
    "unknown backend": (_set(["train_backend"], "torch"), "train_backend", "pytorch"),
    "training without steps": (
        _set([TRAINING, "training"], {"training_data": {}}),
        f"{TRAINING}.training.numb_steps",
        None,
    ),
    "training without model": (_set([TRAINING, "model"], None), f"{TRAINING}.model", "missing"),
    "other type_map in the training": (
        _set([TRAINING, "model", "type_map"], ["Al"]),
        f"{TRAINING}.model.type_map",
        "make them equal",
    ),
    "sel of another number of elements": (
        _set([TRAINING, "model", "descriptor", "sel"], [10, 10]),
        f"{TRAINING}.model.descriptor.sel",
        "2 numbers for 1",
    ),
    "npt without a periodic cell": (
        lambda p: (
            p.param.update(model_devi_nopbc=True),
            p.param["model_devi_jobs"][0].update(ensemble="npt", press=[1]),
        ),
        "model_devi_jobs[0].ensemble",
        "model_devi_nopbc",
    ),
    "unknown labeler": (_set(["fp_style"], "vsap"), "fp_style", "'vasp'"),
    "labeler of DP-GEN we do not run": (_siesta, "fp_style", "siesta"),
    "no such calculator": (_set(["user_fp_params", "calculator"], "emmt"), "user_fp_params.calculator", "emmt"),
    "ratio above 1": (_set(["ratio_failed"], 5), "ratio_failed", "less than or equal to 1"),
    "POTCAR missing": (_potcar_missing, "fp_pp_files[0]", "does not exist"),
    "POTCAR of another element": (lambda p: vasp(p, element="Al"), "fp_pp_files[0]", "is for Al"),
    "POTCARs and elements differ": (_two_potcars, "fp_pp_files", "2 files for 1"),
    "INCAR missing": (_incar_missing, "fp_incar", "does not exist"),
    "INCAR without KSPACING": (lambda p: vasp(p, "KGAMMA = T"), "fp_incar", "KSPACING"),
    "INCAR without KGAMMA": (lambda p: vasp(p, "KSPACING = 0.2"), "fp_incar", "KGAMMA"),
    "INCAR with ionic steps": (lambda p: vasp(p, "KSPACING=.2; KGAMMA=T; NSW=100"), "fp_incar", "NSW = 0"),
    "pseudopotential missing": (
        lambda p: (pwscf(p), (p.root / "pseudo" / "Cu.UPF").unlink()),
        "fp_pp_files[0]",
        "UPF",
    ),
    "pw.x without cutoff": (
        lambda p: (pwscf(p), p.param["user_fp_params"].update(system={})),
        "user_fp_params.system.ecutwfc",
        "missing",
    ),
    "pw.x without kspacing": (
        lambda p: (pwscf(p), p.param["user_fp_params"].pop("kspacing")),
        "user_fp_params.kspacing",
        "positive",
    ),
    **LABELERS,
    "machine section missing": (_drop_machine("fp"), "fp", "missing"),
    "machine without command": (_machine(["train", "command"], ""), "train.command", "command"),
    "no such batch system": (_machine(["fp", "machine", "batch_type"], "Slrum"), "fp.machine.batch_type", "Slurm"),
    "no such context": (_machine(["fp", "machine", "context_type"], "Here"), "fp.machine.context_type", "SSHContext"),
    "LocalContext without remote_root": (
        _machine(["fp", "machine"], {"batch_type": "Shell", "context_type": "LocalContext"}),
        "fp.machine.remote_root",
        "missing",
    ),
    "misspelt machine key": (_machine(["trian"], {"command": "dp"}), "trian", "'train'"),
    "misspelt section key": (_machine(["train", "comand"], "dp"), "train.comand", "'command'"),
    "group_size is text": (_machine([*RES, "group_size"], "five"), "train.resources.group_size", "five"),
    "forward file missing": (
        _machine(["fp", "user_forward_files"], ["vdw_kernel.bindat"]),
        "fp.user_forward_files[0]",
        "does not exist",
    ),
    "old api_version": (_machine(["api_version"], "0.9"), "api_version", "too old"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(project, case):
    change, path, words = CASES[case]
    change(project)
    answer = problems(project)
    assert [error["path"] for error in answer["errors"]] == [path], answer["errors"]
    error = answer["errors"][0]
    assert os.path.basename(error["file"]) in ("param.json", "machine.json")
    if words:
        assert words in f"{error['message']} {error['hint']}"


@pytest.mark.parametrize(
    "good",
    {
        "cp2k": _cp2k(),
        "template": _style("cp2k", ("t.inp", TEMPLATE), external_input_path="t.inp"),
        "abacus": _abacus(),
        "abacus file": _abacus(("I", "ecutwfc 50\nkspacing 0.1 # 1/bohr\n"), drop=["user_fp_params"], fp_incar="I"),
        "gaussian": _gaussian(),
        "custom": _custom(),
        "vasp short": _short_vasp(),
        "vasp user": _short_vasp(fp_params=None, user_fp_params={"KSPACING": 0.2, "KGAMMA": True}),
    }.items(),
    ids=lambda item: item[0],
)
def test_good_labelers_have_no_problem(project, good):
    good[1](project)
    answer = problems(project)
    assert answer["ok"], answer["errors"]
    assert answer["warnings"] == []


def test_all_problems_come_at_once(project):
    for case in ("unknown key", "no such ensemble", "old api_version", "wrong type", "trust level of no system"):
        CASES[case][0](project)
    paths = {error["path"] for error in problems(project)["errors"]}
    assert {"fp_task_maks", "model_devi_jobs[0].ensemble", "api_version", "fp_task_max"} <= paths


def test_run_refuses_before_anything_is_written(project):
    project.param["sys_configs"] = [["nowhere/*"]]
    project.save()
    before = sorted(project.root.rglob("*"))
    arguments = ["run", str(project.root / "param.json"), str(project.root / "machine.json"), "-C", str(project.root)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "no file matches" in result.stderr
    assert sorted(project.root.rglob("*")) == before


def test_small_sel_is_a_warning_with_the_number_to_write(project):
    project.param["default_training_param"]["model"]["descriptor"]["sel"] = [10]
    answer = problems(project)
    assert answer["ok"]
    (warning,) = answer["warnings"]
    assert warning["path"] == "default_training_param.model.descriptor.sel"
    advised = json.loads(warning["hint"].split(": ")[1])
    project.param["default_training_param"]["model"]["descriptor"]["sel"] = advised
    assert problems(project)["warnings"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1"),
        ("[]", "one object"),
        ('{"fp_style": "ase", "fp_style": "vasp"}', "twice"),
        (None, "cannot be read"),
    ],
)
def test_unreadable_param(project, text, words):
    file = project.root / "param.json"
    file.unlink() if text is None else file.write_text(text)
    arguments = ["check", str(file), str(project.root / "machine.json"), "-C", str(project.root)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert str(file) in result.stderr
    assert words in result.stderr


def test_comments_and_yaml(project):
    import yaml

    project.param["_comment"] = "x"
    project.param["model_devi_jobs"][0]["_idx"] = "00"
    project.save()
    (project.root / "param.yaml").write_text(yaml.safe_dump(project.param))
    arguments = ["check", str(project.root / "param.yaml"), str(project.root / "machine.json"), "-C", str(project.root)]
    assert CliRunner().invoke(main, arguments).exit_code == 0


def test_machine_section_may_be_a_list(project):
    project.machine["train"] = [project.machine["train"]]
    assert problems(project) == {"ok": True, "errors": [], "warnings": [], "plan": problems(project)["plan"]}
