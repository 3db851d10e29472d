"""What a study will resolve, told by its own runs or by those of another study."""

from __future__ import annotations

import json

import pytest
from driven_grid import drive, make_study, valley

from isoflop import storage
from isoflop.cli import main
from isoflop.config import DataConfig
from isoflop.config.load import load_study
from isoflop.fit.compare import power
from isoflop.runs import write_records

NAMES = ("Baseline", "MoD")


@pytest.fixture
def pilot(tmp_path, monkeypatch):
    """A trained study of three seeds under `results`, and one of one seed that nobody trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(power, "STUDIES", 40)
    data = DataConfig(corpus="missing.txt")
    variants = make_study().variants[:2]
    study = make_study(seeds=(0, 1, 2), name="pilot", variants=variants, data=data)
    study = study.model_copy(update={"matched_shapes": False}).with_precision("fp32")
    _, records = drive(study, valley(study, noise=0.008))
    folder = tmp_path / "results" / "pilot"
    write_records(folder / "records.jsonl", records)
    for path in (folder / "study.json", tmp_path / "pilot.json"):
        storage.write_json(path, study.model_dump(mode="json"))
    next_one = study.model_copy(
        update={"name": "next", "budgets_flops": (5e13,), "equivalence_margin": 0.005}
    )
    storage.write_json(tmp_path / "next.json", next_one.model_dump(mode="json"))
    return load_study(tmp_path / "next.json")


def said(capsys, *arguments: str) -> str:
    assert main([*arguments]) == 0
    return capsys.readouterr().out


def test_status_tells_what_its_runs_so_far_will_resolve(pilot, capsys) -> None:
    found = json.loads(said(capsys, "status", "pilot.json", "--json"))["power"]
    assert found["seeds"] == 3
    assert found["noise"]["spread"] == pytest.approx(0.008, rel=0.4)
    assert set(found["noise"]["variants"]) == set(NAMES)
    assert found["source"] == "this study"
    assert found["resolves"] > found["half_width"] > 0.008
    shown = " ".join(said(capsys, "status", "pilot.json").split())
    assert "With 3 seeds a difference of 0.0" in shown
    assert "runs of this study (correlation" in shown
    assert json.loads(said(capsys, "status", "next.json", "--json"))["power"] is None


@pytest.mark.slow
def test_a_study_that_was_watched_says_so_of_its_intervals(pilot, capsys, tmp_path) -> None:
    changes = {"name": "watched", "until_resolved": 1e-6, "seeds_at_most": 5}
    study = load_study(tmp_path / "pilot.json").model_copy(update=changes)
    storage.write_json(tmp_path / "watched.json", study.model_dump(mode="json"))
    _, records = drive(study, valley(study, noise=0.008))
    write_records(tmp_path / "results" / "watched" / "records.jsonl", records)
    few = ("fit", "watched.json", "--resamples", "20")
    assert ", at every look from 3 seeds on" in " ".join(said(capsys, *few).split())
    (verdict,) = json.loads(said(capsys, *few, "--json"))["verdicts"]
    assert verdict["difference"]["interval"]["looks_from"] == 3
    shown = " ".join(said(capsys, "status", "watched.json").split())
    assert "With up to 5 seeds, looked at from 3 on, a difference of 0.0" in shown
    assert "Every run that the study needs has its record." in shown


@pytest.mark.parametrize("source", ["pilot.json", "results/pilot"])
def test_plan_goes_by_the_noise_of_another_study(pilot, capsys, source) -> None:
    command = ("plan", "next.json", "--accelerator", "h200")
    assert "No run tells yet how far seeds" in said(capsys, *command)
    found = json.loads(said(capsys, *command, "--noise-from", source, "--json"))["power"]
    assert (found["source"], found["margin"]) == (source, 0.005)
    assert found["margin_seeds"] > 3


def test_what_tells_no_noise_is_refused_in_a_line(pilot, capsys, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for source, words in (
        ("empty", "has no study.json; expected runs/NAME or results/NAME"),
        ("next.json", "no run of next has a record"),
    ):
        command = ["plan", "next.json", "--accelerator", "h200", "--noise-from", source]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
