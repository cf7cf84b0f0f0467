"""Template mode: what is replaced and what is refused before anything runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activelearn.config.param import ExplorationJob
from activelearn.explore import template
from activelearn.explore.lammps_settings import LammpsSettings
from tests.test_wrong_inputs import problems

LMP = """\
variable TEMP equal V_TEMP
read_data conf.lmp
pair_style deepmd
dump dpgen_dump
fix dpgen_plm
run V_STEPS
"""
PLM = "d1: DISTANCE ATOMS=1,2\nRESTRAINT ARG=d1 AT=V_DIS KAPPA=V_TEMP\n"
WORDS = {"lmp": {"V_TEMP": [300, 400], "V_STEPS": [50]}, "plm": {"V_DIS": [1, 2, 3]}}

names = st.text("VTEX_19ab", min_size=1, max_size=6).filter(lambda name: not name[0].isdigit())


@pytest.fixture
def biased(project):
    """A project whose only job is a template with PLUMED."""
    job = {"sys_idx": [0], "trj_freq": 5, "template": {"lmp": "in.lammps", "plm": "in.plumed"}, "rev_mat": WORDS}
    project.param.update(model_devi_plumed=True, model_devi_jobs=[job])
    (project.root / "in.lammps").write_text(LMP)
    (project.root / "in.plumed").write_text(PLM)
    return project


@given(st.lists(st.tuples(names, st.integers(0, 9)), unique_by=lambda item: item[0], min_size=1, max_size=4))
def test_whole_words_are_replaced_and_no_other(words):
    """Every word is replaced by its own value whatever the others are called (DP-GEN corrupts V_TEMP by V_T)."""
    text = " ".join(f"{name};x1{name}" for name, _ in words)
    expected = " ".join(f"<{value}>;x1{name}" for name, value in words)
    assert template.replace(text, {name: f"<{value}>" for name, value in words}) == expected


def test_words_in_file_names_are_replaced():
    words = {"V_T": 1, "V_TEMP": 300, "T": 2, "@X@": 5}
    text = "${TAU_T} V_T V_TEMP colvar_V_T.out xV_T V_T2 V_T_ T/V_T @X@a"
    assert template.replace(text, words) == "${TAU_T} 1 300 colvar_1.out x1 V_T2 V_T_ 2/1 5a"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("run V_A # V_B", ["V_A"]),
        ("variable V_A equal 3\nrun ${V_A}", []),
        ("print colvar_V_A.dat", ["V_A"]),
        ("V_A: DISTANCE ATOMS=1,2\nPRINT ARG=V_A FILE=V_B", ["V_B"]),
        ("RESTRAINT LABEL=V_A ARG=V_A", []),
        ("V_lower vV", []),
    ],
)
def test_placeholders(text, found):
    assert template.placeholders(text) == found


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("run 10\nrun 5 # run 7", 15),
        ("variable N equal 20\nrun ${N} upto\nrun 30 upto", 30),
        ("run ${N}", None),
        ("label a\nrun 5\njump SELF a", None),
        ('if "${x} > 0" then "run 5"', None),
        ("minimize 0 0 1 1", 0),
    ],
)
def test_steps_of_a_deck(text, steps):
    assert template.steps(text) == steps


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ('if "${restart} > 0" then "read_restart dpgen.restart.*" else "read_data conf.lmp"', "dpgen.restart.*"),
        ('if "${restart} == 1" then "read_restart dpgen.restart.10000" else "read_data x"', "dpgen.restart.10000"),
        ("read_restart dpgen.restart.*", None),
        ("read_restart equilibrated.restart\nprint ${restart}", None),
        ("# ${restart}: read_restart dpgen.restart.*", None),
    ],
)
def test_templates_that_restart(text, files):
    assert template.restarts(text) == files


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("PRINT ARG=d1 FILE=out.dat", ["COLVAR", "out.dat"]),
        ("m: METAD ARG=d1 PACE=10", ["COLVAR", "HILLS"]),
        ("METAD ARG=d1 FILE=h.V_TEMP\nPRINT FILE=V_X # FILE=no", ["COLVAR"]),
        ("METAD ARG=d1 FILE=hills", ["COLVAR", "hills"]),
    ],
)
def test_files_of_the_bias(text, files):
    assert template.plumed_files(text) == files


def test_hybrid_potentials_are_the_users_own():
    text = LMP.replace(
        "pair_style deepmd", "pair_style hybrid/overlay deepmd ../graph.000.pb out_freq 5 out_file x zbl 1 2"
    )
    job = ExplorationJob(sys_idx=[0], trj_freq=5, template={"lmp": "x"})
    settings = LammpsSettings(model_devi_dt=0.001)
    words = template.Words({"V_TEMP": 1, "V_STEPS": 2}, {})
    lines = template.lammps(text, ["../graph.000.pb"], ["Cu"], job, settings, None, words).splitlines()
    assert lines[2:4] == [text.splitlines()[2], "pair_coeff      * * deepmd Cu"]


@pytest.mark.parametrize("electron", ["fparam", "aparam"])
def test_electron_temperature_of_a_template(electron):
    """DP-GEN forgets that of the atoms."""
    text = LMP.replace("read_data", "variable ELE_TEMP equal V_ELE\nread_data")
    job = ExplorationJob(sys_idx=[0], trj_freq=5, template={"lmp": "x"})
    settings = LammpsSettings(model_devi_dt=0.001)
    words = template.Words({"V_TEMP": 1, "V_STEPS": 2, "V_ELE": 5000}, {})
    deck = template.lammps(text, ["../g"], ["Cu"], job, settings, electron, words)
    assert f"deepmd ../g out_freq 5 out_file model_devi.out {electron} ${{ELE_TEMP}}\n" in deck
    assert template.electron_temperature(deck) == 5000


def test_good_templates_have_no_problem_and_a_plan(biased):
    answer = problems(biased)
    assert (answer["errors"], answer["warnings"]) == ([], [])
    assert answer["plan"] == [{"iteration": 0, "systems": [0], "tasks": 12, "frames": 12 * 11, "labels": 4}]


def test_frames_of_a_template_may_be_unknown(biased):
    (biased.root / "in.lammps").write_text(LMP.replace("V_STEPS", "${V_STEPS}"))
    assert problems(biased)["plan"][0]["frames"] is None


def _file(name, old, new):
    def change(project):
        file = project.root / name
        file.write_text(file.read_text().replace(old, new))

    return change


def _job(**changes):
    return lambda project: project.param["model_devi_jobs"][0].update(changes)


def _param(**changes):
    return lambda project: project.param.update(changes)


JOB = "model_devi_jobs[0]"
CASES = {
    # what is done to a good project: (JSON path of the only error, words of its message or hint)
    "no such template": (_job(template={"lmp": "x", "plm": "in.plumed"}), f"{JOB}.template.lmp", "cannot be read"),
    "no PLUMED template": (_job(template={"lmp": "in.lammps"}), f"{JOB}.template.plm", "missing"),
    "no PLUMED path": (_param(model_devi_plumed_path=True), f"{JOB}.template.plm_path", "PDB"),
    "no pair_style": (_file("in.lammps", "pair_style", "#"), f"{JOB}.template.lmp", "pair_style deepmd"),
    "no dump": (_file("in.lammps", "dump dpgen_dump", ""), f"{JOB}.template.lmp", "dump dpgen_dump"),
    "two dumps": (_file("in.lammps", "run", "dump dpgen_dump\nrun"), f"{JOB}.template.lmp", "2 lines"),
    "no fix for PLUMED": (_file("in.lammps", "fix dpgen_plm", ""), f"{JOB}.template.lmp", "fix dpgen_plm"),
    "no structure": (_file("in.lammps", "read_data", "#"), f"{JOB}.template.lmp", "read_data conf.lmp"),
    "word left in the LAMMPS file": (_file("in.lammps", "run", "timestep V_DT\nrun"), f"{JOB}.rev_mat.lmp", "V_DT"),
    "word left in the PLUMED file": (_file("in.plumed", "V_TEMP", "V_KAPPA"), f"{JOB}.rev_mat.plm", "V_KAPPA"),
    "word without values": (_job(rev_mat={**WORDS, "lmp": {"V_TEMP": []}}), f"{JOB}.rev_mat.lmp", "at least 1"),
    "deviations elsewhere": (
        _file("in.lammps", "pair_style deepmd", "pair_style deepmd a b out_freq 5 out_file md.out"),
        f"{JOB}.template.lmp",
        "model_devi.out",
    ),
    "deviations without frames": (
        _file("in.lammps", "pair_style deepmd", "pair_style deepmd a b out_freq 1 out_file model_devi.out"),
        f"{JOB}.template.lmp",
        "every 1 steps",
    ),
    "relative to forces that are not there": (
        _param(model_devi_f_avg_relative=True),
        f"{JOB}.template.lmp",
        "without forces",
    ),
    "template for beads": (_job(nbeads=4), f"{JOB}.nbeads", "template"),
    "relative without a level": (_param(use_relative_v=True), "epsilon_v", "use_relative_v"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(biased, case):
    change, path, words = CASES[case]
    change(biased)
    answer = problems(biased)
    assert [error["path"] for error in answer["errors"]] == [path], answer["errors"]
    assert words in answer["errors"][0]["message"] + answer["errors"][0]["hint"]


def test_templates_need_the_electron_temperature(biased):
    biased.param["use_ele_temp"] = 1
    told = [error["message"] for error in problems(biased)["errors"] if error["path"] == f"{JOB}.template.lmp"]
    assert len(told) == 1
    assert "ELE_TEMP" in told[0]


WARNINGS = {
    "periodic boundaries": (_param(model_devi_nopbc=True), f"{JOB}.template.lmp"),
    "word nowhere": (_job(rev_mat={**WORDS, "lmp": {**WORDS["lmp"], "V_X": [1]}}), f"{JOB}.rev_mat.lmp.V_X"),
    "system that is not explored": (_job(sys_rev_mat={"3": {}}), f"{JOB}.sys_rev_mat.3"),
    "word with two lists of values": (_job(sys_rev_mat={"0": {"lmp": {"V_TEMP": [1]}}}), f"{JOB}.sys_rev_mat.0"),
    "no template": (
        lambda p: p.param.update(
            model_devi_jobs=[{"sys_idx": [0], "temps": [3], "trj_freq": 5, "nsteps": 5, "ensemble": "nve"}]
        ),
        JOB,
    ),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_one_warning(biased, case):
    change, path = WARNINGS[case]
    change(biased)
    answer = problems(biased)
    assert answer["ok"], answer["errors"]
    assert [warning["path"] for warning in answer["warnings"]] == [path]


@pytest.mark.parametrize("key", ["temps", "ensemble", "nsteps"])
def test_a_job_without_template_needs_conditions(project, key):
    del project.param["model_devi_jobs"][0][key]
    answer = problems(project)
    assert [error["path"] for error in answer["errors"]] == [f"{JOB}.{key}"]
    assert "template" in answer["errors"][0]["hint"]


def test_electron_temperatures_need_the_switch(project):
    project.param["model_devi_jobs"][0]["temps"] = [[300, 5000]]
    assert [error["path"] for error in problems(project)["errors"]] == [f"{JOB}.temps"]


@pytest.mark.parametrize("ensemble", ["npt-t", "npt-tri"])
def test_beads_have_no_triclinic_barostat(project, ensemble):
    project.param["model_devi_jobs"][0].update(nbeads=4, ensemble=ensemble, press=[1])
    assert [error["path"] for error in problems(project)["errors"]] == [f"{JOB}.ensemble"]
