"""How the next token is drawn from logits.

Axes: B batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """What is drawn from: the softmax of logits over the temperature, cut to likely tokens.

    Every cut looks at the distribution before any cut; a token stays that all of them leave. The
    likeliest token always stays.

    Raises:
        ValueError: a value is out of its range.
    """

    temperature: float = 1.0
    """Divides the logits; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Tokens to draw from, the likeliest ones; None for all."""
    top_p: float = 1.0
    """The likeliest tokens stay that are needed to reach this probability (arXiv 1904.09751)."""
    min_p: float = 0.0
    """Tokens stay that are at least this many times as likely as the likeliest (arXiv
    2407.01082)."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}; expected 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; expected at least 1, or None for all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; expected above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}; expected from 0 to 1")


GREEDY = Sampling(temperature=0.0)


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return what tokens are drawn with, (B, V) in float64 adding up to 1.

    Of equally likely tokens a cut prefers the lowest ids.
    """
    wide = logits.double()
    if sampling.temperature == 0:
        best = wide.argmax(-1, keepdim=True)
        return torch.zeros_like(wide).scatter(1, best, 1.0)
    highest = wide.amax(-1, keepdim=True)
    whole = ((wide - highest) / sampling.temperature).softmax(-1)
    drops = whole < sampling.min_p * whole.amax(-1, keepdim=True)
    if sampling.top_k is not None or sampling.top_p < 1:
        ordered, order = whole.sort(dim=-1, descending=True, stable=True)
        beyond = torch.zeros_like(drops)
        if sampling.top_p < 1:
            # A token goes where those before it reach the probability; the likeliest has none.
            beyond[:, 1:] = ordered.cumsum(-1)[:, :-1] >= sampling.top_p
        if sampling.top_k is not None:
            beyond[:, sampling.top_k :] = True
        drops = drops | torch.zeros_like(drops).scatter(1, order, beyond)
    kept = whole.masked_fill(drops, 0.0)
    return kept / kept.sum(-1, keepdim=True)


class Sampler:
    """Draws tokens, for every sequence from a stream of its own.

    So a sequence gets the same tokens alone and in a batch.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self._sampling = sampling
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self, logits: Tensor) -> list[int]:
        """Return a token id for each row of `logits` (B, V).

        Raises:
            FloatingPointError: the logits of a row have no finite maximum.
        """
        best = logits.amax(-1)
        if not bool(best.isfinite().all()):
            raise FloatingPointError("the model's logits are not finite; its weights are unusable")
        if self._sampling.temperature == 0:
            greedy: list[int] = logits.argmax(-1).tolist()
            return greedy
        sums = probabilities(logits, self._sampling).cumsum(-1)
        draws = torch.stack(
            [torch.rand((), generator=one, dtype=torch.float64) for one in self._streams]
        )
        # Places above 0 and up to the whole sum: the first token whose sum reaches one has a
        # probability above 0.
        places = (1 - draws.to(sums.device))[:, None] * sums[:, -1:]
        found: list[int] = torch.searchsorted(sums, places).squeeze(1).tolist()
        return found

    def keep(self, sequences: Sequence[int]) -> None:
        """Drop the streams of all sequences but those named."""
        self._streams = [self._streams[one] for one in sequences]
