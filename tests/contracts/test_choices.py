"""Every combination of choices builds, trains, evaluates, costs what it says and round-trips.

Every two of them are saved and generate, and with the slow tests every combination does too. The
choices are read off the unions in `config`, so a new member is walked without being named.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any, get_args

import pytest
import torch

from isoflop.config import (
    Attention,
    BlockAttention,
    Depth,
    FeedForward,
    FullAttention,
    ModelConfig,
    Own,
    Recipe,
    Routed,
    RunConfig,
    canonical,
    decisions,
)
from isoflop.costs import forward_flops, parameters
from isoflop.evaluation import control_noise
from isoflop.generation import Engine
from isoflop.model import build
from isoflop.training import Trainer, initialise


def members(choice: Any) -> list[type]:
    """Classes of a discriminated union, but for what comes through the door."""
    tagged = [get_args(one)[0] for one in get_args(get_args(choice)[0])]
    return [one for one in tagged if one is not Own]


def made(kind: type) -> Any:
    if issubclass(kind, BlockAttention):
        return kind(block_size=3, top_k=2, full_last=1, key_convolution=3)
    return kind(capacity=0.4) if issubclass(kind, Routed) else kind()


SWITCHES = [
    {},
    {"kv_heads": 2},
    {"query_key_norm": True},
    {"tied_embeddings": True},
    {"kv_heads": 1, "query_key_norm": True, "tied_embeddings": True},
]
Combination = tuple[type, type, type, dict[str, Any]]
COMBINATIONS: list[Combination] = list(
    product(members(Attention), members(Depth), members(FeedForward), SWITCHES)
)


def name_of(combination: Combination) -> str:
    *kinds, switches = combination
    settings = [f"{key}={value}" for key, value in switches.items()] or ["plain"]
    return "-".join([made(kind).kind for kind in kinds] + settings)


def pairs(combination: Combination) -> set[Any]:
    """Every two of its choices."""
    return set(combinations(enumerate(map(str, combination)), 2))


def covering() -> list[Combination]:
    """Few combinations, found greedily, that hold every two choices of different kinds."""
    left, kept = set().union(*map(pairs, COMBINATIONS)), []
    while left:
        kept.append(max(COMBINATIONS, key=lambda one: len(pairs(one) & left)))
        left -= pairs(kept[-1])
    return kept


WALKED = pytest.mark.parametrize("combination", COMBINATIONS, ids=name_of)
IN_PAIRS = pytest.mark.parametrize(
    "combination",
    [
        pytest.param(one, id=name_of(one), marks=() if quick else pytest.mark.slow)
        for covered in [covering()]
        for one in COMBINATIONS
        for quick in [one in covered]
    ],
)


def run_of(combination: Combination) -> RunConfig:
    attention, depth, feed_forward, switches = combination
    return RunConfig(
        model=ModelConfig(
            vocabulary=31,
            width=22,
            blocks=3,
            heads=4,
            head_width=6,
            hidden=26,
            attention=made(attention),
            depth=made(depth),
            feed_forward=made(feed_forward),
            **switches,
        ),
        recipe=Recipe(precision="fp32"),
        steps=1,
        sequences_per_step=3,
    )


def test_the_walk_sees_every_choice() -> None:
    assert FullAttention in members(Attention)
    assert {
        kind().kind if kind.__name__ == "EveryToken" else made(kind).kind for kind in members(Depth)
    } >= {"every_token", "top_k", "random_k"}
    assert {kind().kind for kind in members(FeedForward)} >= {"swiglu", "gelu"}


@WALKED
def test_any_combination(combination: Combination) -> None:
    config = run_of(combination)
    again = RunConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert again.run_id == config.run_id
    assert RunConfig.model_validate(canonical(config)) == config

    model = build(config.model, seed=0)
    assert parameters(config.model).total == sum(p.numel() for p in model.parameters())
    assert forward_flops(config.model, 13, "causal").total > 0
    initialise(model, config.recipe, seed=0)
    generator = torch.Generator().manual_seed(1)
    # No head or norm is left at a special point that would stop a gradient.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    trainer = Trainer(model, config, compiled=False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    reached = {}

    def look(*_: Any) -> None:
        reached.update({name: p.grad for name, p in model.named_parameters()})

    trainer.optimiser.parts[0].register_step_pre_hook(look)
    tokens = torch.randint(31, (3, 14), generator=generator)
    result = trainer.step(tokens, 0, 1.0)
    assert result.finite
    for name, parameter in model.named_parameters():
        gradient = reached[name]
        assert gradient is not None, name
        assert bool(gradient.isfinite().all()), name
        assert bool(gradient.any()), name
        assert bool(parameter.isfinite().all()), name
        assert not torch.equal(parameter, before[name]), name

    model.eval()
    with torch.no_grad():
        for decision in decisions(config.model.depth):
            output = model(tokens[:, :-1], decision=decision)
            assert output.logits.shape == (3, 13, 31)
            assert bool(output.logits.isfinite().all())
            assert len(output.routing) == len(config.model.routed_blocks)
            if decision == "top_k":
                for decided in output.routing:
                    assert decided.selected.sum(1).tolist() == [5, 5, 5]


@IN_PAIRS
def test_saved_weights_give_the_same_model(combination: Combination) -> None:
    config = run_of(combination).model
    first, second = build(config, seed=0), build(config, seed=1)
    second.load_state_dict(first.state_dict())
    tokens = torch.randint(31, (2, 13), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for decision in decisions(config.depth):
            torch.manual_seed(3)
            expected = first(tokens, decision=decision).logits
            torch.manual_seed(3)
            assert torch.equal(second(tokens, decision=decision).logits, expected)


@IN_PAIRS
def test_decoding_gives_the_forward_pass(combination: Combination) -> None:
    config = run_of(combination).model
    model = build(config, seed=0).eval()
    tokens = torch.randint(31, (2, 13), generator=torch.Generator().manual_seed(2))
    for decision in decisions(config.depth):
        if decision == "top_k":
            continue
        noise = control_noise(model, decision, 2, 13, seed=5)
        with torch.inference_mode():
            expected = model(tokens, decision=decision, noise=noise).logits
        engine = Engine(model, decision, seed=5)
        logits = [engine.prefill(tokens[:, :4].tolist())]
        logits += [engine.step(tokens[:, t].tolist()) for t in range(4, 13)]
        found = torch.stack(logits, dim=1)
        assert float((found - expected[:, 3:]).abs().max()) <= 1e-5 * float(expected.abs().max())
