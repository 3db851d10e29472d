"""Row 9. Fault: NaN or Inf in the loss or a gradient.

Injected: a variant whose learning rate blows its weights up, beside a sound one that takes no time.
Expected: it stops before the update, its last checkpoint is finite, it is `diverged` with a reason;
the fits leave it out and the report tells why, as of one that failed; its siblings finish.
"""

from __future__ import annotations

import html
import io
import re
from pathlib import Path

import pytest
import trainers
from hostile_commands import quick_reports
from rich.console import Console

from isoflop import checkpoint
from isoflop.cli import main
from isoflop.config import Variant
from isoflop.runs import RunStore
from isoflop.sweep import status
from isoflop.sweep.schedule.attempts import commit_failure
from sweep_studies import BASELINE, tiny, train_study, unmeasured, write_corpus


def test_row_09_a_diverged_run_stops_in_time_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explosive = Variant(name="Explosive", learning_rate=1e25)
    study = tiny(write_corpus(tmp_path / "text.txt"), BASELINE, explosive)
    root = tmp_path / "runs" / "tiny"
    said = io.StringIO()
    outcome = train_study(
        study,
        root,
        tmp_path / "cache",
        workers=2,
        train=trainers.exploding,
        measure=unmeasured,
        console=Console(file=said),
    )
    assert (outcome.left, outcome.failed) == (0, 0), said.getvalue()
    assert outcome.finished >= 3
    assert outcome.diverged == 3
    for row in status(study, root).rows:
        assert row.state == ("diverged" if row.variant == "Explosive" else "finished")
    store = RunStore(root)
    diverged = [record for record in store.records() if record.state == "diverged"]
    for record in diverged:
        assert re.search(r"(loss|gradient norm) (nan|inf)", record.reason or "")
        assert record.evaluations == ()
        saved = checkpoint.latest(store.folder(record.run_id).checkpoints)
        assert saved is not None
        assert all(tensor.isfinite().all() for tensor in saved.tensors.values())
        rows, _ = store.folder(record.run_id).read_metrics()
        assert len(rows) == saved.step < record.config.steps

    # One of them failed instead.
    failed, *diverged = diverged
    folder = store.folder(failed.run_id)
    (folder.path / "record.json").unlink()
    commit_failure(failed.config, folder, "hung", data_sha256=failed.data_sha256, device="cpu")
    (tmp_path / "study.json").write_text(study.model_dump_json())
    monkeypatch.chdir(tmp_path)
    with quick_reports():
        assert main(["report", "study.json"]) == 0
    page = html.unescape((root / "report" / "index.html").read_text())
    assert "2 runs diverged: " in page
    assert "1 run failed: hung" in page
    assert all((record.reason or "") in page for record in diverged)
    assert f"{outcome.finished} runs of {outcome.finished + 3} records; the others are" in page
