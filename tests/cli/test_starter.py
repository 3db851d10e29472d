"""`isoflop init`: a study to start from that is right as it stands and with every default shown."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from given import write_words
from isoflop.check import own
from isoflop.cli import main
from isoflop.cli.study import SCHEMA_NAME, starter_text
from isoflop.config import Study
from isoflop.config.load import load_study, validated
from isoflop.config.own import of_file

SMALLER = {
    "[5e12]": "[5e8]\ntokens_per_step = 64\nevaluation_tokens = 512",
    'corpus = "sotu"\n': 'corpus = "text"\n',
    "# sequence_length = 256": "sequence_length = 16",
    "# test_fraction = 0.05": "test_fraction = 0.2",
    'check_first = "auto"': "check_first = false",
    '# precision = "auto"': 'precision = "fp32"',
    "# width_per_block = 16.0": "width_per_block = 4\nwidth_step = 4\nhidden_step = 4",
    "# head_width = 32": "head_width = 4",
    "# sizes = 7": "sizes = 3\ncentre_parameters = 12000",
    "# margin = 2": "margin = 1",
    "# added_at_most = 6": "added_at_most = 0",
}


def study_of(text):
    return validated(Study, tomllib.loads(text), "starter.toml")


def test_comments_show_the_defaults_and_examples_that_are_accepted():
    shown, replaced = re.subn(r"(?m)^# (?=\w+ = )", "", starter_text())
    assert replaced > 15
    assert study_of(shown) == study_of(starter_text())
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
    assert main(["init", "second.toml"]) == 0  # beside the schema that is there


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("study.json",), "the study to write is study.json; expected a name that ends in .toml"),
        (
            ("--variant", "my_skip.txt"),
            "--variant is my_skip.txt; expected a name that ends in .py",
        ),
        (("--variant", "v.py", "v.py"), "the study to write is v.py; expected a name that ends in"),
    ],
)
def test_init_refuses_names_that_nothing_reads(tmp_path, monkeypatch, arguments, told, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["init", "my study.toml"]) == 0
    assert "next: isoflop plan 'my study.toml'" in capsys.readouterr().out
    assert main(["report", "my study.toml"]) == 2
    assert "train it first: isoflop run 'my study.toml'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nul\0.toml", "x" * 300 + ".toml"])
def test_init_refuses_impossible_names_in_one_line(tmp_path, name, capsys):
    assert main(["init", str(tmp_path / name)]) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1


def test_init_writes_a_variant_and_a_study_that_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--variant", "My-Skip.py"]) == 0
    assert "next: isoflop check My-Skip.py" in capsys.readouterr().out
    assert len((tmp_path / "My-Skip.py").read_text().splitlines()) <= 60
    baseline, mine = load_study(tmp_path / "study.toml").variants
    assert (baseline.own, list(mine.own)) == ({}, ["depth"])
    assert mine.depth == of_file(tmp_path / "My-Skip.py")[1]
    written = (tmp_path / "study.toml").read_text()
    assert main(["init", "--variant", "other.py"]) == 0
    assert 'depth = { kind = "other", from = "other.py" }' in capsys.readouterr().out
    assert (tmp_path / "study.toml").read_text() == written
    assert main(["init", "--variant", "other.py"]) == 2
    assert "other.py exists and is not overwritten" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_on_extending_works_as_typed(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[2] / "docs" / "extending.md"
    typed = re.findall(r"(?m)^    isoflop (.*?)(?:\s+#.*)?$", page.read_text())
    assert [one.split()[0] for one in typed] == ["init", "check", "plan", "run", "report"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "_FINDS", [one for one in own._FINDS if one[0] != "compiled step"])
    write_words(tmp_path / "text", 40)
    for one in typed:
        assert main(one.split()) == 0, one
        if one.startswith("init"):
            study = tmp_path / "study.toml"
            text = study.read_text()
            for old, new in SMALLER.items():
                assert old in text
                text = text.replace(old, new, 1)
            study.write_text(text)
    assert "9 checks" in capsys.readouterr().out
    assert "depth my_skip" in (tmp_path / "runs/my-study/report/index.html").read_text()
