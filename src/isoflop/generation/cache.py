"""The key-value cache: each block keeps the tokens it processed, and no others.

A dense block stores every token, a routed block those that its decision let through, so lengths
differ between blocks and between sequences. Keys are stored with their positions applied, so a
token keeps its place in the text wherever it lies in the cache.

Axes: B batch, R rows of the batch at hand, H query heads, G key/value heads, S slots, K head
width, N key blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.model import SelfAttention
from isoflop.ops import attention_step, block_attention_step, block_means

LEAST_SLOTS = 16


class BlockCache:
    """Keys and values of one block, of each sequence only the tokens that the block processed.

    Slots grow by doubling. Of a sequence's slots only its first `lengths` are attended. Block
    attention keeps the mean key of each whole block beside them, and a convolution on keys the
    last raw keys.

    Args:
        attention: of the block; how it attends is settled when the cache is made.
        batch: B.
        slots: tokens to have room for at first.
    """

    def __init__(self, attention: SelfAttention, batch: int, slots: int) -> None:
        weight, convolution = attention.query_key_value.weight, attention.key_convolution
        self.attention = attention
        self.by_block = None if attention.full else attention.by_block
        self.lengths = [0] * batch
        """Tokens stored, by sequence."""
        groups, width = attention.groups, attention.head_width
        self._keys = weight.new_zeros(batch, groups, max(slots, LEAST_SLOTS), width)
        self._values = torch.zeros_like(self._keys)
        self._means: Tensor | None = None
        if self.by_block is not None:
            wide = torch.promote_types(weight.dtype, torch.float32)
            self._means = weight.new_empty(self._shape_of_means(), dtype=wide)
        self._tail: Tensor | None = None
        if convolution is not None:
            self._tail = weight.new_zeros(batch, convolution.weight.shape[1] - 1, groups, width)

    def keys(self, sequence: int) -> Tensor:
        """Return the stored keys of a sequence, positions applied, (G, tokens, K)."""
        return self._keys[sequence, :, : self.lengths[sequence]]

    @property
    def device(self) -> torch.device:
        """Where the cache lies."""
        return self._keys.device

    @property
    def bytes(self) -> int:
        """Bytes of what is stored: keys, values, block means, and raw keys for a convolution."""
        _, groups, _, width = self._keys.shape
        size = self._keys.element_size()
        kept = 2 * sum(self.lengths) * size
        if self.by_block is not None and self._means is not None:
            whole = sum(length // self.by_block.block_size for length in self.lengths)
            kept += whole * self._means.element_size()
        if self._tail is not None:
            kept += sum(min(length, self._tail.shape[1]) for length in self.lengths) * size
        return kept * groups * width

    def keep(self, sequences: Sequence[int]) -> None:
        """Drop all sequences but those named, which then come in the order named."""
        rows = torch.tensor(sequences, device=self._keys.device)
        self.lengths = [self.lengths[row] for row in sequences]
        self._keys, self._values = self._keys[rows], self._values[rows]
        self._means = None if self._means is None else self._means[rows]
        self._tail = None if self._tail is None else self._tail[rows]

    def _shape_of_means(self) -> tuple[int, ...]:
        assert self.by_block is not None
        batch, groups, slots, width = self._keys.shape
        return (batch, groups, slots // self.by_block.block_size, width)

    def _make_room(self, tokens: int) -> None:
        slots = self._keys.shape[2]
        if tokens <= slots:
            return
        self._keys, self._values = (
            _with_slots(x, max(tokens, 2 * slots)) for x in (self._keys, self._values)
        )
        if self._means is not None:
            self._means = _with_slots(self._means, self._shape_of_means()[2])

    def fill(self, k: Tensor, v: Tensor, lengths: Sequence[int]) -> None:
        """Store the first tokens of every sequence, the cache being empty.

        Keys `k` and `v` are (B, G, C, K), positions applied; what lies behind `lengths` is left
        out.
        """
        assert not any(self.lengths)
        self._make_room(max(lengths))
        for row, length in enumerate(lengths):
            self._keys[row, :, :length] = k[row, :, :length]
            self._values[row, :, :length] = v[row, :, :length]
        self.lengths = list(lengths)
        if self._means is not None and self.by_block is not None:
            means = block_means(k[:, :, : max(lengths)], self.by_block.block_size)
            # Means of blocks that a sequence does not fill are never read.
            self._means[:, :, : means.shape[2]] = means

    def fill_tail(self, raw: Tensor, lengths: Sequence[int]) -> None:
        """Keep the last raw keys of every sequence, from (B, C, G, K), for the convolution."""
        assert self._tail is not None
        kept = self._tail.shape[1]
        for row, length in enumerate(lengths):
            last = raw[row, max(0, length - kept) : length]
            self._tail[row, kept - len(last) :] = last

    def append(self, rows: Sequence[int], index: Tensor | None, k: Tensor, v: Tensor) -> None:
        """Store one token more of each sequence named.

        `index` is `rows` as a tensor, None for all in order; `k` and `v` are (R, G, 1, K),
        positions applied.
        """
        places = [self.lengths[row] for row in rows]
        self._make_room(max(places) + 1)
        for row in rows:
            self.lengths[row] += 1
        at: tuple[Any, ...] = (slice(None), slice(None), places[0])
        if len(rows) == 1:
            at = (rows[0], slice(None), places[0])
        elif index is not None or len(set(places)) > 1:
            each = torch.arange(len(rows), device=k.device) if index is None else index
            at = (each, slice(None), torch.tensor(places, device=k.device))
        self._keys[at], self._values[at] = k[:, :, 0], v[:, :, 0]
        if self._means is not None and self.by_block is not None:
            size = self.by_block.block_size
            for row, place in zip(rows, places, strict=True):
                if (place + 1) % size == 0:
                    block = place // size
                    whole = self._keys[row : row + 1, :, block * size : place + 1]
                    self._means[row : row + 1, :, block : block + 1] = block_means(whole, size)

    def shift_tail(self, index: Tensor | None, raw: Tensor) -> Tensor:
        """Return the raw keys before (R, 1, G, K) of the sequences at `index`; take up these."""
        assert self._tail is not None
        before = self._tail.clone() if index is None else self._tail[index]
        after = torch.cat([before, raw], dim=1)[:, 1:]
        if index is None:
            self._tail.copy_(after)
        else:
            self._tail[index] = after
        return before

    def attend(self, rows: Sequence[int], index: Tensor | None, q: Tensor) -> Tensor:
        """Attend from the last stored token of each sequence named, (R, H, 1, K)."""
        lengths = [self.lengths[row] for row in rows]
        if index is None:
            if len(set(lengths)) == 1:
                return self._attend(q, slice(None), lengths[0], None)
            if self.by_block is not None:
                each = torch.tensor(lengths, device=q.device)
                return self._attend(q, slice(None), max(lengths), each)
        # Views of single sequences: nothing is copied, and no slot behind a sequence is read.
        return torch.cat(
            [
                self._attend(q[i : i + 1], slice(row, row + 1), length, None)
                for i, (row, length) in enumerate(zip(rows, lengths, strict=True))
            ]
        )

    def _attend(self, q: Tensor, rows: slice, longest: int, lengths: Tensor | None) -> Tensor:
        k, v = self._keys[rows], self._values[rows]
        if self.by_block is None or self._means is None:
            return attention_step(q, k, v, length=longest)
        size, top_k = self.by_block.block_size, self.by_block.top_k
        if lengths is None and top_k * size >= longest:
            return attention_step(q, k, v, length=longest)
        k, v = k[:, :, :longest], v[:, :, :longest]
        means = self._means[rows, :, : longest // size]
        return block_attention_step(q, k, v, means, block_size=size, top_k=top_k, lengths=lengths)


class OwnCache:
    """What attention or a block of one's own remembers, of each sequence by itself.

    Args:
        batch: B.
        device: where the model lies.
    """

    def __init__(self, batch: int, device: torch.device) -> None:
        self.device = device
        self.states: list[Any] = [None] * batch
        self.lengths = [0] * batch

    @property
    def bytes(self) -> int:
        """Bytes of the tensors in the states."""
        leaves = torch.utils._pytree.tree_leaves(self.states)
        return sum(one.nbytes for one in leaves if isinstance(one, Tensor))

    def keep(self, sequences: Sequence[int]) -> None:
        """Drop all sequences but those named, which then come in the order named."""
        self.states = [self.states[row] for row in sequences]
        self.lengths = [self.lengths[row] for row in sequences]

    def through(
        self, own: nn.Module, x: Tensor, tables: Sequence[Tensor], given: Mapping[int, int]
    ) -> Tensor:
        """Return what a module's `decode` makes of tokens `x` (R, T, D), zero behind them.

        `given` are the first tokens of each sequence named, in the order of the rows of `x`.
        """
        result = torch.zeros_like(x)
        for at, (row, length) in enumerate(given.items()):
            if not length:
                continue
            cosines, sines = (table[at] if table.dim() == 3 else table for table in tables)
            result[at : at + 1, :length], self.states[row] = own.decode(  # type: ignore[operator]
                x[at : at + 1, :length], cosines[:length], sines[:length], self.states[row]
            )
            self.lengths[row] += length
        return result


@dataclass(frozen=True)
class Filling:
    """A block's memory while whole prompts pass through it."""

    cache: BlockCache | OwnCache
    lengths: Sequence[int]
    """Tokens of each sequence that the block processes; those behind them are padding."""

    def preceding(self, keys: Tensor) -> None:
        """Take up raw keys; nothing comes before a prompt."""
        assert isinstance(self.cache, BlockCache)
        self.cache.fill_tail(keys, self.lengths)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Take up keys and values; attend causally among the tokens of the prompts."""
        assert isinstance(self.cache, BlockCache)
        self.cache.fill(k, v, self.lengths)
        return self.cache.attention.attend(q, k, v)

    def through(self, own: nn.Module, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Run the tokens of each sequence through `decode`."""
        assert isinstance(self.cache, OwnCache)
        return self.cache.through(own, x, (cosines, sines), dict(enumerate(self.lengths)))


class Stepping:
    """A block's memory while one token of each of some sequences passes through it."""

    def __init__(self, cache: BlockCache | OwnCache, rows: Sequence[int], every: bool) -> None:
        self._cache, self._rows = cache, rows
        self.index = None if every else torch.tensor(rows, device=cache.device)

    def preceding(self, keys: Tensor) -> Tensor:
        """Take up raw keys; return those before them."""
        assert isinstance(self._cache, BlockCache)
        return self._cache.shift_tail(self.index, keys)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Take up keys and values; attend to all that is stored."""
        assert isinstance(self._cache, BlockCache)
        self._cache.append(self._rows, self.index, k, v)
        return self._cache.attend(self._rows, self.index, q)

    def through(self, own: nn.Module, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Run one token of each of the sequences through `decode`."""
        assert isinstance(self._cache, OwnCache)
        return self._cache.through(own, x, (cosines, sines), dict.fromkeys(self._rows, 1))


def _with_slots(x: Tensor, slots: int) -> Tensor:
    """Return a copy of `x` (B, G, S, K) with more slots, zeros in the new ones."""
    grown = x.new_zeros(*x.shape[:2], slots, x.shape[3])
    grown[:, :, : x.shape[2]] = x
    return grown
