"""`isoflop search`: what it prints of recorded trials, and a tiny search that is trained."""

from __future__ import annotations

import json
import math
import random
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from given import record_of
from isoflop.config import RunConfig, Variant
from isoflop.config.load import load_study
from isoflop.planning.search.contenders import search
from isoflop.runs import RunStore, write_records
from isoflop.sweep.search import search_of

STUDY: dict[str, Any] = {
    "name": "searched",
    "budgets_flops": [5e12, 2e13],
    "data": {"corpus": "text.txt"},
    "recipe": {"precision": "fp32"},
    "search": {
        "settings": {"learning_rate": [4e-3, 8e-3, 1.6e-2], "width_per_block": [8, 14, 24]},
        "seeds": [0, 1],
        "most_trials": 60,
        "budgets_flops": [5e12, 2e13],
    },
    "variants": [
        {"name": "Baseline"},
        {"name": "MoD", "depth": {"kind": "top_k", "capacity": 0.5}},
    ],
}


def loss_of(config: RunConfig) -> float:
    noise = np.random.default_rng(int(config.run_id, 16)).normal(0, 0.004)
    rate = math.log(config.recipe.learning_rate / (1.2e-2 * (config.budget_flops / 5e12) ** -0.4))
    return 1.5 + 0.06 * rate**2 + noise


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "searched.json"
    path.write_text(json.dumps(STUDY))
    return path


def test_what_was_found_fits_a_screen_and_can_be_written_into_the_study(path, call, told) -> None:
    study, records = load_study(path), []
    while missing := search(study, records)[0]:
        records += [record_of(run.config, loss_of(run.config)) for run in missing]
    write_records(path.parent / "results" / "searched" / "search.jsonl", records)
    # Nothing is left to train, so that no corpus is needed.
    shown = call("search", path).splitlines()
    assert len(shown) <= 40
    assert "The rest: --json." not in shown
    written = shown[shown.index("To write into the study:") + 1 :]
    for name, lines in zip(("Baseline", "MoD"), (written[:4], written[4:]), strict=True):
        assert lines[0] == f"# {name}"
        found = Variant.model_validate({"name": name, **tomllib.loads("\n".join(lines))})
        assert found.learning_rate == pytest.approx(1.2e-2, rel=0.2)
        assert found.exponents.learning_rate == pytest.approx(-0.4, abs=0.2)
        assert found.shape.width_per_block > 0
    found = told("search", path)
    assert found["toml"] == written
    assert found["trials"]["Baseline"] == found["trials"]["MoD"] == len(records) / 2
    kept = search_of(study, path.parent / "runs", path.parent / "results")
    assert kept.declared == kept.finished == found["trials"]
    assert kept.further_runs == 0


def test_a_study_without_a_search_is_refused_before_anything_is_measured(path, call) -> None:
    path.write_text(json.dumps({k: v for k, v in STUDY.items() if k not in ("search", "recipe")}))
    assert "study 'searched' has no [search]; expected" in call("search", path, code=2)
    assert not (path.parent / "runs").exists()


@pytest.mark.slow
def test_a_tiny_search_is_trained_and_told(tmp_path, monkeypatch, call) -> None:
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(50)]
    text = "\n\n".join(" ".join(draw.choices(words, k=80)) for _ in range(200))
    Path("text.txt").write_text(text)
    tiny = STUDY | {
        "budgets_flops": [1.375e8],
        "tokens_per_step": 64,
        "evaluation_tokens": 512,
        "data": {
            "corpus": "text.txt",
            "sequence_length": 16,
            "validation_fraction": 0.2,
            "test_fraction": 0.2,
        },
        "shape": {"width_step": 4, "head_width": 4, "hidden_step": 4, "width_per_block": 4},
        "search": {
            "settings": {"learning_rate": [4e-3, 8e-3, 1.6e-2]},
            "seeds": [0, 1],
            "most_trials": 12,
            "parameters": 12e3,
        },
    }
    Path("tiny.json").write_text(json.dumps(tiny | {"name": "tiny"}))
    shown = call("search", "tiny.json", "--workers", "2")
    assert "To write into the study:" in shown
    records = RunStore(Path("runs/tiny/search")).records()
    assert 2 * 6 <= len(records) <= 2 * 12
    assert call("search", "tiny.json", "--workers", "2") == shown
