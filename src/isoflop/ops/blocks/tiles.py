"""Queries gathered by the key block they attend, in tiles that kernels like.

Axes: U units (a batch row and a key/value head), Q queries of a unit, S selected blocks per
query, N key blocks, R rows of all tiles.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

UNBOUNDED = sys.maxsize


@dataclass(frozen=True)
class Tiles:
    """Rows that hold each (query, selected block) once, rows of one key block side by side."""

    rows: int
    """R, with the empty rows that fill tiles up."""
    query: Tensor
    """Query of each row, as a number within U x Q; 0 where the row is empty, (R,)."""
    empty: Tensor
    """Rows without a query, ascending."""
    slot: Tensor
    """Row of each selected block of each query, R where there is none, (U * Q, S)."""
    block: Tensor
    """Key block of each tile, as a number within U x N; tiles from the longest to the shortest."""
    lengths: Tensor
    """Rows of each tile."""


def tile(chosen: Tensor, blocks: int, *, cut: int = UNBOUNDED, multiple: int = 1) -> Tiles:
    """Sort queries by selected block and cut the lists into tiles.

    Args:
        chosen: block numbers (U, Q, S), negative where none is selected.
        blocks: N.
        cut: a list is cut evenly into as many tiles of at least this many rows as it has; a
            shorter one is a tile.
        multiple: rows of a tile are a multiple of this, filled up with empty rows.
    """
    units, queries, selected = chosen.shape
    device = chosen.device
    numbers = chosen + torch.arange(units, device=device)[:, None, None] * blocks
    # Selecting rows is several times as fast as indexing them.
    pairs = (chosen >= 0).flatten().nonzero().squeeze(1)
    lists, order = numbers.flatten().index_select(0, pairs).sort(stable=True)
    pairs = pairs.index_select(0, order)
    counts = torch.bincount(lists, minlength=units * blocks)

    per_list = (counts // cut).clamp(min=1) * (counts > 0)
    each = -(-counts // per_list.clamp(min=1))
    each = -(-each // multiple) * multiple
    block = torch.repeat_interleave(per_list)
    first_tile = per_list.cumsum(0) - per_list
    lengths, order = each[block].sort(descending=True, stable=True)
    begins = torch.empty_like(lengths)
    begins[order] = lengths.cumsum(0) - lengths

    first = counts.cumsum(0) - counts
    rank = torch.arange(len(pairs), device=device) - first.index_select(0, lists)
    each = each.index_select(0, lists)
    nth = rank // each
    tiles = first_tile.index_select(0, lists) + nth
    row = begins.index_select(0, tiles) + (rank - nth * each)
    rows = int(lengths.sum())
    query = torch.full((rows,), -1, dtype=torch.int64, device=device)
    query.scatter_(0, row, pairs // max(1, selected))
    empty = (query < 0).nonzero().squeeze(1)
    slot = torch.full((units * queries * selected,), rows, dtype=torch.int64, device=device)
    slot.scatter_(0, pairs, row)
    return Tiles(
        rows=rows,
        query=query.index_fill_(0, empty, 0),
        empty=empty,
        slot=slot.view(units * queries, selected),
        block=block[order],
        lengths=lengths,
    )
