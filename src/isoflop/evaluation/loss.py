"""Held-out loss of a model under a routing decision, by document and by position.

Axes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.config import Cap, Decision, Evaluation, RandomK, Routed, Span, Split, Windows
from isoflop.data import TokenSplit, document_windows, evaluation_windows
from isoflop.data.windows import Batch
from isoflop.evaluation.positions import SpanSums
from isoflop.model import Output, Transformer, control_draws


def evaluate(
    model: Transformer,
    held_out: TokenSplit,
    sequence_length: int,
    *,
    split: Split,
    decision: Decision,
    cap: Cap | None = None,
    windows: Windows = "stream",
    spans: Sequence[Span] = (),
    limit_tokens: int | None = None,
    sequences: int = 32,
    seed: int = 0,
    alive: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return the loss of `model` on the start of a split, or of its documents.

    Args:
        model: evaluated as it is; its training mode is restored.
        held_out: the token stream.
        sequence_length: T, tokens a window; windows do not overlap.
        split: what to call the split in the result.
        decision: who selects the tokens of routed blocks.
        cap: on what a causal decision selects; None for none.
        windows: what windows are cut from: the stream (see `evaluation_windows`), or each document
            (see `document_windows`), whose first token is then no target.
        spans: spans of positions whose losses are told apart; windows of documents only.
        limit_tokens: stop after so many targets; None for all.
        sequences: B, windows at a time.
        seed: keys what the random control draws.
        alive: called after each batch of windows.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: there is no target, a span does not fit the windows, or the cap not the model.
    """
    if spans and windows != "documents":
        raise ValueError(
            f"spans is {tuple(spans)}, but windows is {windows!r}; expected windows='documents', "
            "since a position means nothing in a window that spans several documents"
        )
    sums = LossSums(model, held_out, sequence_length, spans)
    noise = control_noise(model, decision, sequences, sequence_length, seed)
    with evaluating(model) as device:
        for window in windows_of(held_out, sequence_length, sequences, windows, limit_tokens):
            batch = torch.from_numpy(window[0]).to(device)
            sums.add(model(batch[:, :-1], decision=decision, noise=noise, cap=cap), window)
            alive()
    return sums.evaluation(split, decision, cap)


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


def windows_of(
    held_out: TokenSplit,
    sequence_length: int,
    sequences: int,
    windows: Windows,
    limit_tokens: int | None,
) -> Iterator[Batch]:
    """Return the windows that a loss is measured on; see `evaluate` for the arguments."""
    cut = evaluation_windows if windows == "stream" else document_windows
    return cut(held_out, sequence_length, sequences, limit_tokens)


class LossSums:
    """Adds up the loss of a model under one decision, by document and span, over windows.

    Args:
        model: whose outputs are added.
        held_out: what the windows are of.
        sequence_length: T.
        spans: spans of positions whose losses are told apart.
    """

    def __init__(
        self,
        model: Transformer,
        held_out: TokenSplit,
        sequence_length: int,
        spans: Sequence[Span] = (),
    ) -> None:
        documents = held_out.documents
        self._depth = model.config.depth
        self.losses = np.zeros(documents)
        """Summed nats of each document."""
        self.tokens = np.zeros(documents, dtype=np.int64)
        """Targets of each document."""
        self.bytes = np.zeros(documents, dtype=np.int64)
        """UTF-8 bytes of text that the targets of each document stand for."""
        self._token_bytes = held_out.token_bytes
        self._processed = torch.zeros(len(model.routed), dtype=torch.float64)
        self._spans = SpanSums(spans, sequence_length, documents)

    def add(self, output: Output, window: Batch) -> None:
        """Add what the model gave for a batch of windows."""
        tokens, document, mask = window
        documents = len(self.losses)
        keep = torch.from_numpy(mask)
        targets = torch.from_numpy(tokens[:, 1:]).to(output.logits.device)
        nats = token_losses(output.logits, targets).double().cpu().numpy()
        owner, ids = document[mask], tokens[:, 1:][mask]
        self.losses += np.bincount(owner, nats[mask], documents)
        self.tokens += np.bincount(owner, minlength=documents)
        self.bytes += np.bincount(owner, self._token_bytes[ids], documents).astype(np.int64)
        self._spans.add(nats, document, mask)
        for index, routing in enumerate(output.routing):
            self._processed[index] += routing.selected.cpu()[keep].sum()

    def evaluation(self, split: Split, decision: Decision, cap: Cap | None = None) -> Evaluation:
        """Return the loss of what was added under a decision and a cap.

        Raises:
            FloatingPointError: it is not finite.
        """
        total, targets = float(self.losses.sum()), int(self.tokens.sum())
        if not math.isfinite(total):
            raise FloatingPointError(f"{split} loss under {decision} is {total}")
        seen = self.tokens > 0
        told = None
        if cap is not None:
            assert isinstance(self._depth, Routed), "a model that does not route refuses a cap"
            told = cap.resolved(self._depth)
        return Evaluation(
            split=split,
            decision=decision,
            cap=told,
            loss=total / targets,
            bits_per_byte=total / math.log(2) / max(1, int(self.bytes.sum())),
            tokens=targets,
            document_losses=tuple(round(x, 4) for x in self.losses[seen].tolist()),
            document_tokens=tuple(self.tokens[seen].tolist()),
            realised_capacity=tuple((self._processed / targets).tolist()),
            spans=self._spans.losses(),
        )


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
