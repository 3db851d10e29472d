"""Held-out loss of a model under a routing decision, by document and by position.

Axes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Required, TypedDict, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from isoflop.config import (
    Cap,
    Decision,
    Evaluation,
    EvaluationText,
    Frozen,
    RandomK,
    Routed,
    Span,
    SpanLoss,
    Split,
    Windows,
)
from isoflop.data import TokenSplit, document_windows, evaluation_windows
from isoflop.data.windows import Batch
from isoflop.memory import LOGITS_AT_A_TIME
from isoflop.model import Output, Transformer, control_draws


class Reading(Frozen):
    """How a held-out split is read, and what is told apart of it."""

    split: Split
    """What to call the split in the result."""
    sequence_length: int
    """T, tokens a window; windows do not overlap."""
    windows: Windows = "stream"
    """What they are cut from: the stream (see `evaluation_windows`), or each document (see
    `document_windows`), whose first token is then no target."""
    spans: tuple[Span, ...] = ()
    """Spans of positions whose losses are told apart; windows of documents only."""
    limit_tokens: int | None = None
    """Stop after so many targets; None for all."""
    text: EvaluationText = "start"
    """Where in the split they lie: at its start, or spread over all of it."""
    sequences: int = 32
    """B, windows at a time at most; fewer where their logits would not fit (`held_by`)."""
    seed: int = 0
    """Keys what the random control draws, and where the future is changed."""

    def held_by(self, model: Transformer) -> Reading:
        """Return the same with no more windows at a time than `LOGITS_AT_A_TIME` allows."""
        fitting = LOGITS_AT_A_TIME // (self.sequence_length * model.config.vocabulary)
        return self.model_copy(update={"sequences": max(1, min(self.sequences, fitting))})

    def of(self, held_out: TokenSplit) -> Iterator[Batch]:
        """Return the windows."""
        cut = evaluation_windows if self.windows == "stream" else document_windows
        how = held_out, self.sequence_length, self.sequences, self.limit_tokens
        return cut(*how, spread=self.text == "spread")


class ReadingKeywords(TypedDict, total=False):
    """What of `Reading` is given by keyword."""

    split: Required[Split]
    windows: Windows
    spans: Sequence[Span]
    limit_tokens: int | None
    text: EvaluationText
    sequences: int
    seed: int


def evaluate(
    model: Transformer,
    held_out: TokenSplit,
    sequence_length: int,
    *,
    decision: Decision,
    cap: Cap | None = None,
    alive: Callable[[], None] = lambda: None,
    **reading: Unpack[ReadingKeywords],
) -> Evaluation:
    """Return the loss of `model` on a split, or as much of it as is to be read.

    Args:
        model: evaluated as it is; its training mode is restored.
        held_out: the token stream.
        sequence_length: T.
        decision: who selects the tokens of routed blocks.
        cap: on what a causal decision selects; None for none.
        alive: called after each batch of windows.
        reading: `split` and what else of `Reading` is not at its default.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: there is no target, a span does not fit the windows, or the cap not the model.
    """
    how = Reading(sequence_length=sequence_length, **reading).held_by(model)
    if how.spans and how.windows != "documents":
        raise ValueError(
            f"spans is {how.spans}, but windows is {how.windows!r}; expected windows='documents', "
            "since a position means nothing in a window that spans several documents"
        )
    sums = LossSums(model, held_out, how)
    noise = control_noise(model, decision, how.sequences, sequence_length, how.seed)
    with evaluating(model) as device:
        for window in how.of(held_out):
            batch = torch.from_numpy(window[0]).to(device)
            sums.add(model(batch[:, :-1], decision=decision, noise=noise, cap=cap), window)
            alive()
    return sums.evaluation(decision, cap)


@contextmanager
def evaluating(model: Transformer) -> Iterator[torch.device]:
    """Put a model into evaluation mode, without gradients, and back; gives its device."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)


class LossSums:
    """Adds up the loss of a model under one decision, by document and span, over windows."""

    def __init__(self, model: Transformer, held_out: TokenSplit, reading: Reading) -> None:
        documents = held_out.documents
        self._depth = model.config.depth
        self.losses = np.zeros(documents)
        """Summed nats of each document."""
        self.tokens = np.zeros(documents, dtype=np.int64)
        """Targets of each document."""
        self.bytes = np.zeros(documents)
        """UTF-8 bytes of text that the targets of each document stand for."""
        self._token_bytes = held_out.token_bytes
        self._processed = torch.zeros(len(model.routed), dtype=torch.float64)
        self._split = reading.split
        self._spans = SpanSums(reading.spans, reading.sequence_length, documents)

    def add(self, output: Output, window: Batch) -> None:
        """Add what the model gave for a batch of windows."""
        tokens, document, mask = window
        keep = torch.from_numpy(mask)
        targets = torch.from_numpy(tokens[:, 1:]).to(output.logits.device)
        nats = token_losses(output.logits, targets).double().cpu().numpy()
        owner, ids = document[mask], tokens[:, 1:][mask]
        # Documents that the batch does not touch, which may be millions, cost nothing.
        seen, of = np.unique(owner, return_inverse=True)
        self.losses[seen] += np.bincount(of, nats[mask])
        self.tokens[seen] += np.bincount(of)
        self.bytes[seen] += np.bincount(of, self._token_bytes[ids])
        self._spans.add(nats, document, mask)
        for index, routing in enumerate(output.routing):
            self._processed[index] += routing.selected.cpu()[keep].sum()

    def evaluation(self, decision: Decision, cap: Cap | None = None) -> Evaluation:
        """Return the loss of what was added under a decision and a cap.

        Raises:
            FloatingPointError: it is not finite.
        """
        total, targets = float(self.losses.sum()), int(self.tokens.sum())
        if not math.isfinite(total):
            raise FloatingPointError(f"{self._split} loss under {decision} is {total}")
        seen = self.tokens > 0
        told = None
        if cap is not None:
            assert isinstance(self._depth, Routed), "a model that does not route refuses a cap"
            told = cap.resolved(self._depth)
        text_bytes = float(self.bytes.sum())
        return Evaluation(
            split=self._split,
            decision=decision,
            cap=told,
            loss=total / targets,
            bits_per_byte=total / math.log(2) / text_bytes if text_bytes else None,
            tokens=targets,
            document_losses=tuple(round(x, 4) for x in self.losses[seen].tolist()),
            document_tokens=tuple(self.tokens[seen].tolist()),
            realised_capacity=tuple((self._processed / targets).tolist()),
            spans=self._spans.losses(),
        )


class SpanSums:
    """Adds up losses of spans of positions (arXiv 2502.13189, section 3.1), by document.

    Only a window that reaches the end of a span counts to it, so that all positions of the span
    are averaged over the same windows.

    Raises:
        ValueError: a span is empty or lies outside the window.
    """

    def __init__(self, spans: Sequence[Span], sequence_length: int, documents: int) -> None:
        for start, stop in spans:
            if not 0 <= start < stop <= sequence_length:
                raise ValueError(
                    f"a span is ({start}, {stop}); expected positions from 0 to sequence_length = "
                    f"{sequence_length}, the first before the second"
                )
        self._spans = tuple(spans)
        self._nats = np.zeros((len(spans), documents))
        self._windows = np.zeros((len(spans), documents), dtype=np.int64)

    def add(
        self, nats: NDArray[np.float64], document: NDArray[np.int64], mask: NDArray[np.bool_]
    ) -> None:
        """Add a batch of windows: nats and document of each target, and where there is one, (B, T).

        A window's targets are of one document and come before padding.
        """
        targets = mask.sum(1)
        for index, (start, stop) in enumerate(self._spans):
            reaching = targets >= stop
            owner, of = np.unique(document[reaching, 0], return_inverse=True)
            sums = nats[reaching, start:stop].sum(1)
            self._nats[index, owner] += np.bincount(of, sums)
            self._windows[index, owner] += np.bincount(of)

    def losses(self) -> tuple[SpanLoss, ...]:
        """Return the loss of each span that a window reached, in the order of the spans."""
        found = []
        for (start, stop), nats, windows in zip(
            self._spans, self._nats, self._windows, strict=True
        ):
            seen = windows > 0
            if seen.any():
                found.append(
                    SpanLoss(
                        start=start,
                        stop=stop,
                        loss=float(nats.sum()) / (int(windows.sum()) * (stop - start)),
                        document_losses=tuple(round(x, 4) for x in nats[seen].tolist()),
                        document_windows=tuple(windows[seen].tolist()),
                    )
                )
        return tuple(found)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihood of each target in nats: (B, T, V), (B, T) give (B, T)."""
    flat = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view_as(targets)


def control_noise(
    model: Transformer, decision: Decision, sequences: int, length: int, seed: int
) -> Tensor | None:
    """Return what the random control decides by in evaluation; None for other models.

    Uniform draws (R, T) keyed by seed, block and position for `bernoulli`; Gaussian scores
    (R, B, T) for `top_k`.
    """
    if not isinstance(model.config.depth, RandomK):
        return None
    routed = len(model.routed)
    if decision == "bernoulli":
        draws = control_draws(length, routed, seed)
    else:
        generator = torch.Generator().manual_seed(seed)
        draws = torch.randn(routed, sequences, length, generator=generator)
    return draws.to(next(model.parameters()).device)
