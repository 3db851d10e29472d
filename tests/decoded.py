"""Small models that route some tokens and not others, and what decoding given texts gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isoflop.config import Cap, Decision, EveryToken, ModelConfig
from isoflop.evaluation import control_noise
from isoflop.generation import Engine
from isoflop.model import Transformer, build

VOCABULARY = 31
TOTALS, PROMPTS = (29, 17, 23), (7, 12, 1)
"""Lengths of three texts, and of their beginnings that come as prompts."""
TOLERANCE = 1e-5
"""Of logits, relative to the largest."""


def model_with(depth: object = None, seed: int = 0, **choices: object) -> Transformer:
    """Return a model whose routers, predictors and convolutions do something."""
    shape = {"vocabulary": VOCABULARY, "width": 22, "blocks": 4, "heads": 4, "kv_heads": 2}
    fixed = {**shape, "head_width": 6, "hidden": 26, "depth": depth or EveryToken()}
    model = build(ModelConfig.model_validate({**fixed, **choices}), seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for attention in model.attentions:
            if attention.key_convolution is not None:
                attention.key_convolution.weight.normal_(generator=generator)
        for block in model.routed:
            block.router.weight.normal_(0, 0.3, generator=generator)
            block.threshold.fill_(0.2)
    return model


def texts(totals: Sequence[int] = TOTALS, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in totals]


@dataclass(frozen=True)
class Decoded:
    """Of one text: logits from the end of its prompt on, and what was decided throughout."""

    logits: Tensor
    """(T - P + 1, V) for a prompt of P tokens."""
    processed: Tensor
    """(R, T) bool."""


def decode(
    engine: Engine, whole: Sequence[Sequence[int]], prompts: Sequence[int] = PROMPTS
) -> list[Decoded]:
    """Give the engine texts a token at a time behind their prompts; a text that ends is dropped."""
    found = [engine.prefill([text[:n] for text, n in zip(whole, prompts, strict=True)])]
    logits = [[row] for row in found[0]]
    decided = [[engine.processed[:, row, :n]] for row, n in enumerate(prompts)]
    running, at = list(range(len(whole))), list(prompts)
    while True:
        going = [row for row, one in enumerate(running) if at[one] < len(whole[one])]
        if not going:
            break
        if len(going) < len(running):
            engine.keep(going)
            running = [running[row] for row in going]
        step = engine.step([whole[one][at[one]] for one in running])
        for row, one in enumerate(running):
            logits[one].append(step[row])
            decided[one].append(engine.processed[:, row])
            at[one] += 1
    return [
        Decoded(torch.stack(rows), torch.cat(taken, dim=1))
        for rows, taken in zip(logits, decided, strict=True)
    ]


def forward(
    model: Transformer, text: Sequence[int], decision: Decision, cap: Cap | None, prompt: int
) -> tuple[Decoded, Tensor]:
    """Return the same of a whole forward pass over one text, and its nearest tie in each decision.

    Ties are distances from where a decision turns, (R, T); infinite where draws decide.
    """
    noise = control_noise(model, decision, 1, len(text), seed=0)
    with torch.inference_mode():
        output = model(torch.tensor([text]), decision=decision, noise=noise, cap=cap)
    margins = []
    for block, routing in zip(model.routed, output.routing, strict=True):
        turning = {
            "predictor": routing.predictor_logits,
            "threshold": routing.logits - block.threshold,
            "router": routing.logits,
        }.get(decision)
        margins.append(torch.full((len(text),), torch.inf) if turning is None else turning[0].abs())
    selected = [routing.selected[0] for routing in output.routing]
    empty = torch.zeros(0, len(text))
    return (
        Decoded(
            output.logits[0, prompt - 1 :],
            torch.stack(selected) if selected else empty.bool(),
        ),
        torch.stack(margins) if margins else empty,
    )


def same(found: Tensor, expected: Tensor) -> None:
    """Check logits against each other, to the tolerance."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
