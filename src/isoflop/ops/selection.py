"""Choosing tokens and moving them: the tensor side of Mixture-of-Depths (arXiv 2404.02258).

Axes: B batch, T time, C selected tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def top_k_positions(scores: Tensor, k: int) -> Tensor:
    """Return the positions of the k largest scores of each sequence, in their original order.

    Ties go to the lowest position.

    Args:
        scores: (B, T).
        k: tokens to select, from 1 to T.

    Returns:
        int64 positions of shape (B, k), ascending along the last axis.
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return order[:, :k].sort(dim=-1).values


def mask_positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions where `mask` is true, padded to the longest row.

    Padding repeats unselected positions, which lie behind the selected ones, so that causal
    attention over the result lets no selected token see a padded one.

    Args:
        mask: (B, T) bool.

    Returns:
        int64 positions (B, C) and a bool tensor (B, C), true where a position is selected, with C
        the largest count in any row, at least 1.
    """
    count = max(1, int(mask.sum(dim=-1).max()))
    order = torch.sort(mask.int(), dim=-1, descending=True, stable=True).indices[:, :count]
    return order, mask.gather(1, order)


def cap_selection(
    wanted: Tensor,
    window: int,
    most: int,
    *,
    start: Tensor | None = None,
    before: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Keep the first `most` wanted tokens of every window of positions.

    Windows do not overlap; position 0 begins the first. A token's fate hangs on earlier ones only,
    so a sequence may come in parts.

    Args:
        wanted: tokens at consecutive positions, (B, T) bool.
        window: positions in a window.
        most: tokens to keep in each.
        start: position of each row's first token, (B,); None for 0.
        before: tokens wanted earlier in the window of the token before the first, (B,), that one
            among them; None for 0.

    Returns:
        The tokens kept, (B, T) bool, and how many were wanted in the window up to each, (B, T).
    """
    batch, length = wanted.shape
    total = wanted.cumsum(1)
    offsets = torch.arange(length, device=wanted.device)
    into = (offsets if start is None else start[:, None] + offsets) % window
    # Index of the token before the window's first; -1 and below where there is none at hand.
    outside = (offsets - into - 1).expand(batch, -1)
    earlier = total.gather(1, outside.clamp(min=0)).masked_fill_(outside < 0, 0)
    counts = total - earlier
    if before is not None:
        counts = counts + torch.where(outside < -1, before[:, None], 0)
    return wanted & (counts <= most), counts


def gather_tokens(x: Tensor, positions: Tensor) -> Tensor:
    """Return the rows of `x` at `positions`: (B, T, D) and (B, C) give (B, C, D)."""
    return (
        x.flatten(0, 1)
        .index_select(0, _flat(positions, x.shape[1]))
        .view(*positions.shape, x.shape[-1])
    )


def add_at(x: Tensor, positions: Tensor, update: Tensor) -> Tensor:
    """Return `x` with `update` added at `positions`, which are distinct within a sequence.

    Args:
        x: (B, T, D).
        positions: (B, C).
        update: (B, C, D).
    """
    flat = x.flatten(0, 1).index_add(
        0, _flat(positions, x.shape[1]), update.flatten(0, 1).to(x.dtype)
    )
    return flat.view_as(x)


def membership(positions: Tensor, length: int) -> Tensor:
    """Return a bool mask (B, length), true at `positions` (B, C)."""
    mask = torch.zeros(positions.shape[0], length, dtype=torch.bool, device=positions.device)
    return mask.scatter(1, positions, True)


def routed_update_reference(
    x: Tensor, selected: Tensor, gates: Tensor, update: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Mixture-of-Depths written out, a sequence and a token at a time (section 3, equation 1).

    x_i' = x_i + g_i f_i(selected tokens of the sequence) if token i is selected, else x_i.

    Args:
        x: residual stream, (B, T, D).
        selected: which tokens are processed, (B, T) bool.
        gates: g, (B, T).
        update: f without its outer residual, from tokens (C, D) and their positions (C,) to
            updates (C, D).

    Returns:
        (B, T, D).
    """
    sequences = []
    for tokens, chosen, gate in zip(x, selected, gates, strict=True):
        positions = [i for i, taken in enumerate(chosen.tolist()) if taken]
        rows = list(tokens)
        if positions:
            where = torch.tensor(positions, device=x.device)
            for i, row in zip(positions, update(tokens[where], where), strict=True):
                rows[i] = tokens[i] + gate[i] * row
        sequences.append(torch.stack(rows))
    return torch.stack(sequences)


def _flat(positions: Tensor, length: int) -> Tensor:
    """Turn positions within sequences into row numbers of the flattened batch."""
    offsets = torch.arange(positions.shape[0], device=positions.device)[:, None] * length
    return (positions + offsets).flatten()
