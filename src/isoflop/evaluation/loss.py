"""Held-out loss of a model under a routing decision, by document and by position.

Axes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.config import Decision, Evaluation, RandomK, Span, Split, Windows
from isoflop.data import TokenSplit, document_windows, evaluation_windows
from isoflop.evaluation.positions import SpanSums
from isoflop.model import Transformer, control_draws


def evaluate(
    model: Transformer,
    held_out: TokenSplit,
    sequence_length: int,
    *,
    split: Split,
    decision: Decision,
    windows: Windows = "stream",
    spans: Sequence[Span] = (),
    limit_tokens: int | None = None,
    sequences: int = 32,
    seed: int = 0,
) -> Evaluation:
    """Return the loss of `model` on the start of a split, or of its documents.

    Args:
        model: evaluated as it is; its training mode is restored.
        held_out: the token stream.
        sequence_length: T, tokens a window; windows do not overlap.
        split: what to call the split in the result.
        decision: who selects the tokens of routed blocks.
        windows: what windows are cut from: the stream (see `evaluation_windows`), or each document
            (see `document_windows`), whose first token is then no target.
        spans: spans of positions whose losses are told apart; windows of documents only.
        limit_tokens: stop after so many targets; None for all.
        sequences: B, windows at a time.
        seed: keys what the random control draws.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: there is no target, or a span does not fit the windows.
    """
    if spans and windows != "documents":
        raise ValueError(
            f"spans is {tuple(spans)}, but windows is {windows!r}; expected windows='documents', "
            "since a position means nothing in a window that spans several documents"
        )
    documents = held_out.documents
    losses, counts = np.zeros(documents), np.zeros(documents, dtype=np.int64)
    noise = control_noise(model, decision, sequences, sequence_length, seed)
    processed = torch.zeros(len(model.routed), dtype=torch.float64)
    targets = text_bytes = 0
    by_span = SpanSums(spans, sequence_length, documents)
    cut = evaluation_windows if windows == "stream" else document_windows
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        for tokens, document, mask in cut(held_out, sequence_length, sequences, limit_tokens):
            batch = torch.from_numpy(tokens).to(device)
            keep = torch.from_numpy(mask)
            with torch.inference_mode():
                output = model(batch[:, :-1], decision=decision, noise=noise)
                nats = token_losses(output.logits, batch[:, 1:]).double().cpu()
            losses += np.bincount(document[mask], nats[keep].numpy(), documents)
            counts += np.bincount(document[mask], minlength=documents)
            by_span.add(nats.numpy(), document, mask)
            targets += int(keep.sum())
            text_bytes += held_out.count_bytes(tokens[:, 1:][mask])
            for index, routing in enumerate(output.routing):
                processed[index] += routing.selected.cpu()[keep].sum()
    finally:
        model.train(was_training)
    seen = counts > 0
    total = float(losses.sum())
    if not math.isfinite(total):
        raise FloatingPointError(f"{split} loss under {decision} is {total}")
    return Evaluation(
        split=split,
        decision=decision,
        loss=total / targets,
        bits_per_byte=total / math.log(2) / max(1, text_bytes),
        tokens=targets,
        document_losses=tuple(round(x, 4) for x in losses[seen].tolist()),
        document_tokens=tuple(counts[seen].tolist()),
        realised_capacity=tuple((processed / targets).tolist()),
        spans=by_span.losses(),
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
