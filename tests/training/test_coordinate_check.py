"""The parametrisation transfers: what a few steps change has one size at every width and depth.

The change must neither grow nor shrink with width, nor with depth (`isoflop.check.coordinates`).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from given import RECIPE
from isoflop.check.coordinates import activations, changes, slopes
from isoflop.config import (
    AdamW,
    Depth,
    EveryToken,
    ModelConfig,
    Muon,
    Optimiser,
    Recipe,
    RunConfig,
    TopK,
)
from isoflop.config.own import own
from isoflop.model import Transformer, build
from isoflop.training import initialise
from isoflop.training.optimisation import optimiser as module
from isoflop.training.optimisation.parametrisation import Group, group_of

WIDTHS = (32, 256)
DEPTHS = (2, 16)
"""The ends alone: sizes between them hardly narrow the spread of an exponent."""
STEPS, SEEDS = 4, 4
SLOPE = 0.25
"""Largest exponent of width or depth that counts as none."""
ROUTER_SLOPE = 0.4
"""The same for router logits over width, whose exponent is noisy: over four seeds it is -0.07 with
a spread of 0.14, and 0.86 with 0.12 where the rate is not scaled (16 times four seeds each)."""
DEPTH_GROWTH = 0.1
"""Largest exponent by which the stream may grow with depth."""

ADAMW = AdamW()
PINNED = RECIPE.model_copy(
    update={
        "learning_rate": 2e-3,
        "reference_width": 64,
        "reference_blocks": 4,
        "warmup_fraction": 0.0,
        "final_fraction": 1.0,
    }
)


def tokens() -> Tensor:
    """One sequence, the same at every step, so that what is learned adds up."""
    return torch.randint(64, (1, 13), generator=torch.Generator().manual_seed(9))


def configuration(
    width: int, blocks: int, depth: Depth, seed: int, optimiser: Optimiser = ADAMW
) -> RunConfig:
    return RunConfig(
        model=ModelConfig(
            vocabulary=64,
            width=width,
            blocks=blocks,
            heads=width // 16,
            head_width=16,
            hidden=2 * width,
            depth=depth,
        ),
        recipe=PINNED.model_copy(update={"optimiser": optimiser}),
        steps=STEPS,
        sequences_per_step=1,
        seed=seed,
    )


def changed(
    width: int, blocks: int, depth: Depth, seed: int, optimiser: Optimiser
) -> dict[str, float]:
    return changes(configuration(width, blocks, depth, seed, optimiser), tokens())


def over_width(depth: Depth, optimiser: Optimiser = ADAMW) -> dict[str, float]:
    # Orthogonal updates cost as the cube of width.
    widths = WIDTHS if isinstance(optimiser, AdamW) else (32, 128)
    return slopes(widths, SEEDS, lambda width, seed: changed(width, 4, depth, seed, optimiser))


def over_depth(depth: Depth, optimiser: Optimiser = ADAMW) -> dict[str, float]:
    return slopes(DEPTHS, SEEDS, lambda blocks, seed: changed(64, blocks, depth, seed, optimiser))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# A gate that starts at one, so that routers get a gradient of one direction from the start: under
# the linear gate a few steps change them so little that a wrong rate does not show.
ROUTED = TopK(capacity=0.5, gate="tanh")
MUONS = (Muon(), Muon(adjust="spectral"))
CHOICES = [
    (EveryToken(), ADAMW),
    *((ROUTED, one) for one in (ADAMW, MUONS[0])),
    # Every second block of a routed model is a plain one, whose matrices Muon moves alike.
    *(pytest.param(EveryToken(), one, marks=pytest.mark.slow) for one in MUONS),
    pytest.param(ROUTED, MUONS[1], marks=pytest.mark.slow),
]


def called(one: Depth | Optimiser) -> str:
    return getattr(one, "adjust", one.kind)


@pytest.mark.parametrize(("depth", "optimiser"), CHOICES, ids=called)
def test_changes_do_not_depend_on_width(depth: Depth, optimiser: Optimiser) -> None:
    found = over_width(depth, optimiser)
    assert max(abs(found["stream"]), abs(found["logits"])) < SLOPE, found
    assert abs(found.get("router", 0.0)) < ROUTER_SLOPE, found


@pytest.mark.parametrize(("depth", "optimiser"), CHOICES, ids=called)
def test_changes_do_not_depend_on_depth(depth: Depth, optimiser: Optimiser) -> None:
    found = over_depth(depth, optimiser)
    # Random updates at the start add up to less in deep models (see below), so that the stream,
    # and the router that reads it raw, shrink a little towards what the embedding alone gives.
    assert -SLOPE < found["stream"] < DEPTH_GROWTH, found
    assert abs(found["logits"]) < SLOPE, found
    assert -2 * SLOPE < found.get("router", 0.0) < DEPTH_GROWTH, found


@pytest.mark.slow
def test_experts_under_muon_change_alike_at_every_size() -> None:
    # Of fewer than all experts deep blocks choose ever others, and their updates add up less.
    part = own("feed_forward", "mixture_of_experts", {"experts": 4, "top_k": 4, "hidden": 0.5})

    def measure(width: int, blocks: int, seed: int) -> dict[str, float]:
        run = configuration(width, blocks, EveryToken(), seed, Muon(own="each"))
        model = run.model.model_copy(update={"feed_forward": part})
        return changes(run.model_copy(update={"model": model}), tokens())

    over_width = slopes((32, 128), SEEDS, lambda width, seed: measure(width, 4, seed))
    over_depth = slopes(DEPTHS, SEEDS, lambda blocks, seed: measure(64, blocks, seed))
    for found in (over_width, over_depth):
        assert -SLOPE < found["stream"] < DEPTH_GROWTH, found
        assert abs(found["logits"]) < SLOPE, found


def test_the_check_catches_the_standard_parametrisation(monkeypatch: pytest.MonkeyPatch) -> None:
    def standard(model: Transformer, recipe: Recipe) -> dict[str, Group]:
        groups = {
            name: Group(g.initial_std, 1, 1, 1) for name, g in group_of(model, recipe).items()
        }
        for name, parameter in model.named_parameters():
            if name.startswith("blocks") and parameter.dim() == 2:
                groups[name] = Group(parameter.shape[1] ** -0.5, 1, 1, 1)
        return groups

    monkeypatch.setattr(module, "group_of", standard)
    found = over_width(EveryToken())
    assert min(found["logits"], found["stream"]) > 1.5 * SLOPE, found
    found = over_depth(EveryToken())
    assert found["stream"] > 1.5 * DEPTH_GROWTH, found


def test_the_check_catches_rates_of_muon_that_ignore_width(monkeypatch: pytest.MonkeyPatch) -> None:
    def unscaled(model: Transformer, recipe: Recipe) -> dict[str, Group]:
        wider = (model.config.width / recipe.reference_width) ** 0.5
        groups = group_of(model, recipe)
        return {n: replace(g, rate=g.rate * wider) if g.rows else g for n, g in groups.items()}

    monkeypatch.setattr(module, "group_of", unscaled)
    assert over_width(EveryToken(), Muon())["stream"] > SLOPE


def test_the_check_catches_a_router_rate_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def unscaled(model: Transformer, recipe: Recipe) -> dict[str, Group]:
        groups = group_of(model, recipe)
        routers = {name: g for name, g in groups.items() if ".router." in name}
        return groups | {name: replace(g, rate=1) for name, g in routers.items()}

    monkeypatch.setattr(module, "group_of", unscaled)
    assert over_width(ROUTED)["router"] > ROUTER_SLOPE


def test_the_check_catches_block_outputs_that_ignore_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    def unscaled(model: Transformer, recipe: Recipe) -> dict[str, Group]:
        groups = group_of(model, recipe)
        deep = model.config.blocks / recipe.reference_blocks
        outputs = {n: g for n, g in groups.items() if n.endswith(("output.weight", "down.weight"))}
        return groups | {name: replace(g, rate=g.rate * deep) for name, g in outputs.items()}

    monkeypatch.setattr(module, "group_of", unscaled)
    assert over_depth(EveryToken())["stream"] > 1.5 * DEPTH_GROWTH


def test_the_start_does_not_grow_with_width_or_depth() -> None:
    """The stream starts at one size; logits start ever smaller, at one over the root of width."""

    def starts(width: int, blocks: int, seed: int) -> dict[str, float]:
        config = configuration(width, blocks, TopK(capacity=0.5, every=1, gate="tanh"), seed)
        model = build(config.model)
        initialise(model, config.recipe, seed)
        return {k: float(x.square().mean().sqrt()) for k, x in activations(model, tokens()).items()}

    found = slopes(WIDTHS, SEEDS, lambda width, seed: starts(width, 4, seed))
    assert abs(found["stream"]) < 0.1
    assert abs(found["logits"] + 0.5) < 0.1
    assert abs(found["router"] + 0.5) < 0.2
    found = slopes(DEPTHS, SEEDS, lambda blocks, seed: starts(64, blocks, seed))
    # The random updates of the blocks add up to ever less; the embedding stays.
    assert -0.5 < found["stream"] < 0.1
