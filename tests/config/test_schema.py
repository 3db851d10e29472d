"""The JSON Schema accepts what the loader accepts and refuses what an editor can tell."""

import json

import jsonschema
import pytest

from isoflop.config.load import schema_text, study_schema

VALIDATOR = jsonschema.Draft202012Validator(study_schema())
STUDY = {"name": "s", "budgets_flops": [1e12], "variants": [{"name": "Baseline"}]}


def test_schema_is_itself_valid_and_plain_ascii_json():
    jsonschema.Draft202012Validator.check_schema(study_schema())
    assert json.loads(schema_text()) == study_schema()
    assert schema_text().isascii()


@pytest.mark.parametrize(
    "changes",
    [
        {"budgets_flop": [1e12]},
        {"budgets_flops": None},
        {"scaling": {"models": []}},
        {"variants": [{"name": "a", "depth": {"capacity": 0.5}}]},
        {"variants": [{"name": "a", "depth": {"kind": "top_k", "capacity": 1.5}}]},
        {"variants": [{"name": "a", "depth": {"kind": "top_k", "capacty": 0.5}}]},
        {"convention": "casual"},
        {"data": {"validation_fraction": 0.5}},
    ],
)
def test_what_an_editor_can_tell_is_refused(changes):
    assert not VALIDATOR.is_valid({**STUDY, **changes})


def test_fields_carry_their_descriptions():
    data = study_schema()["$defs"]["DataConfig"]["properties"]
    assert "tokens a model sees at once" in data["sequence_length"]["description"]
