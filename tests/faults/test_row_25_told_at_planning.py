"""Row 25: studies that cannot be trained, or not as their author thinks.

Injected as study files and corpora. Expected: `isoflop plan` and `isoflop run` say so before any
training; nothing is written but the prepared corpus, no run folder is made.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostile_commands import STUDY, TEXT, Sandbox

from isoflop.sweep import Outcome

SCALED = {
    **{key: value for key, value in STUDY.items() if key not in ("budgets_flops", "grid")},
    "scaling": {"models": [{"blocks": 2, "width": 51}]},
}


def variant(**depth: Any) -> dict[str, Any]:
    return {"variants": [{"name": "Baseline"}, {"name": "MoD", "depth": depth}]}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("changes", "text", "told"),
    [
        ({}, "", "corpus is 'text.txt'; expected text, but all of it is empty"),
        ({}, "\n\n", "expected at least 3"),
        ({}, "a\0b", "holds the byte 0 at offset 1"),
        ({}, "one two three four", "sequence_length is 64, but the training split has"),
        (
            {"data": {"corpus": "d.jsonl", "sequence_length": 64, "windows": "documents"}},
            "",
            "sequence_length is 64, but the longest document has 9 tokens",
        ),
        ({"data": {"corpus": "text.txt", "tokenizer": "bpe:9000"}}, TEXT, "yields only"),
        ({"budgets_flops": [1e6]}, TEXT, "not one step; raise the budget"),
        ({"tokens_per_step": 1000}, TEXT, "expected a multiple of data.sequence_length = 64"),
        (
            variant(kind="top_k", capacity=0.001),
            TEXT,
            "depth.capacity = 0.001 of data.sequence_length = 64 selects no token",
        ),
        ({"grid": {"maximum_parameters": 10}}, TEXT, "leave no size of the family"),
        ({"shape": {"head_width": 1}}, TEXT, "shape.head_width is 1; expected"),
    ],
)
def test_row_25_what_cannot_be_trained_is_refused_at_planning(
    box: Sandbox, command: str, changes: dict[str, Any], text: str, told: str
) -> None:
    (box.home / "text.txt").write_text(text)
    rows = ({"text": f"page {i:03}"} for i in range(300))
    (box.home / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = box.study({**STUDY, **changes})
    with box.contained("cache"):
        assert told in box(command, file).line
    assert not (box.home / "runs").exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({**STUDY, "budgets_flops": [2e11]}, "reads its training data"),
        ({**STUDY, "tokens_per_step": 64 * 48}, "has only"),
        (SCALED, "heads of 32, together 64, which is not its width of 51"),
    ],
)
def test_what_may_not_be_meant_is_said_at_planning_and_before_training(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], told: str
) -> None:
    # A page of text, so that every study goes through it more often than once.
    (box.home / "text.txt").write_text(TEXT[:40_000])
    file = box.study(values)
    planned = box("plan", file)
    assert planned.code == 0
    assert "warning: " in planned.out
    assert told in " ".join(planned.out.split())

    begun = []

    def train_nothing(scheduler: Any) -> Outcome:
        begun.append(scheduler.needed)
        return Outcome(finished=0, diverged=0, failed=0, left=1, interrupted=False)

    monkeypatch.setattr("isoflop.sweep.running.Scheduler.run", train_nothing)
    said = box("run", file)
    assert begun
    warnings = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert any(told in line for line in warnings), said.err
    assert not (box.home / "runs" / "small" / "runs").exists()


def test_a_single_run_whose_capacity_selects_nothing_is_refused(box: Sandbox) -> None:
    model = {"vocabulary": 256, "width": 32, "blocks": 2, "heads": 2, "head_width": 16}
    depth = {"kind": "top_k", "capacity": 0.001}
    run = {
        "model": {**model, "hidden": 64, "depth": depth},
        "data": STUDY["data"],
        "steps": 3,
        "sequences_per_step": 2,
    }
    line = box.refused("train", box.study(run, "run.json"))
    assert "model.depth.capacity = 0.001 of data.sequence_length = 64 selects no token" in line


def test_heads_that_do_not_fit_are_refused_by_key(box: Sandbox) -> None:
    model = {"vocabulary": 256, "width": 32, "blocks": 2, "heads": 3, "head_width": 16}
    run = {"model": {**model, "hidden": 64, "kv_heads": 2}, "steps": 3, "sequences_per_step": 2}
    line = box.refused("train", box.study(run, "run.json"))
    assert "kv_heads is 2, which does not divide heads = 3" in line


def test_a_corpus_that_is_not_at_hand_is_no_reason_to_plan_nothing(box: Sandbox) -> None:
    # A study may be planned where its data is not; that nothing can be trained there is said.
    file = box.study({**STUDY, "data": {"corpus": "elsewhere.txt"}})
    said = box("plan", file)
    assert said.code == 0
    assert "there is no such file or folder" in " ".join(said.out.split())
    assert "there is no such file or folder" in box.refused("run", file)
