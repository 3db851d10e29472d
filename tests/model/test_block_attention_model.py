"""Block attention inside the model: which blocks use it, what it composes with, when it turns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from given import RECIPE, small_model
from isoflop.config import BlockAttention, ModelConfig, RunConfig, TopK
from isoflop.model import Transformer, build
from isoflop.model.layers import KeyConvolution
from isoflop.training import Trainer, initialise

LENGTH = 29


def config(**choices: object) -> ModelConfig:
    shape = {"vocabulary": 31, "width": 10, "blocks": 4, "heads": 4, "kv_heads": 2}
    return small_model(**shape, head_width=6, hidden=14, **choices)


def token_ids() -> Tensor:
    return torch.randint(31, (3, LENGTH), generator=torch.Generator().manual_seed(5))


def logits(model: Transformer, tokens: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        result: Tensor = model.eval()(token_ids() if tokens is None else tokens).logits
    return result


def with_weights_of(other: Transformer, attention: object) -> Transformer:
    model = build(other.config.model_copy(update={"attention": attention}))
    model.load_state_dict(other.state_dict())
    return model


def test_weights_are_those_of_the_full_model() -> None:
    full = build(config(), seed=0)
    few = with_weights_of(full, BlockAttention(block_size=4, top_k=2))
    every = with_weights_of(full, BlockAttention(block_size=4, top_k=8))
    assert float((logits(few) - logits(full)).abs().max()) > 1e-2
    assert torch.equal(logits(every), logits(full))
    # Nothing is left out of the first two blocks.
    torch.testing.assert_close(logits(few)[:, :8], logits(full)[:, :8])


@pytest.mark.parametrize("last", [0, 1, 3, 4])
def test_the_last_blocks_attend_fully(last: int) -> None:
    full = build(config(), seed=0)
    model = with_weights_of(full, BlockAttention(block_size=4, top_k=2, full_last=last))
    assert [block.attention.full for block in model.blocks] == [False] * (4 - last) + [True] * last
    assert torch.equal(logits(model), logits(full)) == (last == 4)


def test_a_model_may_turn_to_full_attention_and_back() -> None:
    full = build(config(), seed=0)
    model = with_weights_of(full, BlockAttention(block_size=4, top_k=2, full_last=1))
    before = logits(model)
    model.attend_fully(True)
    assert torch.equal(logits(model), logits(full))
    model.attend_fully(False)
    assert torch.equal(logits(model), before)
    # One that turns during training is full when it is loaded afterwards.
    finished = with_weights_of(full, BlockAttention(block_size=4, top_k=2, full_from=0.9))
    assert torch.equal(logits(finished), logits(full))


def test_training_turns_at_the_fraction_given() -> None:
    run = RunConfig(
        model=config(attention=BlockAttention(block_size=4, top_k=2, full_from=0.6)),
        recipe=RECIPE,
        steps=5,
        sequences_per_step=3,
    )
    model = build(run.model)
    initialise(model, run.recipe, seed=0)
    trainer = Trainer(model, run, compiled=False)
    seen = []
    for step in range(5):
        trainer.step(token_ids(), step, 1.0)
        seen.append(model.blocks[0].attention.full)
    assert seen == [False, False, False, True, True]
    # Resuming before the turn goes back to blocks.
    trainer.step(token_ids(), 2, 1.0)
    assert not model.blocks[0].attention.full


def test_blocks_of_a_routed_block_are_made_of_the_selected_tokens() -> None:
    depth = TopK(capacity=0.6, every=2)
    attention = BlockAttention(block_size=3, top_k=2)
    model = build(config(depth=depth, attention=attention), seed=0)
    with torch.no_grad():
        for block in model.routed:
            block.router.weight.normal_(generator=torch.Generator().manual_seed(1))
    routed = model.routed[0]
    x = torch.randn(3, LENGTH, 10, generator=torch.Generator().manual_seed(2))
    cosines, sines = model.rotary(LENGTH, x.device)
    with torch.no_grad():
        after, decided = routed(x, cosines, sines, "top_k", None)
        for row in range(3):
            kept = decided.selected[row].nonzero().squeeze(1)
            assert len(kept) == 17
            alone = routed.block(x[row, kept][None], cosines[kept][None], sines[kept][None])[0][0]
            expected = x[row].clone()
            expected[kept] += decided.logits[row, kept, None] * alone
            torch.testing.assert_close(after[row], expected)


@pytest.mark.parametrize("depth", [{"kind": "every_token"}, TopK(capacity=0.6, every=2)])
def test_the_future_does_not_reach_the_past(depth: object) -> None:
    attention = BlockAttention(block_size=3, top_k=2, key_convolution=3)
    model = build(config(depth=depth, attention=attention, query_key_norm=True), seed=0).double()
    tokens, changed = token_ids(), token_ids()
    changed[:, 17:] = (changed[:, 17:] + 7) % 31
    before, after = logits(model, tokens), logits(model, changed)
    torch.testing.assert_close(before[:, :17], after[:, :17], rtol=1e-10, atol=1e-10)
    assert float((before[:, 17:] - after[:, 17:]).abs().min(1).values.max()) > 1e-3


def test_key_convolution_written_out() -> None:
    convolution = KeyConvolution(3, 12)
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(2, 7, 2, 6, generator=generator)
    # It starts as the identity.
    assert torch.equal(convolution(keys), keys)
    with torch.no_grad():
        convolution.weight.normal_(generator=generator)
    result = convolution(keys)
    weight = convolution.weight.detach().view(2, 6, 3)
    for t in range(7):
        mixed = sum(weight[..., i] * keys[:, t - i] for i in range(3) if t >= i)
        torch.testing.assert_close(result[:, t], keys[:, t] + F.silu(mixed))
