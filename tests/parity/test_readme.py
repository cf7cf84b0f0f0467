"""The README's table of keys: it has every key of DP-GEN, and what it calls supported is."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from activelearn.cli import main

README = Path(__file__).parents[2] / "README.md"

KEYS = """
from dpgen.generator.arginfo import run_jdata_arginfo, run_mdata_arginfo
def names(argument):
    for inner in argument.sub_fields.values():
        yield inner.name
        yield from inner.alias
        yield from names(inner)
    for variant in argument.sub_variants.values():
        yield variant.flag_name
        for choice in variant.choice_dict.values():
            yield from names(choice)
machine = run_mdata_arginfo()
result = [
    sorted(set(names(run_jdata_arginfo()))),
    sorted({*machine.sub_fields, *(key for section in machine.sub_fields.values() for key in section.sub_fields)}),
]
"""


@pytest.fixture(scope="module")
def rows():
    """The table: words in backticks by status."""
    text = README.read_text()
    table = text[text.index("#### Every key of DP-GEN") : text.index("#### Where activelearn differs")]
    found = {}
    for line in table.splitlines():
        if match := re.fullmatch(r"\| (.*) \| (\w.*) \|", line):
            words = {word for quoted in re.findall(r"`([^`]+)`", match[1]) for word in quoted.split()}
            found.setdefault(match[2].partition(":")[0].partition(" ")[0], set()).update(words)
    return found


@pytest.fixture(scope="module")
def keys(dpgen, tmp_path_factory):
    return dpgen(tmp_path_factory.mktemp("keys"), KEYS)


def test_every_key_of_dpgen_is_in_the_table(rows, keys):
    known = set().union(*rows.values())
    assert sorted({*keys[0], *keys[1]} - known) == []
    assert len(keys[0]) > 150


def described(value):
    """Every property name of a schema, at any depth."""
    if isinstance(value, dict):
        yield from value.get("properties", {})
        for inner in value.values():
            yield from described(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from described(inner)


def test_what_is_called_supported_is(rows, keys):
    ours = set(described(json.loads(CliRunner().invoke(main, ["schema"]).stdout)))
    asked = rows["supported"] & set(keys[0])
    assert asked - ours == set()
    assert len(asked) > 80
    refused = rows["refused"] & set(keys[0])
    shared = {"cutoff", "fp_style", "model_devi_engine"}  # of lmp_d3; and the keys that choose what is refused
    assert refused & ours <= shared
