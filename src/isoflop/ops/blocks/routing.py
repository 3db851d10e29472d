"""Which key blocks a query attends: the gate of Mixture of Block Attention (arXiv 2502.13189, 2.2).

The fast path works on sequences laid out in whole blocks: every document starts at a block's
border, and the last block of each is filled up with slots that hold no token.

Axes: B batch, H query heads, G key/value heads, T time, K head width, N key blocks, S selected
earlier blocks per query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Gate scores held at a time, so that long sequences do not hold T x N of them.
SCORES_AT_ONCE = 1 << 20
# Matrix products sum the columns left over from whole vectors in another order. With none left
# over, equal blocks get equal scores to the last bit, and ties are ties.
COLUMNS = 32
NONE = -1
"""Block number that stands for no block."""


@dataclass(frozen=True)
class BlockLayout:
    """Where the tokens of a batch lie once every document starts at a block's border."""

    block_size: int
    blocks: int
    """N, blocks of a laid out sequence."""
    first: Tensor
    """First block of the document that a block belongs to, (B, N)."""
    source: Tensor | None
    """Position of the token in each slot, (B, N * block_size), NONE where there is none. None for
    the whole layout where a row is one document, whose tokens come first."""
    slots: Tensor | None
    """Slot of each token, (B, T), NONE for padding; None as for `source`."""
    tokens: int
    """T."""

    def lay_out(self, x: Tensor, empty: float = 0) -> Tensor:
        """Return `x` (B, heads, T, ...) by slots, with `empty` in those without a token."""
        if self.source is not None:
            return _taken(x, self.source, empty)
        missing = self.blocks * self.block_size - self.tokens
        if not missing:
            return x
        return F.pad(x, (*(0, 0) * (x.dim() - 3), 0, missing), value=empty)

    def take_back(self, x: Tensor, empty: float = 0) -> Tensor:
        """Return `x` (B, heads, slots, ...) by position, with `empty` at padding."""
        if self.slots is not None:
            return _taken(x, self.slots, empty)
        return x[:, :, : self.tokens].contiguous()

    def numbers(self, routing: Tensor) -> Tensor:
        """Turn blocks counted from a document's start, by position, into blocks by slot."""
        laid_out = self.lay_out(routing, NONE)
        return laid_out if self.source is None else _moved(laid_out, self._firsts())

    def routing(self, numbers: Tensor) -> Tensor:
        """Turn blocks by slot into blocks counted from a document's start, by position."""
        if self.source is not None:
            numbers = _moved(numbers, -self._firsts())
        return self.take_back(numbers, NONE)

    def _firsts(self) -> Tensor:
        return self.first.repeat_interleave(self.block_size, dim=1)[:, None, :, None]


def block_layout(
    batch: int, length: int, block_size: int, documents: Tensor | None, device: torch.device
) -> BlockLayout:
    """Return the layout of a batch of sequences.

    Args:
        batch: B.
        length: T.
        block_size: tokens in a block.
        documents: (B, T) integers; runs of one number are documents, negative numbers padding.
        device: of the layout's tensors.
    """
    if documents is None:
        blocks = -(-length // block_size)
        first = torch.zeros(batch, blocks, dtype=torch.int64, device=device)
        return BlockLayout(block_size, blocks, first, None, None, length)
    time = torch.arange(length, device=device)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    start = torch.where(begins, time, 0).cummax(dim=1).values
    real = documents >= 0
    # A block begins at every whole number of blocks from the start of a document.
    opens = real & ((time - start) % block_size == 0)
    number = opens.cumsum(dim=1) - 1
    blocks = max(1, int(opens.sum(dim=1).max()))
    slots = torch.where(real, number * block_size + (time - start) % block_size, NONE)
    rows = torch.arange(batch, device=device)[:, None].expand_as(slots)
    source = torch.full((batch, blocks * block_size), NONE, dtype=torch.int64, device=device)
    source[rows[real], slots[real]] = time.expand_as(slots)[real]
    first = torch.arange(blocks, device=device).repeat(batch, 1)
    at_start = number.gather(1, start)
    first[rows[opens], number[opens]] = at_start[opens]
    return BlockLayout(block_size, blocks, first, source, slots, length)


def block_means(k: Tensor, block_size: int) -> Tensor:
    """Return the mean key of each whole block, (B, G, T, K) giving (B, G, T // block_size, K).

    Means are taken in float32 at least. A partial last block has none: only its own queries may
    attend it.
    """
    whole = k.shape[2] // block_size
    blocks = k[:, :, : whole * block_size].reshape(*k.shape[:2], whole, block_size, k.shape[3])
    return blocks.mean(3, dtype=torch.promote_types(k.dtype, torch.float32))


def choose_blocks(q: Tensor, means: Tensor, first: Tensor, block_size: int, count: int) -> Tensor:
    """Return the `count` earlier blocks with the largest q . mean(keys) for every query.

    Ties go to the earlier block. Scores are held for some queries at a time.

    Args:
        q: laid out in whole blocks, (B, H, N * block_size, K).
        means: (B, G, N, K).
        first: first block that the queries of a block may attend, (B, N).
        block_size: tokens in a block.
        count: S, blocks to choose besides a query's own.

    Returns:
        int64 block numbers (B, H, N * block_size, S), ascending, then NONE where no earlier block
        is left.
    """
    batch, heads, slots, width = q.shape
    groups, blocks = means.shape[1:3]
    chosen = torch.full((batch, heads, slots, count), NONE, dtype=torch.int64, device=q.device)
    if count == 0:
        return chosen
    grouped = q.view(batch, groups, heads // groups, slots, width)
    means = F.pad(means, (0, 0, 0, -blocks % COLUMNS))
    numbers = torch.arange(means.shape[2], device=q.device)
    step = max(1, SCORES_AT_ONCE // (batch * heads * block_size * len(numbers)))
    # The first block of a document has no earlier one.
    for begin in range(1, blocks, step):
        end = min(blocks, begin + step)
        there = slice(begin * block_size, end * block_size)
        columns = -(-(end - 1) // COLUMNS) * COLUMNS
        queries = grouped[:, :, :, there].to(means.dtype)
        earlier = means[:, :, None, :columns].transpose(-1, -2)
        scores = (queries @ earlier).view(batch, heads, end - begin, block_size, columns)
        allowed = (numbers[:columns] < numbers[begin:end, None]) & (
            numbers[:columns] >= first[:, begin:end, None]
        )
        scores.masked_fill_(~allowed[:, None, :, None], -math.inf)
        best = largest_blocks(scores, min(count, end - 1)).flatten(2, 3)
        chosen[:, :, there, : best.shape[-1]] = best
    return chosen


def largest_blocks(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the largest scores along the last axis, ascending, NONE for -inf.

    Ties go to the lowest index, and the order does not hang on how `topk` sorts.
    """
    if scores.is_cuda:
        # Slower than `topk`, but it does not wait for the device to tell of ties.
        values, indices = _ranked(scores, count)
    else:
        values, indices = scores.topk(count, dim=-1)
        smallest = values[..., -1:]
        tied = ((scores >= smallest).sum(-1) > count) & (smallest.squeeze(-1) > -math.inf)
        if bool(tied.any()):
            indices[tied] = _ranked(scores[tied], count)[1]
    beyond = scores.shape[-1]
    indices = indices.masked_fill_(values == -math.inf, beyond).sort(dim=-1).values
    return indices.masked_fill_(indices == beyond, NONE)


def _ranked(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest scores and their indices, of equal ones the lowest index first."""
    values, indices = torch.sort(scores, dim=-1, descending=True, stable=True)
    return values[..., :count], indices[..., :count]


def _taken(x: Tensor, positions: Tensor, empty: float) -> Tensor:
    """Return rows of `x` (B, heads, T, ...) at `positions` (B, C), `empty` where those are NONE."""
    index = positions.view(positions.shape[0], 1, -1, *(1 for _ in range(x.dim() - 3)))
    taken = x.gather(2, index.clamp(min=0).expand(-1, x.shape[1], -1, *x.shape[3:]))
    return taken.masked_fill_(index == NONE, empty)


def _moved(numbers: Tensor, by: Tensor) -> Tensor:
    return torch.where(numbers >= 0, numbers + by, NONE)
