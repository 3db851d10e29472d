"""Micro-batches, recomputing and chunks of logits learn what the plain step does."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from test_choices import IN_PAIRS, Combination, run_of
from torch import Tensor

from isoflop.config import (
    AdamW,
    BlockAttention,
    EveryToken,
    FullAttention,
    RandomK,
    Recipe,
    Recompute,
    RunConfig,
    SwiGlu,
    TopK,
)
from isoflop.model import build
from isoflop.ops import LOGITS_AT_A_TIME
from isoflop.training import Trainer, initialise

SEQUENCES = 4
CLOSE = 1e-6
TEN_TOKENS = 31 * 10


def trainer_of(config: RunConfig, **how: Any) -> Trainer:
    """Return a trainer whose weights are nowhere at a special point."""
    model = build(config.model)
    initialise(model, config.recipe, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return Trainer(model, config, compiled=False, **how)


def four(combination: Combination) -> RunConfig:
    return run_of(combination).model_copy(update={"sequences_per_step": SEQUENCES})


def batch(index: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    return torch.randint(31, (SEQUENCES, 14), generator=generator)


def learned(trainer: Trainer) -> tuple[Tensor, dict[str, Tensor]]:
    """What a batch measures, and the gradient of each parameter."""
    found = trainer.gradients(batch(), 0)
    gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(trainer.model.parameters()))
    return torch.cat([found.values, found.smallest]), gradients


def assert_close(
    found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]], how: str
) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=CLOSE, atol=CLOSE)
    whole = float(torch.cat([g.double().flatten() for g in expected[1].values()]).norm())
    for name, gradient in expected[1].items():
        apart = float((found[1][name].double() - gradient.double()).norm())
        # Gradients of scales are small sums of large terms, whose roundoff is that of the whole.
        rounding = torch.finfo(torch.float32).eps * whole
        assert apart <= CLOSE * float(gradient.double().norm()) + rounding, f"{name}, {how}"


@IN_PAIRS
def test_a_step_held_otherwise_learns_the_same(combination: Combination) -> None:
    config = four(combination)
    plain = learned(trainer_of(config))
    # Four parts; two unequal ones; chunks of which the last is smaller.
    for how in ({"micro_batch": 1}, {"micro_batch": 3}, {"logits": TEN_TOKENS}):
        assert_close(learned(trainer_of(config, **how)), plain, str(how))
    for kind in ("selective", "full"):
        found, gradients = learned(trainer_of(config, recompute=kind))
        assert torch.equal(found, plain[0])
        for name, expected in plain[1].items():
            assert torch.equal(gradients[name], expected), f"{name}, {kind}"


class Trained:
    """What two clipped steps were taken by, and where they led."""

    def __init__(self, config: RunConfig, **how: Any) -> None:
        self.trainer = trainer_of(config, **how)
        optimiser, named = self.trainer.optimiser, dict(self.trainer.model.named_parameters())
        start = {name: parameter.detach().clone() for name, parameter in named.items()}
        self.clipped: list[dict[str, Tensor]] = []
        optimiser.parts[0].register_step_pre_hook(
            lambda *_: self.clipped.append({n: p.grad.clone() for n, p in named.items()})
        )
        for index in (0, 1):
            self.measured = self.trainer.step(batch(index), index, 0.5 + 0.5 * index)
            assert self.measured.gradient_norm > 10 * config.recipe.gradient_clip
        self.state = self.trainer.model.state_dict()
        self.update = {name: self.state[name] - start[name] for name in named}
        self.groups = [{**g, "params": len(g["params"])} for g in optimiser.groups]


@pytest.mark.parametrize(
    "kinds",
    [
        (FullAttention, EveryToken),
        (FullAttention, TopK),
        (FullAttention, RandomK),
        (BlockAttention, EveryToken),
    ],
    ids=["dense", "top_k", "random_k", "block attention"],
)
def test_clipped_updates_are_the_same_however_a_step_is_held(kinds: tuple[type, type]) -> None:
    config = four((*kinds, SwiGlu, {}))
    # With its usual epsilon, Adam moves by a gradient's sign, which roundoff decides around zero.
    recipe = Recipe(precision="fp32", gradient_clip=0.05, optimiser=AdamW(epsilon=1e-3))
    model = config.model.model_copy(update={"blocks": 2})
    config = config.model_copy(update={"recipe": recipe, "model": model})
    plain = Trained(config)
    assert len({group["lr"] for group in plain.groups}) > 2
    for micro_batch, logits in ((None, LOGITS_AT_A_TIME), (1, LOGITS_AT_A_TIME), (3, TEN_TOKENS)):
        ways = [
            Trained(config, micro_batch=micro_batch, logits=logits, recompute=kind)
            for kind in get_args(Recompute)
        ]
        first, how = ways[0], f"{micro_batch=} {logits=}"
        if (micro_batch, logits) == (None, LOGITS_AT_A_TIME):
            ways.append(plain)
        # To the bit where blocks compute again.
        for other in ways[1:]:
            assert other.measured._values == first.measured._values, how
            for name, value in first.state.items():
                assert torch.equal(other.state[name], value), f"{name}, {how}"
        assert first.groups == plain.groups
        told, expected = (one.measured._measured for one in (first, plain))
        for found, wanted in zip(first.clipped, plain.clipped, strict=True):
            assert_close((told, found), (expected, wanted), how)
        for name, moved in plain.update.items():
            rounding = torch.finfo(torch.float32).eps * float(first.state[name].norm())
            apart = float((first.update[name] - moved).norm())
            assert apart <= CLOSE * float(moved.norm()) + rounding, f"{name}, {how}"
