"""Trials of the recipe: budgets, names of the committed ones, and what lowers their noise."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "recipe"))
    yield pytest.importorskip("trials"), pytest.importorskip("table")
    for name in ("trials", "table"):
        sys.modules.pop(name, None)


@pytest.fixture
def noise() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "recipe" / "noise.py")))


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


def made(random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield records of six dense and six routed models; a seed moves all of them alike."""
    starts = random.normal(size=8)
    starts *= 0.01 / starts.std(ddof=1)
    for width, routed, seed in product(range(6), (False, True), range(8)):
        start, own, text = starts[seed], *random.normal(0, 0.01, 2)
        test, held = 1.2 + start + own, 1.3 + start + own + text
        curve = [{"step": 1, "loss": 5 + random.normal()}, {"step": 20, "loss": 2 + start + own}]
        curve += [{"step": s, "loss": 1.5 + random.normal(0, 0.1)} for s in (50, *range(81, 101))]
        yield {
            "run_id": f"{width} {routed} {seed}",
            "state": "finished",
            "config": {
                "model": {"width": width, "depth": routed},
                "recipe": {},
                "data": {"tokenizer": "bytes"},
                "steps": 100,
                "seed": seed,
                "budget_flops": 1e12,
            },
            "environment": {"compiled": True},
            "curve": curve,
            "evaluations": [{"split": "validation", "loss": held}, {"split": "test", "loss": test}],
        }


def test_what_lowers_noise_is_told_from_what_does_not(noise) -> None:
    ((group, cells),) = noise.cells_of(made(np.random.default_rng(0))).items()
    assert (group, len(cells)) == (("adamw", 1e12, "bytes"), 12)
    found = {name: value for name, (value, *_) in noise.measured(cells).items()}
    assert found["last test loss, nats"] == pytest.approx(0.01 * 2**0.5, rel=0.15)
    assert found["test and validation text"] == pytest.approx(1.125**0.5, rel=0.15)
    assert found["test text without end"] == pytest.approx(1, rel=0.1)
    assert found["control: training loss at 20%"] < 1e-6
    assert found["control: first training loss"] == pytest.approx(1, rel=0.1)
    assert found["training loss, last 10%"] == pytest.approx(0.1 / 10**0.5 / 0.01 / 2**0.5, rel=0.2)
    # What seeds do to all models alike cancels, which is half the variance.
    assert found["pairs of one seed"] == pytest.approx(0.5**0.5, rel=0.15)
    assert found["median of five seeds"] == pytest.approx(1.2, rel=0.1)


def test_the_committed_table_of_noise_is_what_the_records_give(noise, capsys) -> None:
    noise.main([str(ROOT / "results" / "mod-isoflop" / "records.jsonl.gz")])
    told = capsys.readouterr().out.splitlines()
    # The group of its smallest budget has runs of other studies too.
    told = [row for row in told if ",14000000000000.0," in row or ",40000000000000.0," in row]
    kept = (ROOT / "results" / "recipe" / "noise.csv").read_text().splitlines()
    assert len(told) == 20
    assert {*told} <= {*kept}
