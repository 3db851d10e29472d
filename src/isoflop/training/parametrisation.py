"""Initialisation and rates per parameter group, so that a recipe transfers over width and depth.

The maximal update parametrisation (arXiv 2203.03466) with the depth rule of CompleteP (arXiv
2505.01618), by groups only: what these put into the forward pass as a multiplier is folded into
the weights, which Adam allows, so the model stays a plain Llama. With w = width / reference_width
and l = blocks / reference_blocks, relative to the recipe's rates:

    group                    initial std            rate       epsilon    decay
    embedding                embedding_scale        1          1          0
    hidden matrices          fan_in^-1/2            1/w        1/(w l)    w
    outputs into the stream  fan_in^-1/2 / l        1/(w l)    1/w        w l
    head                     (reference_width^1/2 * w)^-1   1/w   1       w
    router                   router_scale / w       1/w        1          0
    norms                    one                    1          1/l        0
    key convolution          zero                   1          1/l        0

A decay of w undoes the smaller rate, since AdamW multiplies the two. A tied embedding is a head:
otherwise its logits would start at its scale times the square root of the width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from isoflop.config import Recipe
from isoflop.model import RoutedBlock, Transformer


@dataclass(frozen=True)
class Group:
    """How one parameter starts and moves, relative to the recipe."""

    initial_std: float | None
    """None where all ones is the start."""
    rate: float
    epsilon: float
    decay: float


def group_of(model: Transformer, recipe: Recipe) -> dict[str, Group]:
    """Return the group of every parameter by name."""
    config = model.config
    w = config.width / recipe.reference_width
    l = config.blocks / recipe.reference_blocks  # noqa: E741 (the papers' letter)
    groups = {}
    for name, parameter in model.named_parameters():
        owner, leaf = name.split("."), name.split(".")[-2]
        fan_in = parameter.shape[-1]
        if owner[0] == "embedding" and not config.tied_embeddings:
            group = Group(recipe.embedding_scale, 1, 1, 0)
        elif owner[0] in ("embedding", "head"):
            group = Group(1 / (recipe.reference_width**0.5 * w), 1 / w, 1, w)
        elif parameter.dim() == 1:
            group = Group(None, 1, 1 / l, 0)
        elif leaf == "key_convolution":
            group = Group(0.0, 1, 1 / l, 0)
        elif leaf == "router":
            group = Group(recipe.router_scale / w, recipe.router_rate / w, 1, 0)
        elif leaf in ("output", "down"):
            group = Group(fan_in**-0.5 / l, 1 / (w * l), 1 / w, w * l)
        else:
            group = Group(fan_in**-0.5, 1 / w, 1 / (w * l), w)
        groups[name] = group
    return groups


def initialise(model: Transformer, recipe: Recipe, seed: int) -> None:
    """Set every parameter of `model` to its start, keyed by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    groups = group_of(model, recipe)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = groups[name].initial_std
            if std is None:
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def optimiser(model: Transformer, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over groups of equal rates; `peak` in each group is its peak rate."""
    together: dict[Group, list[nn.Parameter]] = {}
    groups = group_of(model, recipe)
    for name, parameter in model.named_parameters():
        group = groups[name]
        key = Group(None, group.rate, group.epsilon, group.decay)
        together.setdefault(key, []).append(parameter)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": recipe.learning_rate * group.rate,
            "peak": recipe.learning_rate * group.rate,
            "eps": recipe.epsilon * group.epsilon,
            "weight_decay": recipe.weight_decay * group.decay,
        }
        for group, parameters in together.items()
    ]
    return torch.optim.AdamW(settings, betas=(recipe.beta1, recipe.beta2), fused=True)


def predictor_parameters(model: Transformer) -> list[nn.Parameter]:
    """Return the parameters of the decision heads, which learn apart from the language model."""
    return [
        parameter
        for block in model.routed
        if isinstance(block, RoutedBlock) and block.predictor is not None
        for parameter in block.predictor.parameters()
    ]
