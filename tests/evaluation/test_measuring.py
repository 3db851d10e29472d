"""All measures of a model together: the same losses as `evaluate`, and what routing did."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluation.known_leak import LENGTH as TWO
from evaluation.known_leak import A, B, C, leaking_model, text
from evaluation.test_loss import LENGTH, SPANS, VOCABULARY, model_with, split
from isoflop.config import (
    BlockMeasures,
    Cap,
    Decision,
    EveryToken,
    Measures,
    RandomK,
    TokenSelection,
    TopK,
    Windows,
    decisions,
)
from isoflop.data import document_windows
from isoflop.evaluation import control_noise, evaluate
from isoflop.evaluation.future import future_change
from isoflop.evaluation.measuring import EXTREMES, PERTURBED_WINDOWS, measure

LEARNED = TopK(capacity=0.4, router_bce=0.1)


@pytest.mark.parametrize("windows", ["stream", "documents"])
@pytest.mark.parametrize("depth", [EveryToken(), LEARNED, RandomK(capacity=0.4)])
def test_losses_are_those_of_evaluate(depth: object, windows: Windows) -> None:
    model, held_out = model_with(depth).train(), split(15, 33, 1, 22, 30)
    options = {
        "split": "validation",
        "windows": windows,
        "spans": SPANS if windows == "documents" else (),
        "limit_tokens": 80,
        "sequences": 3,
        "seed": 4,
    }
    found = measure(model, held_out, LENGTH, **options)
    assert model.training
    assert tuple(one.decision for one in found.decisions) == decisions(model.config.depth)
    for one in found.decisions:
        alone = evaluate(model, held_out, LENGTH, decision=one.decision, **options)
        assert one.evaluation == alone
        assert one.loss.value == pytest.approx(alone.loss)
        assert one.loss.low < alone.loss
        assert one.bits_per_byte.value == pytest.approx(alone.bits_per_byte)


def test_a_dense_model_has_losses_alone() -> None:
    found = measure(model_with(EveryToken()), split(30, 40), LENGTH, split="test")
    (one,) = found.decisions
    assert found.sample is None
    assert (one.leak, one.future, one.stretch) == (None, None, None)
    assert one.blocks == one.never_selected == ()


def selections(model, held_out, decision: Decision) -> tuple[np.ndarray, np.ndarray]:
    """Ids (W, T) and selected (R, W, T) of the whole windows of documents, one at a time."""
    ids, taken = [], []
    for tokens, _, mask in document_windows(held_out, LENGTH, 1):
        if mask.all():
            noise = control_noise(model, decision, 1, LENGTH, 0)
            with torch.no_grad():
                output = model(torch.from_numpy(tokens[:, :-1]), decision=decision, noise=noise)
            ids.append(tokens[0, :-1])
            taken.append(np.stack([one.selected[0].numpy() for one in output.routing]))
    return np.stack(ids), np.stack(taken, axis=1)


def extremes(block: BlockMeasures) -> tuple[tuple[TokenSelection, ...], ...]:
    return block.most_selected, block.least_selected


def test_routing_is_measured_on_whole_windows() -> None:
    model, held_out = model_with(LEARNED), split(15, 33, 1, 22, 30, 5)
    found = measure(
        model,
        held_out,
        LENGTH,
        split="test",
        windows="documents",
        sequences=3,
        minimum_occurrences=3,
    )
    ids, top_k = selections(model, held_out, "top_k")
    counts = np.bincount(ids.ravel(), minlength=VOCABULARY)
    frequent = np.flatnonzero(counts >= 3)
    assert (found.sample.windows, found.sample.tokens) == (len(ids), ids.size) == (13, 13 * LENGTH)
    assert found.sample.frequent_ids == len(frequent)

    for one in found.decisions:
        _, selected = selections(model, held_out, one.decision)
        assert one.stretch.tokens == tuple(ids[0].tolist())
        assert np.array_equal(np.array(one.stretch.processed), selected[:, 0])
        anywhere = set(ids[selected.any(0)].tolist())
        assert one.never_selected == tuple(i for i in frequent.tolist() if i not in anywhere)
        assert [block.block for block in one.blocks] == [1, 3]
        for index, block in enumerate(one.blocks):
            mine, best = selected[index], top_k[index]
            assert block.nominal_capacity == 2 / 7
            assert sum(block.router_weights.processed) == mine.sum()
            assert sum(block.router_weights.skipped) == (~mine).sum()
            assert block.realised_capacity == pytest.approx(mine.mean())
            assert block.share_by_position == pytest.approx(mine.mean(0))
            most, least = ([row.share for row in rows] for rows in extremes(block))
            assert most == sorted(most, reverse=True)
            assert least == sorted(least)
            assert len(most) == len(least) == min(EXTREMES, len(frequent))
            assert most[0] >= least[-1]
            assert (
                block.most_selected[0].selected == mine[ids == block.most_selected[0].token].sum()
            )
            if one.decision == "top_k":
                assert block.agreement is None
                assert block.realised_capacity == pytest.approx(2 / 7)
            else:
                assert block.agreement.accuracy == pytest.approx((mine == best).mean())
                assert block.agreement.recall == pytest.approx(mine[best].mean())
            assert 0 < block.entropy.skipped.value < math.log(VOCABULARY)


def test_a_leak_known_by_construction_shows_in_every_measure() -> None:
    found = measure(
        leaking_model(), text("BCC", "CB", "CCCC", "B"), TWO, split="test", minimum_occurrences=3
    )
    predictor, top_k = found.under("predictor"), found.under("top_k")
    assert predictor.leak.nats.value == pytest.approx(7 / 20 * math.log(2), rel=1e-3)
    assert predictor.future.changed == 0
    assert top_k.future.changed_visibly > 0.3
    (skipping,), (leaking,) = predictor.blocks, top_k.blocks
    # The predictor selects nothing; half of the tokens are none of the top k.
    assert skipping.agreement.accuracy == 0.5
    assert skipping.agreement.precision is None
    assert skipping.entropy.processed is None
    assert predictor.never_selected == (A, B, C)
    # Top-k takes the A before each of seven C, and each of three B.
    assert top_k.never_selected == (C,)
    assert leaking.share_by_position == (0.7, 0.3)
    assert [(row.token, row.selected, row.occurrences) for row in leaking.most_selected] == [
        (B, 3, 3),
        (A, 7, 10),
        (C, 0, 7),
    ]
    # After a processed A there is no doubt, after a skipped one that of a coin.
    assert leaking.entropy.processed.value == pytest.approx(0, abs=1e-6)
    assert leaking.entropy.skipped.value == pytest.approx(3 / 10 * math.log(2), rel=1e-5)


def test_top_k_is_taken_along_with_the_decisions_asked_for() -> None:
    model, held_out = model_with(LEARNED), split(30, 40)
    found = measure(model, held_out, LENGTH, split="test", among=["threshold"])
    every = measure(model, held_out, LENGTH, split="test")
    assert [one.decision for one in found.decisions] == ["top_k", "threshold"]
    assert found.under("threshold") == every.under("threshold")
    assert found.under("predictor") is None


@pytest.mark.parametrize("depth", [LEARNED, RandomK(capacity=0.4)])
def test_under_a_cap_each_causal_decision_is_taken_twice(depth: object) -> None:
    model, held_out = model_with(depth), split(15, 33, 1, 22, 30)
    cap = Cap(window=3)
    options = {"split": "test", "limit_tokens": 80, "sequences": 3, "seed": 4}
    found = measure(model, held_out, LENGTH, cap=cap, **options)
    free = measure(model, held_out, LENGTH, **options)
    count = len(free.decisions)
    assert found.decisions[:count] == free.decisions
    assert found.under("top_k") == free.under("top_k")
    held = found.decisions[count:]
    causal = [one for one in free.decisions if one.decision != "top_k"]
    assert [one.decision for one in held] == [one.decision for one in causal]
    for one, uncapped in zip(held, causal, strict=True):
        assert one.evaluation == evaluate(
            model, held_out, LENGTH, decision=one.decision, cap=cap, **options
        )
        assert one.described == f"{one.decision}, 1 of 3"
        assert one.realised_capacity < uncapped.realised_capacity
        assert one.nominal_capacity == 2 / 7
        assert one.future.changed == 0
        # A cap takes away and never adds, in the first routed block, which nothing else changes.
        before, after = (np.array(each.stretch.processed[0]) for each in (uncapped, one))
        assert (after <= before).all()
        assert one.blocks[0].realised_capacity < uncapped.blocks[0].realised_capacity
        assert one.leak.nats.value == pytest.approx(
            one.loss.value - found.under("top_k").loss.value, abs=1e-4
        )
    assert Measures.model_validate_json(found.model_dump_json()) == found


def test_a_cap_with_nothing_to_hold_is_refused() -> None:
    held_out, cap = split(30), Cap(window=3)
    with pytest.raises(ValueError, match="the model has no routed block; leave it out"):
        measure(model_with(EveryToken()), held_out, LENGTH, split="test", cap=cap)
    with pytest.raises(ValueError, match="a cap is given with top_k alone"):
        measure(model_with(LEARNED), held_out, LENGTH, split="test", cap=cap, among=["top_k"])


@pytest.mark.parametrize(
    ("depth", "decision"),
    [(EveryToken(), "predictor"), (TopK(capacity=0.4), "router"), (LEARNED, "bernoulli")],
)
def test_a_decision_that_does_not_fit_is_refused(depth: object, decision: Decision) -> None:
    with pytest.raises(ValueError, match=f"decision is '{decision}'; expected one of "):
        measure(model_with(depth), split(30), LENGTH, split="test", among=[decision])


def test_routing_needs_a_whole_window() -> None:
    with pytest.raises(ValueError, match="no window of 7 tokens is full"):
        measure(model_with(LEARNED), split(30), LENGTH, split="test", limit_tokens=6)
    one = measure(model_with(EveryToken()), split(30), LENGTH, split="test", limit_tokens=6)
    assert one.decisions[0].evaluation.tokens == 6


def test_the_future_is_changed_in_windows_spread_over_the_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def spy(model, windows, decision, **options):
        seen.append(windows)
        return future_change(model, windows, decision, **options)

    monkeypatch.setattr("isoflop.evaluation.measuring.future_change", spy)
    count = PERTURBED_WINDOWS + 5
    held_out = split(count * LENGTH + 1)
    found = measure(model_with(LEARNED), held_out, LENGTH, split="test")
    for one in found.decisions:
        assert one.future.windows == PERTURBED_WINDOWS
        assert (one.future.changed == 0) == (one.decision != "top_k")
    for windows in seen:
        np.testing.assert_array_equal(windows[0], held_out.tokens[:LENGTH])
        np.testing.assert_array_equal(windows[-1], held_out.tokens[-1 - LENGTH : -1])


def test_of_a_long_text_routing_is_measured_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    model, held_out = model_with(LEARNED), split(100 * LENGTH + 1)
    options = {"split": "test", "sequences": 2, "minimum_occurrences": 1}
    whole = measure(model, held_out, LENGTH, **options)
    monkeypatch.setattr("isoflop.evaluation.measuring.MEASURED_TOKENS", 19 * LENGTH)
    some = measure(model, held_out, LENGTH, **options)
    assert (whole.sample.windows, some.sample.windows) == (100, 20)
    start = measure(model, split(20 * LENGTH + 1), LENGTH, **options)
    assert [one.evaluation for one in some.decisions] == [one.evaluation for one in whole.decisions]
    assert [one.stretch for one in some.decisions] == [one.stretch for one in start.decisions]
