"""Row 17. Fault: the study is edited between two runs of the command.

Injected: a variant is added and the margin of a verdict changed; then the evaluation is.
Expected: what changed is said; finished runs are reused wherever their run id is as before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

import isoflop.sweep
from isoflop.cli import main
from isoflop.config import Study
from isoflop.runs import RunStore
from sweep_studies import BASELINE, ROUTED, instant, tiny, unmeasured, write_corpus


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Study], str]:
    """Run the command on a study, training in no time, and return what it said."""
    quick = functools.partial(isoflop.sweep.run_study, train=instant, measure=unmeasured)
    monkeypatch.setattr(isoflop.sweep, "run_study", quick)
    monkeypatch.chdir(tmp_path)

    def run(study: Study) -> str:
        Path("study.json").write_text(study.model_dump_json())
        assert main(["run", "study.json"]) == 0
        return capsys.readouterr().err.replace("\n", " ")

    return run


def test_row_17_finished_runs_are_reused_and_changes_are_told(
    tmp_path: Path, run: Callable[[Study], str]
) -> None:
    corpus = write_corpus(tmp_path / "text.txt")
    store = RunStore(tmp_path / "runs" / "tiny")
    run(tiny(corpus))
    first = {f.path.name: (f.path / "record.json").read_bytes() for f in store.folders()}
    said = run(tiny(corpus, BASELINE, ROUTED, equivalence_margin=0.5))
    assert "variants.MoD added" in said
    assert "equivalence_margin" in said
    assert f"{len(first)} of the runs recorded so far are part of it as it is now" in said
    second = {f.path.name: (f.path / "record.json").read_bytes() for f in store.folders()}
    assert len(second) > len(first)
    assert {run_id: second[run_id] for run_id in first} == first
    # What decides a run's id makes another run of it, and the old records stay.
    said = run(tiny(corpus, evaluation_tokens=256))
    assert "evaluation_tokens: 512 -> 256" in said
    assert "0 of the runs recorded so far are part of it as it is now" in said
    third = {f.path.name: (f.path / "record.json").read_bytes() for f in store.folders()}
    assert {run_id: third[run_id] for run_id in second} == second
    assert len(third) > len(second)
