"""Held-out loss against a plain sum over tokens."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isoflop.config import Cap, Decision, Evaluation, EveryToken, ModelConfig, RandomK, TopK
from isoflop.data import TokenSplit
from isoflop.evaluation import control_noise, evaluate, token_losses
from isoflop.model import Transformer, build

LENGTH, VOCABULARY = 7, 29
LEARNED = TopK(capacity=0.4, router_bce=0.1)
CASES: list[tuple[object, Decision]] = [
    (EveryToken(), "every_token"),
    (LEARNED, "predictor"),
    (LEARNED, "threshold"),
    (LEARNED, "router"),
    (RandomK(capacity=0.4), "bernoulli"),
]


def split(*lengths: int) -> TokenSplit:
    """Documents of the given numbers of tokens, the end included; id i stands for i % 3 bytes."""
    offsets = np.cumsum([0, *lengths])
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, VOCABULARY, offsets[-1]).astype(np.uint8)
    tokens[offsets[1:] - 1] = 0
    token_bytes = np.arange(VOCABULARY) % 3
    sizes = [int(token_bytes[tokens[a:b]].sum()) for a, b in pairwise(offsets)]
    return TokenSplit(tokens, offsets, np.array(sizes), token_bytes)


def model_with(depth: object, **choices: object) -> Transformer:
    shape = {"vocabulary": VOCABULARY, "width": 10, "blocks": 4, "heads": 2, "head_width": 6}
    made = ModelConfig.model_validate({**shape, "hidden": 14, "depth": depth, **choices})
    model = build(made, seed=0)
    with torch.no_grad():
        for block in model.routed:
            block.threshold.fill_(0.2)
    return model


def loss_of(
    model: Transformer, held_out: TokenSplit, decision: Decision, **options: Any
) -> Evaluation:
    return evaluate(model, held_out, LENGTH, split="test", decision=decision, **options)


def by_brute_force(
    model: Transformer,
    held_out: TokenSplit,
    decision: Decision,
    noise: Tensor | None,
    targets: int,
    cap: Cap | None = None,
) -> tuple[list[float], list[float]]:
    """Negative log-likelihood of each target in order, and share selected by each routed block."""
    stream = torch.from_numpy(held_out.tokens.astype(np.int64))
    nats, taken = [], []
    with torch.no_grad():
        for start in range(0, targets, LENGTH):
            stop = min(start + LENGTH, targets)
            cut = None if noise is None else noise[..., : stop - start]
            output = model(stream[None, start:stop], decision=decision, noise=cut, cap=cap)
            logits = output.logits[0].double()
            for i in range(stop - start):
                chances = logits[i].exp() / logits[i].exp().sum()
                nats.append(-math.log(chances[stream[start + i + 1]]))
            taken.append([decided.selected.sum().item() for decided in output.routing])
    return nats, [sum(column) / targets for column in zip(*taken, strict=True)]


@pytest.mark.parametrize(("depth", "decision"), CASES)
@pytest.mark.parametrize("limit", [None, 1, 26, 1000])
def test_equals_a_sum_over_tokens(depth: object, decision: Decision, limit: int | None) -> None:
    model = model_with(depth)
    held_out = split(5, 13, 1, 22, 12)
    found = loss_of(model, held_out, decision, limit_tokens=limit, sequences=3, seed=11)
    targets = min(52, limit or 52)
    noise = control_noise(model, decision, 3, LENGTH, 11)
    nats, shares = by_brute_force(model, held_out, decision, noise, targets)
    assert found.split == "test"
    assert found.decision == decision
    assert found.tokens == targets
    assert found.loss == pytest.approx(sum(nats) / targets, rel=1e-5)
    text_bytes = held_out.token_bytes[held_out.tokens[1 : targets + 1]].sum()
    bits = sum(nats) / math.log(2)
    if text_bytes:
        assert found.bits_per_byte == pytest.approx(bits / text_bytes, rel=1e-5)
    else:
        assert found.bits_per_byte is None
    assert found.realised_capacity == pytest.approx(shares)

    # The end of a document counts to it; the first token of the stream is no target.
    expected, start = [], 1
    for end in held_out.offsets[1:]:
        part = nats[start - 1 : min(int(end), targets + 1) - 1]
        if part:
            expected.append((sum(part), len(part)))
        start = int(end)
    assert found.document_tokens == tuple(count for _, count in expected)
    assert found.document_losses == pytest.approx([total for total, _ in expected], abs=1e-3)
    assert sum(found.document_tokens) == targets
    assert sum(found.document_losses) == pytest.approx(found.loss * targets, abs=1e-2)


@pytest.mark.parametrize(("depth", "decision"), CASES[1:])
def test_a_cap_is_heeded_and_told(depth: object, decision: Decision) -> None:
    model, held_out = model_with(depth), split(5, 13, 1, 22, 12)
    options = {"split": "test", "decision": decision, "sequences": 3, "seed": 16}
    free = evaluate(model, held_out, LENGTH, **options)
    found = evaluate(model, held_out, LENGTH, cap=Cap(window=3), **options)
    # The capacity of 0.4 is one token of three.
    assert found.cap == Cap(window=3, tokens=1)
    noise = control_noise(model, decision, 3, LENGTH, 16)
    nats, shares = by_brute_force(model, held_out, decision, noise, 52, Cap(window=3, tokens=1))
    assert found.loss == pytest.approx(sum(nats) / 52, rel=1e-5)
    assert found.realised_capacity == pytest.approx(shares)
    # A window of seven positions has three windows of the cap.
    assert max(found.realised_capacity) <= 3 / 7
    assert sum(found.realised_capacity) < sum(free.realised_capacity)
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    assert "cap" not in free.model_dump(mode="json")


def test_a_cap_needs_a_causal_decision_and_routed_blocks() -> None:
    for depth, decision in ((LEARNED, "top_k"), (EveryToken(), "every_token")):
        with pytest.raises(ValueError, match="expected a causal decision in a model that routes"):
            loss_of(model_with(depth), split(30), decision, cap=Cap(window=3))


SPANS = [(0, 3), (3, 5), (5, 7), (0, 7), (4, 7), (0, 2)]


def windows_by_brute_force(
    model: Transformer, held_out: TokenSplit, decision: Decision, noise: Tensor | None
) -> list[tuple[int, list[float], int]]:
    """Document, nats of its targets and bytes of text of each window, one document after another.

    Each window is a forward pass of its own, without padding.
    """
    found = []
    for document, (begin, end) in enumerate(pairwise(held_out.offsets.tolist())):
        for start in range(begin, end - 1, LENGTH):
            stop = min(start + LENGTH, end - 1)
            part = torch.from_numpy(held_out.tokens[start : stop + 1].astype(np.int64))
            cut = None if noise is None else noise[..., : stop - start]
            with torch.no_grad():
                output = model(part[None, :-1], decision=decision, noise=cut)
            chances = output.logits[0].double().softmax(-1)
            nats = [-math.log(chances[i, part[i + 1]]) for i in range(stop - start)]
            found.append((document, nats, int(held_out.token_bytes[part[1:]].sum())))
    return found


@pytest.mark.parametrize(("depth", "decision"), CASES)
def test_windows_of_documents_equal_a_loop_over_them(depth: object, decision: Decision) -> None:
    model = model_with(depth)
    held_out = split(5, 13, 1, 22, 15, 8)
    found = loss_of(
        model, held_out, decision, windows="documents", spans=SPANS, sequences=3, seed=11
    )
    noise = control_noise(model, decision, 3, LENGTH, 11)
    expected = windows_by_brute_force(model, held_out, decision, noise)
    nats = [value for _, values, _ in expected for value in values]
    assert found.tokens == len(nats) == 4 + 12 + 0 + 21 + 14 + 7
    assert found.loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    bits = sum(nats) / math.log(2) / sum(size for _, _, size in expected)
    assert found.bits_per_byte == pytest.approx(bits, rel=1e-5)
    assert found.document_tokens == (4, 12, 21, 14, 7)

    assert [(one.start, one.stop) for one in found.spans] == SPANS
    for one in found.spans:
        reaching = [(d, sum(v[one.start : one.stop])) for d, v, _ in expected if len(v) >= one.stop]
        owners = sorted({document for document, _ in reaching})
        sums = [sum(total for d, total in reaching if d == owner) for owner in owners]
        assert one.document_losses == pytest.approx(sums, abs=1e-3)
        assert one.document_windows == tuple(
            sum(d == owner for d, _ in reaching) for owner in owners
        )
        assert one.loss == pytest.approx(sum(sums) / one.tokens, rel=1e-5)
    # Windows of 4, 7 and 5, three of 7, two of 7, and 7 targets.
    assert [one.windows for one in found.spans] == [9, 8, 7, 7, 7, 9]


def test_spans_change_nothing_else() -> None:
    model, held_out = model_with(LEARNED), split(20, 9, 13)
    with_spans, without = (
        loss_of(model, held_out, "predictor", windows="documents", spans=spans, limit_tokens=25)
        for spans in (SPANS, [])
    )
    assert with_spans.spans
    assert with_spans.model_copy(update={"spans": ()}) == without
    # The first windows of the three documents, of 7 targets each; a fourth would exceed the limit.
    assert without.document_tokens == (7, 7, 7)


def test_a_span_that_no_document_reaches_is_left_out() -> None:
    found = loss_of(
        model_with(EveryToken()), split(5, 6), "every_token", windows="documents", spans=SPANS
    )
    assert [(one.start, one.stop) for one in found.spans] == [(0, 3), (3, 5), (0, 2)]


def test_spans_of_windows_from_the_stream_are_refused() -> None:
    model, held_out = model_with(EveryToken()), split(30)
    with pytest.raises(ValueError, match=r"windows is 'stream'; expected windows='documents'"):
        loss_of(model, held_out, "every_token", spans=SPANS)
    for span in ((2, 2), (3, 1), (-1, 2), (0, 8)):
        with pytest.raises(ValueError, match=r"a span is \(.*expected positions from 0 to"):
            loss_of(model, held_out, "every_token", windows="documents", spans=[(0, 5), span])


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_as_it_was(training: bool) -> None:
    model = model_with(LEARNED).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss_of(model, split(30), "threshold")
    assert model.training is training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("decision", ["bernoulli", "top_k"])
def test_control_is_the_same_each_time_and_keyed_by_seed(decision: Decision) -> None:
    model = model_with(RandomK(capacity=0.4))

    def loss(seed: int) -> float:
        torch.manual_seed(seed + 100)
        return loss_of(model, split(60), decision, seed=seed).loss

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_what_is_not_finite_is_refused() -> None:
    model = model_with(EveryToken())
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="test loss under every_token is nan"):
        loss_of(model, split(30), "every_token")


def test_token_losses_of_half_precision_are_computed_in_full() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, generator=generator).bfloat16()
    targets = torch.randint(5, (2, 3), generator=generator)
    found = token_losses(logits, targets)
    assert found.dtype == torch.float32
    exact = logits.double().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(found.double(), -exact, rtol=1e-5, atol=1e-6)


def test_fewer_windows_are_held_where_their_logits_would_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, held_out = model_with(LEARNED), split(40, 31)
    expected = loss_of(model, held_out, "top_k")
    monkeypatch.setattr("isoflop.evaluation.loss.LOGITS_AT_A_TIME", 2 * LENGTH * VOCABULARY)
    held = []
    model.register_forward_pre_hook(lambda _, given: held.append(len(given[0])))
    found = loss_of(model, held_out, "top_k")
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.tokens == expected.tokens
    assert max(held) == 2
