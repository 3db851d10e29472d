"""Prefill plus decode is the full causal forward, whatever attends, routes or decides."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from decoded import PROMPTS, decode, forward, model_with, same, texts
from isoflop.config import BlockAttention, Cap, Decision, EveryToken, FullAttention, RandomK, TopK
from isoflop.generation import Engine, nominal_share
from isoflop.generation.engine import LEAST_POSITIONS
from learned import Trained

LEARNED = TopK(capacity=0.4, router_bce=0.1)
NEAR_TIE = 1e-4
ATTENTIONS = {
    "full": FullAttention(),
    "block": BlockAttention(block_size=3, top_k=2),
    "block, last full": BlockAttention(block_size=4, top_k=2, full_last=2),
    "block, own only": BlockAttention(block_size=2, top_k=1),
    "block, all": BlockAttention(block_size=5, top_k=7),
    "key convolution": BlockAttention(block_size=3, top_k=2, full_last=1, key_convolution=3),
    "ends full": BlockAttention(block_size=3, top_k=2, full_from=0.5, key_convolution=2),
}
CAP = Cap(window=5, tokens=2)
DECISIONS: list[tuple[object, Decision, Cap | None]] = [
    (EveryToken(), "every_token", None),
    (LEARNED, "predictor", None),
    (LEARNED, "predictor", CAP),
    (LEARNED, "threshold", None),
    (LEARNED, "router", CAP),
    (LEARNED, "every_token", None),
    (RandomK(capacity=0.4), "bernoulli", None),
    (RandomK(capacity=0.4), "bernoulli", CAP),
]
PREDICTED = DECISIONS[1]


@pytest.mark.parametrize(
    ("attention", "depth", "decision", "cap"),
    # What is attended and what decides meet only in the tokens that are kept, so that each kind of
    # attention under one decision, and each decision over one attention, are the pairs that count.
    [
        pytest.param(attention, *decided, marks=() if quick else pytest.mark.slow)
        for attention, decided in product(ATTENTIONS, DECISIONS)
        for quick in [attention == "key convolution" or decided is PREDICTED]
    ],
)
def test_prefill_plus_decode_is_the_full_forward(
    attention: str, depth: object, decision: Decision, cap: Cap | None
) -> None:
    model = model_with(depth, attention=ATTENTIONS[attention], query_key_norm=True)
    whole = texts()
    found = decode(Engine(model, decision, cap=cap), whole)
    for text, prompt, one in zip(whole, PROMPTS, found, strict=True):
        expected, margins = forward(model, text, decision, cap, prompt)
        flipped = (one.processed != expected.processed).nonzero()
        if len(flipped):
            # Rounding may turn a decision that is near a tie, and what follows differs then.
            first = int(flipped[:, 1].min())
            blocks = flipped[flipped[:, 1] == first, 0]
            assert float(margins[blocks[0], first]) < NEAR_TIE
            assert first > len(text) // 2, "the seed gives too early a tie to test anything"
            end = max(0, first - prompt + 1)
            same(one.logits[:end], expected.logits[:end])
        else:
            same(one.logits, expected.logits)
        if model.routed and decision != "every_token":
            assert 0 < int(expected.processed.sum()) < expected.processed.numel()


# Blocks that are all attended, or the own alone: of others rounding may choose another.
@pytest.mark.parametrize("attention", ["full", "block, all", "block, own only"])
def test_bfloat16_weights_are_off_by_rounding_alone(attention: str) -> None:
    model = model_with(TopK(capacity=0.5), attention=ATTENTIONS[attention]).bfloat16()
    (text,) = texts((23,))
    (found,) = decode(Engine(model, "every_token"), [text], [9])
    assert found.logits.dtype == torch.bfloat16
    rounded, _ = forward(model, text, "every_token", None, 9)
    exact, _ = forward(model.float(), text, "every_token", None, 9)
    # A block stores 16 tensors: two norms, q, k, v, q and k turned, scores, weights, what they mix,
    # its projection, gate, values, their product, and two sums; and embedding, norm, logits are 3.
    # None matters more than the stream, and what rounding takes or adds is uniform within half a
    # unit of the last place: u / sqrt(3), in squares. The norm of many logits is near its mean.
    roundings = 16 * len(model.blocks) + 3
    limit = 3 * (roundings / 3) ** 0.5 * torch.finfo(torch.bfloat16).eps / 2
    for one in (found, rounded):
        apart = (one.logits.float() - exact.logits).norm() / exact.logits.norm()
        assert 0 < float(apart) < limit < 0.1


@pytest.mark.parametrize("depth", [LEARNED, RandomK(capacity=0.4)])
def test_a_text_may_outgrow_the_tables(depth: object) -> None:
    model = model_with(depth)
    whole = texts((LEAST_POSITIONS + 5,))
    engine = Engine(model)
    (found,) = decode(engine, whole, (LEAST_POSITIONS - 4,))
    expected, _ = forward(model, whole[0], engine.decision, None, LEAST_POSITIONS - 4)
    assert torch.equal(found.processed, expected.processed)
    same(found.logits, expected.logits)


def rows_given(block: torch.nn.Module) -> list[int]:
    """Record how many rows a block is run on, call by call."""
    seen: list[int] = []

    def look(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].shape[0])

    block.register_forward_pre_hook(look)
    return seen


def test_a_block_is_run_only_for_the_sequences_it_processes() -> None:
    model = model_with(LEARNED)
    seen = [rows_given(block.block) for block in model.routed]
    engine = Engine(model)
    engine.prefill(texts((4, 6, 5)))
    for calls in seen:
        calls.clear()
    counts: list[list[int]] = [[], []]
    for token in range(12):
        engine.step([token, 2 * token, 30 - token])
        for number, count in enumerate(engine.processed[:, :, 0].sum(1).tolist()):
            counts[number] += [count] if count else []
    assert all(len(set(one)) > 1 for one in counts)
    assert sum(map(sum, counts)) < 2 * 3 * 12
    assert seen == counts


def never(block: int, positions: Tensor) -> Tensor:
    return torch.zeros_like(positions, dtype=torch.bool)


@pytest.mark.parametrize("attention", ["full", "key convolution"])
def test_a_block_may_process_nothing_for_long(attention: str) -> None:
    model = model_with(LEARNED, attention=ATTENTIONS[attention])
    whole = texts((13, 13))

    def late(block: int, positions: Tensor) -> Tensor:
        # The second routed block takes its first token of the first row at a step.
        return (positions >= 9) if block else never(block, positions)

    for forced, held in ((never, 0), (late, 4)):
        engine = Engine(model, forced=forced)
        found = decode(engine, whole, (4, 4))
        assert [cache.lengths for cache in engine.caches] == [
            [13, 13],
            [0, 0],
            [13, 13],
            [held] * 2,
        ]
        # Without its routed blocks, or with the second one over the last tokens only.
        for row, text in enumerate(whole):
            with torch.inference_mode():
                x = model.embedding(torch.tensor([text]))
                cosines, sines = model.rotary(13, x.device)
                x = x + model.blocks[0](x, cosines, sines)[0]
                x = x + model.blocks[2](x, cosines, sines)[0]
                if held:
                    last = model.routed[1]
                    logits = last.router_logits(x)
                    x, _ = last.processed(
                        x, logits, cosines, sines, torch.arange(9, 13)[None], None
                    )
                same(found[row].logits, model.readout(x)[0, 3:])


def test_errors_say_what_is_expected() -> None:
    routed, plain = model_with(TopK(capacity=0.4)), model_with()
    for decision, words in (
        ("top_k", "not there yet; expected one of predictor, threshold, every_token"),
        ("router", "decision is 'router'; expected one of predictor, threshold, every_token"),
        ("bernoulli", "for a model with depth 'top_k'"),
    ):
        with pytest.raises(ValueError, match=words):
            Engine(routed, decision)
    with pytest.raises(ValueError, match="a cap is given, but the model has no routed block"):
        Engine(plain, cap=CAP)
    with pytest.raises(ValueError, match="the model has no routed block"):
        nominal_share(plain)
    engine = Engine(plain)
    with pytest.raises(ValueError, match="call prefill first"):
        engine.step([1])
    for prompts, words in (
        ([], "no prompts are given"),
        ([[1], []], "prompt 1 is empty"),
        ([[1, 31]], "token id 31 is given; expected ids from 0 to 30"),
        ([[-1]], "token id -1 is given"),
    ):
        with pytest.raises(ValueError, match=words):
            engine.prefill(prompts)
    engine.prefill([[1], [2, 3]])
    with pytest.raises(ValueError, match="1 tokens are given; expected one for each of the 2"):
        engine.step([4])
    with pytest.raises(ValueError, match="token id 99"):
        engine.step([4, 99])
    for sequences in ([], [2], [-1]):
        with pytest.raises(ValueError, match="expected some of 0 to 1"):
            engine.keep(sequences)


def test_training_goes_on_after_generating() -> None:
    model = model_with(LEARNED)
    Engine(model).prefill([[1, 2, 3]])
    model.train()
    tokens = torch.zeros(1, 256, dtype=torch.int64)
    model(tokens).logits.sum().backward()
    assert model.embedding.weight.grad is not None


@pytest.mark.parametrize(
    ("decision", "cap"),
    [("predictor", None), ("threshold", Cap(window=8)), ("router", Cap(window=8))],
)
def test_a_trained_model_decodes_what_it_reads(
    trained: Trained, decision: Decision, cap: Cap | None
) -> None:
    model = trained.model
    whole = [trained.test.tokens[start : start + 61].tolist() for start in (0, 200, 431)]
    prompts = (9, 30, 1)
    turned = 0
    found = decode(Engine(model, decision, cap=cap), whole, prompts)
    for text, prompt, one in zip(whole, prompts, found, strict=True):
        expected, margins = forward(model, text, decision, cap, prompt)
        assert float(margins.min()) > NEAR_TIE, "the text has a tie; take another one"
        assert torch.equal(one.processed, expected.processed)
        same(one.logits, expected.logits)
        turned += int(expected.processed.sum())
    assert 0 < turned < 0.5 * 2 * 3 * 61
