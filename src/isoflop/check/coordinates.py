"""The coordinate check of the maximal update parametrisation (arXiv 2203.03466, appendix D).

Models of several widths or depths are trained for a few steps at the rates that the recipe gives
them: what that changes of their activations must have one size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import linear_regression

import torch
from torch import Tensor

from isoflop.config import Decision, RunConfig
from isoflop.evaluation import control_noise
from isoflop.model import Transformer, build
from isoflop.training import Trainer, initialise


def activations(model: Transformer, tokens: Tensor) -> dict[str, Tensor]:
    """Return the stream, the logits and, where there are any, router logits for (B, T + 1) ids."""
    with torch.no_grad():
        # What routers select may jump from one step to the next, and activations with it.
        decision: Decision | None = None if model.config.own else "every_token"
        noise = control_noise(model, "top_k", len(tokens), tokens.shape[1] - 1, seed=0)
        stream, routing, _ = model.stream(tokens[:, :-1], decision=decision, noise=noise)
        found = {"stream": stream, "logits": model.readout(stream)}
        if routing:
            found["router"] = torch.stack([decided.logits for decided in routing])
    return found


def changes(config: RunConfig, tokens: Tensor) -> dict[str, float]:
    """Return the root mean square of what a run's steps change in each kind of activation.

    Args:
        config: the run, whose seed keys the start.
        tokens: (B, T + 1) int64, the same at every step, so that what is learned adds up.
    """
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    model.to(tokens.device)
    with torch.no_grad():
        # The random start of a readout adds a part that dies out as width^-1/2 and would hide
        # what is learned at the widths that can be afforded here.
        for weight in (model.head.weight, *(block.router.weight for block in model.routed)):
            weight.zero_()
    before = activations(model, tokens)
    trainer = Trainer(model, config, compiled=False)
    for index in range(config.steps):
        if not trainer.step(tokens, index, 1.0).finite:
            raise FloatingPointError(f"step {index} at width {config.model.width} is not finite")
    after = activations(model, tokens)
    return {name: float((after[name] - before[name]).square().mean().sqrt()) for name in before}


def slopes(
    sizes: Sequence[int], seeds: int, measure: Callable[[int, int], dict[str, float]]
) -> dict[str, float]:
    """Return the exponent of size in each change that `measure` gives of a size and a seed."""
    x = [math.log(size) for size in sizes for _ in range(seeds)]
    rows = [measure(size, seed) for size in sizes for seed in range(seeds)]
    logs = {name: [math.log(row[name]) for row in rows] for name in rows[0]}
    return {name: linear_regression(x, y).slope for name, y in logs.items()}
