"""A study's results in Python and as a dataset, from committed records."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import isoflop
from isoflop.cli import main
from isoflop.config import RunConfig, Study

ROOT = Path(__file__).resolve().parents[2]
NAME = "mod-seeds"


@pytest.fixture(scope="module")
def results() -> isoflop.StudyResults:
    found = isoflop.load(ROOT / "results" / NAME)
    assert isinstance(found, isoflop.StudyResults)
    return found


def test_results_show_themselves(results: isoflop.StudyResults) -> None:
    committed = isoflop.read_records(ROOT / "results" / NAME / "records.jsonl.gz")
    losses = {one.run_id: one.evaluation() for one in committed}
    assert set(results.runs["run_id"]) <= set(losses)
    for run_id, loss in zip(results.runs["run_id"], results.runs["loss"], strict=True):
        told = losses[run_id]
        assert told is not None
        assert loss == told.loss
    assert "loss-against-parameters" in results.figures
    chart = results.figures["loss-against-parameters"].to_dict(validate=False)
    assert chart["layer"]
    assert all(len(table) for table in results.tables.values())
    shown = results._repr_html_()
    assert f"<h3>{NAME}</h3>" in shown
    assert f"{len(results.runs)} runs" in shown


def test_load_tells_files_from_folders(tmp_path: Path) -> None:
    assert isinstance(isoflop.load(ROOT / "studies" / f"{NAME}.toml"), Study)
    with pytest.raises(ValueError, match=r"has no study.json; expected runs/NAME or results/NAME"):
        isoflop.load(tmp_path)


def test_a_dataset_holds_every_run(
    results: isoflop.StudyResults,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    study = ROOT / "studies" / f"{NAME}.toml"
    out = tmp_path / "dataset"
    # Analysed once for the whole file.
    monkeypatch.setattr("isoflop.results.StudyResults", lambda *_: results)
    arguments = ["--results", ROOT / "results", "--out", tmp_path / "runs", "--dataset", out]
    assert main(["export", str(study), *map(str, arguments)]) == 0
    assert capsys.readouterr().out.count("wrote ") == 5
    runs = pd.read_parquet(out / "runs.parquet")
    for run_id, text in zip(runs["run_id"], runs["config"], strict=True):
        assert RunConfig.model_validate_json(text).run_id == run_id
    told = pd.read_parquet(out / "evaluations.parquet")
    tests = told[(told["split"] == "test") & (told["run_id"] == runs["run_id"][0])]
    assert runs["loss"][0] in set(tests["loss"])
    curves = pd.read_parquet(out / "curves.parquet")
    assert set(curves["run_id"]) <= set(runs["run_id"])
    card = (out / "README.md").read_text()
    assert card.startswith("---\n")
    assert f"{len(runs)} training runs of " in card
    assert f'title: "{NAME}: training runs' in (out / "CITATION.cff").read_text()
    # Written again, but not over what is another's.
    assert main(["export", str(study), *map(str, arguments)]) == 0
    for name in ("CITATION.cff", "README.md", "runs.parquet"):
        shutil.rmtree(out)
        out.mkdir()
        (out / name).write_text("mine")
        capsys.readouterr()
        assert main(["export", str(study), *map(str, arguments)]) == 2
        assert f"{out / name} exists and is not overwritten" in capsys.readouterr().err
        assert [path.read_text() for path in out.iterdir()] == ["mine"]
