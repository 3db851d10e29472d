"""`isoflop init`: a study to start from that is right as it stands and with every default shown."""

import json
import re
import tomllib

import jsonschema
import pytest

from isoflop.cli import main
from isoflop.cli.study import SCHEMA_NAME, starter_text
from isoflop.config import Study
from isoflop.config.load import load_study, validated


def study_of(text):
    return validated(Study, tomllib.loads(text), "starter.toml")


def test_starter_is_a_study_with_a_baseline_and_a_challenger():
    study = study_of(starter_text())
    assert study.baseline_variant.depth.kind == "every_token"
    assert study.challenger_variant is not None


def test_defaults_shown_in_comments_are_the_defaults():
    shown, replaced = re.subn(r"(?m)^# (?=\w+ = )", "", starter_text())
    assert replaced > 15
    assert study_of(shown) == study_of(starter_text())


def test_examples_shown_in_comments_are_accepted():
    shown, replaced = re.subn(r"(?m)^#   (?=\w+ = )", "", starter_text())
    assert replaced == 7
    study = study_of(shown)
    assert study.grid.centre_parameters == 280_000
    assert study.baseline == "Baseline"
    assert (study.until_resolved, study.seeds_at_most) == (0.005, 12)


def test_init_writes_a_study_and_the_schema_it_points_at(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "wrote study.toml" in capsys.readouterr().out
    first_line = (tmp_path / "study.toml").read_text().splitlines()[0]
    assert first_line == f"#:schema ./{SCHEMA_NAME}"
    schema = json.loads((tmp_path / SCHEMA_NAME).read_text())
    jsonschema.validate(tomllib.loads((tmp_path / "study.toml").read_text()), schema)
    assert load_study(tmp_path / "study.toml") == study_of(starter_text())


def test_init_overwrites_nothing(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text("precious")
    assert main(["init", str(path)]) == 2
    assert path.read_text() == "precious"
    assert not (tmp_path / SCHEMA_NAME).exists()
    (tmp_path / SCHEMA_NAME).write_text("of another version")
    assert main(["init", str(tmp_path / "new.toml")]) == 2
    assert (tmp_path / SCHEMA_NAME).read_text() == "of another version"
    assert not (tmp_path / "new.toml").exists()
    assert capsys.readouterr().err.count("is not overwritten") == 2


def test_init_shares_a_schema_that_is_its_own(tmp_path):
    assert main(["init", str(tmp_path / "a.toml")]) == 0
    assert main(["init", str(tmp_path / "b.toml")]) == 0


@pytest.mark.parametrize("name", ["nul\0.toml", "x" * 300 + ".toml"])
def test_init_refuses_impossible_names_in_one_line(tmp_path, name, capsys):
    assert main(["init", str(tmp_path / name)]) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1
