"""Trials of the recipe spend their budget, and the committed ones are known by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "recipe"))
    yield pytest.importorskip("trials"), pytest.importorskip("table")
    for name in ("trials", "table"):
        sys.modules.pop(name, None)


def test_each_spends_its_budget(trials) -> None:
    made, _ = trials
    for budget in made.MODELS:
        for _, _, config in made.trials(budget, list(made.TRIALS), 1, 0):
            flops = made.train_flops_per_token(config.model, 256, "causal") * config.tokens
            assert flops == pytest.approx(budget, rel=0.01)


def test_those_committed_are_told_by_name(trials) -> None:
    made, table = trials
    records = table.read(ROOT / "results" / "recipe" / "trials.jsonl.gz")
    known = {config.run_id for *_, config in made.trials(2e12, list(made.TRIALS), 4, 3)}
    assert records
    assert records.keys() <= known
