"""Continuations: seeds, ends, and a stream that tells the same as the whole."""

from __future__ import annotations

import pytest
import torch

from decoded import model_with, texts
from isoflop.config import BlockAttention, RandomK, TopK
from isoflop.generation import Continuation, Engine, Sampling, generate, stream

WARM = Sampling(temperature=1.5, top_k=20, top_p=0.95, min_p=0.01)
ROUTED = TopK(capacity=0.4)


def test_greedy_takes_what_the_forward_pass_finds_likeliest() -> None:
    model = model_with(ROUTED)
    prompts = texts((5, 8, 1))
    for prompt, found in zip(prompts, generate(Engine(model), prompts, max_tokens=9), strict=True):
        text = list(prompt)
        with torch.inference_mode():
            for _ in range(9):
                text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
            routing = model(torch.tensor([text[:-1]])).routing
        assert list(found.ids) == text[len(prompt) :]
        assert found.reason == "length"
        # A token's decisions are those at its own position; the last is not run.
        assert found.tokens[-1].processed is None
        decided = torch.stack([one.selected[0, len(prompt) :] for one in routing])
        assert [token.processed for token in found.tokens[:-1]] == [
            tuple(one) for one in decided.T.tolist()
        ]


@pytest.mark.parametrize(
    ("sampling", "depth"),
    [(WARM, None), (Sampling(), ROUTED), (WARM, RandomK(capacity=0.4))],
    ids=["every token", "routed", "random control"],
)
def test_a_seed_gives_the_same_text_alone_and_in_a_batch(sampling: Sampling, depth: object) -> None:
    model = model_with(depth, attention=BlockAttention(block_size=4, top_k=2))
    prompts = texts((5, 8, 1, 5))
    engine = Engine(model)
    together = generate(engine, prompts, sampling, max_tokens=11, seed=40)
    assert together == generate(engine, prompts, sampling, max_tokens=11, seed=40)
    for number, prompt in enumerate(prompts):
        (alone,) = generate(engine, [prompt], sampling, max_tokens=11, seed=40 + number)
        assert alone.ids == together[number].ids
        assert [one.processed for one in alone.tokens] == [
            one.processed for one in together[number].tokens
        ]
    other = generate(engine, prompts, sampling, max_tokens=11, seed=90)
    assert all(a.ids != b.ids for a, b in zip(together, other, strict=True))


def test_the_stream_is_the_whole_and_ends_at_stop_ids() -> None:
    model = model_with(ROUTED)
    prompts = texts((5, 8, 1))
    free = generate(Engine(model), prompts, WARM, max_tokens=30, seed=3)
    stop = {free[1].ids[4], free[2].ids[7]}
    engine = Engine(model)
    steps = list(stream(engine, prompts, WARM, max_tokens=30, stop=stop, seed=3))
    found = generate(Engine(model), prompts, WARM, max_tokens=30, stop=stop, seed=3)
    assert [
        Continuation(tuple(token for step in steps for token in step if token.sequence == number))
        for number in range(3)
    ] == found
    for number, (one, whole) in enumerate(zip(found, free, strict=True)):
        ends = [place for place, token in enumerate(whole.ids) if token in stop]
        length = ends[0] + 1 if ends else 30
        assert one.ids == whole.ids[:length]
        assert one.reason == ("stop" if ends else "length")
        assert all(token.sequence == number for token in one.tokens)
        assert [token.reason is None for token in one.tokens] == [True] * (length - 1) + [False]
        assert one.tokens[-1].processed is None
    # However many may be drawn, room is made for what is.
    endless = stream(Engine(model), prompts, WARM, max_tokens=10**13, seed=3)
    assert [token.id for token in next(endless)] == [whole.ids[0] for whole in free]
    lengths = [len(one.ids) for one in found]
    assert len(set(lengths)) > 1
    # Sequences that have ended are no longer run.
    assert [len(step) for step in steps] == [
        sum(length > step for length in lengths) for step in range(max(lengths))
    ]
    # A last token is not run, so that no step is wasted.
    assert max(engine.lengths) <= max(
        len(prompt) + length - 1 for prompt, length in zip(prompts, lengths, strict=True)
    )


def test_bad_arguments_are_refused_before_anything_runs() -> None:
    engine = Engine(model_with())
    for arguments, words in (
        ({"max_tokens": 0}, "max_tokens is 0; expected at least 1"),
        ({"max_tokens": 3, "stop": [31]}, "stop id 31 is given; expected ids from 0 to 30"),
    ):
        with pytest.raises(ValueError, match=words):
            stream(engine, [[1]], **arguments)
        assert engine.lengths == []
    with pytest.raises(ValueError, match="no prompts are given"):
        generate(engine, [], max_tokens=3)
