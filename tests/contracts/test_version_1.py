"""What version 0.1.0 wrote is read by every later one: a study, its results, a checkpoint.

`golden/version-1.tar.gz` is what that version left of a study of 7 tiny runs, made before any
format had changed; it is never made again.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch

import isoflop
from isoflop.cli import main
from isoflop.config import TopK
from isoflop.runs import RunFolder, RunStore
from isoflop.sweep import Ledger, status
from isoflop.training import load_model

FILES = Path(__file__).parents[1] / "golden" / "version-1.tar.gz"
RUN = "d72a005ced56"
"""The smallest routed one, the only one whose folder was kept."""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(FILES) as opened:
        opened.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_study_needs_no_other_runs(kept: Path) -> None:
    """Run ids are hashes of what is studied: were one another now, its run would be repeated."""
    study = isoflop.load_study(kept / "runs/old/study.json")
    found = status(study, kept / "runs/old", kept / "results")
    assert found.complete
    assert [row.taken_up for row in found.rows].count(True) == 6
    assert found.foreign == 0
    ledger = Ledger(study, kept / "runs/old", kept / "results")
    for record in ledger.records:
        assert record.config.run_id == record.run_id
    assert ledger.get(RUN).evaluation("test").loss == 2.108068536501378


def test_its_run_folder_is_read(kept: Path) -> None:
    folder = RunStore(kept / "runs/old").folder(RUN)
    assert folder.state() == "finished"
    assert folder.config().run_id == RUN
    assert folder.config().model.depth == TopK(capacity=0.25, every=2)
    rows, corrupt = folder.read_metrics()
    assert (len(rows), corrupt) == (folder.config().steps, 0)
    assert folder.attempts == 1
    assert folder.pinned().environment.isoflop == "0.1.0"


def test_its_checkpoint_is_loaded(kept: Path) -> None:
    folder = RunFolder(kept / "runs/old/runs" / RUN)
    model = load_model(folder)
    assert sum(one.numel() for one in model.parameters()) == folder.record().parameters.total
    with torch.inference_mode():
        logits = model(torch.arange(97, 105)[None]).logits
    assert logits.isfinite().all()
    # It has learned that its text holds the letters a to h.
    assert logits[0, -1].topk(9).indices.sort().values.tolist() == [32, *range(97, 105)]


def test_its_results_are_fitted_and_reported(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("results/old", "runs/old"):
        assert len(isoflop.load(folder).runs) == 7
    assert main(["fit", "results/old/study.json"]) == 0
    assert "MoD" in capsys.readouterr().out
