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
    norms, `ones`            one                    1          1/l        0
    key convolution, `zeros` zero                   1          1/l        0

A decay of w undoes the smaller rate, since AdamW multiplies the two. A tied embedding is a head:
otherwise its logits would start at its scale times the square root of the width.

Under Muon an update's spectral norm is to be of one size over width (arXiv 2310.17813), as the
start's is. Orthogonal updates have that of their adjustment, which grows with w^1/2 where it
matches AdamW's root mean square. With a = w^1/2 there, and 1 for the other adjustments:

    group                    rate       decay
    hidden matrices          1/a        a
    outputs into the stream  1/(a l)    a l

What is of one's own has the role that its module says (`variants.Role`), else one by its shape; of
these Muon trains hidden and output matrices, and AdamW stacks of them.

The other groups are AdamW's, as above, at `adamw_rate` times the recipe's rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import nn

from isoflop.config import ModelConfig, Muon, Recipe
from isoflop.model import RoutedBlock, Transformer
from isoflop.variants import Role


@dataclass(frozen=True)
class Group:
    """How one parameter starts and moves, relative to the recipe."""

    initial_std: float | None
    """None where all ones is the start."""
    rate: float
    epsilon: float
    decay: float
    rows: tuple[int, ...] = ()
    """Of each matrix in the parameter, one above the other, where Muon trains it."""

    @property
    def without_start(self) -> Group:
        """How the parameter moves alone."""
        return replace(self, initial_std=None)


def group_of(model: Transformer, recipe: Recipe) -> dict[str, Group]:
    """Return the group of every parameter by name."""
    config = model.config
    w = config.width / recipe.reference_width
    l = config.blocks / recipe.reference_blocks  # noqa: E741 (the papers' letter)
    groups, roles = {}, _roles(model)
    for name, parameter in model.named_parameters():
        owner, leaf = name.split("."), name.split(".")[-2]
        fan_in = parameter.shape[-1] if parameter.dim() else 1
        if owner[0] == "embedding" and not config.tied_embeddings:
            group = Group(recipe.embedding_scale, 1, 1, 0)
        elif owner[0] in ("embedding", "head"):
            group = Group(1 / (recipe.reference_width**0.5 * w), 1 / w, 1, w)
        elif (role := roles.get(name) or _role(leaf, parameter)) == "ones":
            group = Group(None, 1, 1 / l, 0)
        elif role == "zeros":
            group = Group(0.0, 1, 1 / l, 0)
        elif role == "router":
            group = Group(recipe.router_scale / w, recipe.router_rate / w, 1, 0)
        elif role == "output":
            group = Group(fan_in**-0.5 / l, 1 / (w * l), 1 / w, w * l)
        else:
            group = Group(fan_in**-0.5, 1 / w, 1 / (w * l), w)
        if isinstance(recipe.optimiser, Muon):
            rows = _rows(config, leaf, len(parameter))
            if name in roles:
                hidden = role in ("hidden", "output")
                rows = _own_rows(config, recipe.optimiser, name, parameter) if hidden else ()
            group = _under_muon(group, recipe.optimiser, rows, w)
        groups[name] = group
    return groups


def _role(leaf: str, parameter: nn.Parameter) -> Role:
    """Return how a parameter is to be trained, by the module it is in and its shape."""
    if parameter.dim() <= 1:
        return "ones"
    match leaf:
        case "key_convolution":
            return "zeros"
        case "router":
            return "router"
        case "output" | "down":
            return "output"
        case _:
            return "hidden"


def _roles(model: Transformer) -> dict[str, Role]:
    """Return the role of each parameter of one's own."""
    roles: dict[str, Role] = {}
    prefixes = {id(module): name for name, module in model.named_modules()}
    for _, part in model.own:
        said = getattr(part.own, "roles", {})
        own = dict(part.own.named_parameters())
        for name, role in said.items():
            if name in own and role in get_args(Role):
                continue
            wrong = f"has {role!r}" if name in own else f"names {name!r}, no parameter of it"
            known = get_args(Role) if name in own else own
            raise ValueError(
                f"{part.part} {part.kind!r}: roles {wrong}; expected some of {', '.join(known)}"
            )
        for name, parameter in own.items():
            leaf = f".{name}".split(".")[-2]
            roles[f"{prefixes[id(part)]}.own.{name}"] = said.get(name) or _role(leaf, parameter)
    return roles


def _under_muon(group: Group, choice: Muon, rows: tuple[int, ...], w: float) -> Group:
    if not rows:
        return replace(group, rate=group.rate * choice.adamw_rate)
    # AdamW's factors are 1/w and w beside those of depth.
    less = w**0.5 if choice.adjust == "match_rms_adamw" else w
    return replace(group, rate=group.rate * less, decay=group.decay / less, rows=rows)


def _rows(config: ModelConfig, leaf: str, rows: int) -> tuple[int, ...]:
    """Return the rows of each hidden matrix in a parameter; none where it is no such matrix."""
    match leaf:
        case "query_key_value":
            keys = config.key_value_heads * config.head_width
            return config.heads * config.head_width, keys, keys
        case "gate_up":
            return config.hidden, config.hidden
        case "up" | "output" | "down":
            return (rows,)
        case _:
            return ()


def _own_rows(
    config: ModelConfig, choice: Muon, name: str, parameter: nn.Parameter
) -> tuple[int, ...]:
    """Return the rows of each matrix in a hidden parameter of one's own, (A, B) or (E, A, B).

    Projections that are fused go by the names that they have in built-in parts.
    """
    if choice.own == "whole" or parameter.dim() not in (2, 3):
        return (len(parameter),) if parameter.dim() == 2 else ()
    each = parameter.shape[-2]
    match name.removesuffix(".weight").rpartition(".")[2].removeprefix("shared_"):
        case "gate_up":
            rows: tuple[int, ...] = (each // 2, each - each // 2)
        case "query_key_value" as leaf if sum(_rows(config, leaf, each)) == each:
            rows = _rows(config, leaf, each)
        case _:
            rows = (each,)
    return rows if parameter.dim() == 2 else rows * len(parameter)


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


def predictor_parameters(model: Transformer) -> list[nn.Parameter]:
    """Return the parameters of the decision heads, which learn apart from the language model."""
    return [
        parameter
        for block in model.routed
        if isinstance(block, RoutedBlock) and block.predictor is not None
        for parameter in block.predictor.parameters()
    ]
