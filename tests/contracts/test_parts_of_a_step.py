"""Micro-batches, recomputing and chunks of logits learn what the plain step does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_choices import IN_PAIRS, Combination, run_of
from torch import Tensor

from isoflop.config import Recompute, RunConfig
from isoflop.model import build
from isoflop.training import Trainer, initialise

SEQUENCES = 5
CLOSE = 1e-6


def trainer_of(config: RunConfig, **how: Any) -> Trainer:
    """Return a trainer whose weights are nowhere at a special point."""
    model = build(config.model)
    initialise(model, config.recipe, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return Trainer(model, config, compiled=False, **how)


def five(combination: Combination) -> RunConfig:
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
def test_micro_batches_learn_what_the_whole_step_does(combination: Combination) -> None:
    config = five(combination)
    plain = learned(trainer_of(config))
    # Five parts, three unequal, two unequal, and one.
    for count in (1, 2, 3, SEQUENCES):
        assert_close(learned(trainer_of(config, micro_batch=count)), plain, f"{count} at a time")


@IN_PAIRS
@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recomputing_gives_the_same_bits(combination: Combination, kind: Recompute) -> None:
    config = five(combination)
    told, gradients = learned(trainer_of(config))
    found, again = learned(trainer_of(config, recompute=kind))
    assert torch.equal(found, told)
    for name, expected in gradients.items():
        assert torch.equal(again[name], expected), name


@IN_PAIRS
def test_chunks_of_logits_learn_what_whole_logits_do(combination: Combination) -> None:
    config = five(combination)
    plain = learned(trainer_of(config))
    # Chunks of 7 tokens, of which the last is partial.
    assert_close(learned(trainer_of(config, logits=31 * 7)), plain, "7 tokens at a time")
