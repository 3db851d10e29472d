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


def tile(chosen: Tensor, blocks: int, *, longest: int = UNBOUNDED, multiple: int = 1) -> Tiles:
    """Sort queries by selected block and cut the lists into tiles.

    Args:
        chosen: block numbers (U, Q, S), negative where none is selected.
        blocks: N.
        longest: rows of the longest tile; longer lists make several.
        multiple: rows of a tile are a multiple of this, filled up with empty rows; it divides
            `longest`.
    """
    units, queries, selected = chosen.shape
    device = chosen.device
    numbers = chosen + torch.arange(units, device=device)[:, None, None] * blocks
    pairs = (chosen >= 0).flatten().nonzero().squeeze(1)
    lists, order = torch.sort(numbers.flatten()[pairs], stable=True)
    pairs = pairs[order]
    counts = torch.bincount(lists, minlength=units * blocks)

    whole, rest = counts // longest, counts % longest
    per_list = whole + (rest > 0)
    block = torch.repeat_interleave(per_list)
    first_tile = per_list.cumsum(0) - per_list
    within = torch.arange(len(block), device=device) - first_tile[block]
    filled_rest = (rest + multiple - 1) // multiple * multiple
    lengths = torch.where(within < whole[block], longest, filled_rest[block])
    lengths, order = torch.sort(lengths, descending=True, stable=True)
    begins = torch.empty_like(lengths)
    begins[order] = lengths.cumsum(0) - lengths

    rank = torch.arange(len(pairs), device=device) - (counts.cumsum(0) - counts)[lists]
    row = begins[first_tile[lists] + rank // longest] + rank % longest
    rows = int(lengths.sum())
    query = torch.full((rows,), -1, dtype=torch.int64, device=device)
    query[row] = pairs // max(1, selected)
    empty = (query < 0).nonzero().squeeze(1)
    slot = torch.full((units * queries * selected,), rows, dtype=torch.int64, device=device)
    slot[pairs] = row
    return Tiles(
        rows=rows,
        query=query.index_fill_(0, empty, 0),
        empty=empty,
        slot=slot.view(units * queries, selected),
        block=block[order],
        lengths=lengths,
    )
