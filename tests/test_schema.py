"""`al schema`: what an editor is told about param.json."""

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from activelearn.cli import main
from tests.conftest import copper_param

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def schema():
    result = CliRunner().invoke(main, ["schema"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def errors(schema, param):
    validator = jsonschema.Draft202012Validator(schema)
    return [(error.json_path, error.message) for error in validator.iter_errors(param)]


@pytest.mark.parametrize(
    "file", [*ROOT.glob("examples/*/param.json"), ROOT / "param.json.example"], ids=lambda file: str(file.parent.name)
)
def test_what_we_ship_is_valid(schema, file):
    assert errors(schema, json.loads(file.read_text())) == []


def without(key):
    return {name: value for name, value in copper_param().items() if name != key}


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ({**copper_param(), "fp_task_maxx": 3}, "fp_task_maxx"),
        ({**copper_param(), "fp_style": "vsap"}, "vsap"),
        (without("type_map"), "'type_map' is a required property"),
        (without("user_fp_params"), "'user_fp_params' is a required property"),
        ({**copper_param(), "fp_task_max": -1}, "-1"),
        ({**copper_param(), "_activelearn": {"sede": 1}}, "sede"),
        ({**copper_param(), "model_devi_jobs": [{**copper_param()["model_devi_jobs"][0], "nstep": 3}]}, "nstep"),
    ],
)
def test_mistakes_are_seen(schema, param, words):
    (error,) = errors(schema, param)
    assert words in error[1]


def test_comments_are_allowed_everywhere(schema):
    param = {**copper_param(), "_comment": 1}
    param["model_devi_jobs"] = [{**param["model_devi_jobs"][0], "_idx": "00"}]
    assert errors(schema, param) == []


def keys(schema):
    yield from schema["properties"].items()
    for definition in schema["$defs"].values():
        yield from definition.get("properties", {}).items()


def test_every_key_is_described_and_has_a_default_or_is_required(schema):
    needed = set(schema["required"])
    for condition in schema["allOf"]:
        needed |= set(condition["then"].get("required", []))
    for definition in schema["$defs"].values():
        needed |= set(definition.get("required", []))
    for key, value in keys(schema):
        assert value.get("description"), key
        if "anyOf" not in value and not value.get("deprecated"):
            assert "default" in value or key in needed, key


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("model_devi_dt", "ps"),
        ("temps", "K"),
        ("press", "bar"),
        ("model_devi_f_trust_lo", "eV/A"),
        ("model_devi_v_trust_hi", "eV"),
        ("mass_map", "u"),
        ("model_devi_perc_candi_f", "percent"),
    ],
)
def test_units(schema, key, unit):
    assert dict(keys(schema))[key]["unit"] == unit
