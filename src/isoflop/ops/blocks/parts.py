"""Block attention with its gradient: own blocks and selected blocks, merged by log-sum-exp.

Axes: U units (a batch row and a key/value head), h query heads that share a unit's keys, K head
width, N key blocks, S selected earlier blocks per query.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isoflop.ops.blocks.kernels import BlockKernel, CpuKernel, CudaKernel, Runs
from isoflop.ops.blocks.tiles import Tiles, tile

# Rows of gathered queries held at a time; the partial results of all are needed to merge them.
ROWS_AT_ONCE = 1 << 13


def forward(
    q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, block_size: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend own and chosen blocks.

    Args:
        q: (U, h, N * block_size, K).
        k: (U, N * block_size, K).
        v: like `k`.
        chosen: earlier blocks of each query, (U, h, N * block_size, S), negative for none.
        block_size: keys in a block.
        scale: multiplies the scores.

    Returns:
        Output, like `q`, and log-sum-exp (U, h, N * block_size), float32 at least.
    """
    kernel = _kernel(q)
    # Tiles of all parts first, then results, so that memory of one part, once freed, serves the
    # next whole.
    parts = _tiled(chosen, q.shape[2] // block_size, kernel)
    out = torch.empty_like(q)
    lse = q.new_empty(q.shape[:-1], dtype=torch.promote_types(q.dtype, torch.float32))
    for some, tiles in parts:
        part = _Part(q[some], k[some], v[some], tiles, block_size, scale, kernel)
        out[some], lse[some] = part.forward()
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    chosen: Tensor,
    block_size: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v.

    Arguments are those of `forward`, what it returned, and the gradient `grad` of the output.
    """
    kernel = _kernel(q)
    parts = _tiled(chosen, q.shape[2] // block_size, kernel)
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    for some, tiles in parts:
        part = _Part(q[some], k[some], v[some], tiles, block_size, scale, kernel)
        dq[some], dk[some], dv[some] = part.backward(grad[some], out[some], lse[some])
    return dq, dk, dv


class _Part:
    """Block attention of some units, small enough to hold all partial results of."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tiles: Tiles,
        block_size: int,
        scale: float,
        kernel: BlockKernel,
    ) -> None:
        self.shape, self.block_size = q.shape, block_size
        self.tiles, self.scale, self.kernel = tiles, scale, kernel
        self.q = q
        self.k, self.v = (x.reshape(-1, block_size, x.shape[-1]) for x in (k, v))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return output (U, h, slots, K) and log-sum-exp (U, h, slots), float32 at least."""
        tiles, width = self.tiles, self.shape[-1]
        own, own_lse = self.kernel.forward(
            self._own(self.q), self.k, self.v, Runs(self.block_size, True, self.scale)
        )
        own, own_lse = self._by_query(own), self._by_query(own_lse)
        # The last row stands for no block: nothing is added, with no weight.
        partial = own.new_empty(tiles.rows + 1, width)
        partial_lse = own_lse.new_full((tiles.rows + 1,), -math.inf)
        partial[-1] = 0
        queries = self.q.reshape(-1, width)
        for some, rows in self.kernel.batches(tiles):
            block = tiles.block[some]
            gathered = queries.index_select(0, tiles.query[rows])
            part, part_lse = self.kernel.forward(
                gathered[:, None],
                self.k.index_select(0, block),
                self.v.index_select(0, block),
                Runs(tiles.lengths[some], False, self.scale),
            )
            partial[rows], partial_lse[rows] = part[:, 0], part_lse[:, 0]
        parts_lse = partial_lse.index_select(0, tiles.slot.flatten()).view_as(tiles.slot)
        lse = torch.logsumexp(torch.cat([own_lse[:, None], parts_lse], 1), 1)
        merged = own.to(lse.dtype).mul_((own_lse - lse).exp()[:, None])
        for rows, weight in zip(tiles.slot.T, (parts_lse - lse[:, None]).exp().T, strict=True):
            merged.addcmul_(partial.index_select(0, rows).to(lse.dtype), weight[:, None])
        return merged.view(self.shape), lse.view(self.shape[:-1])

    def backward(self, grad: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v of these units, float32 at least."""
        tiles, width = self.tiles, self.shape[-1]
        dq, dk, dv = self.kernel.backward(
            self._own(grad),
            self._own(self.q),
            self.k,
            self.v,
            self._own(out),
            self._own(lse[..., None])[..., 0],
            Runs(self.block_size, True, self.scale),
        )
        # Parts stay as the kernel gives them; sums are float32 at least.
        partial = dq.new_empty(tiles.rows + 1, width)
        partial[-1] = 0
        dq = self._by_query(dq).to(lse.dtype)
        dk, dv = (x.reshape(self.k.shape).to(lse.dtype) for x in (dk, dv))
        queries, grads, outs = (x.reshape(-1, width) for x in (self.q, grad, out))
        sums = lse.flatten()
        filled = torch.ones(tiles.rows, 1, dtype=grads.dtype, device=grads.device)
        filled[tiles.empty] = 0
        for some, rows in self.kernel.batches(tiles):
            block, query = tiles.block[some], tiles.query[rows]
            # An empty row repeats the first query. With neither query nor gradient it adds zero
            # to the gradients of keys and values, at any log-sum-exp.
            dq_rows, dk_tiles, dv_tiles = self.kernel.backward(
                grads.index_select(0, query).mul_(filled[rows])[:, None],
                queries.index_select(0, query).mul_(filled[rows])[:, None],
                self.k.index_select(0, block),
                self.v.index_select(0, block),
                outs.index_select(0, query)[:, None],
                sums.index_select(0, query).mul_(filled[rows, 0])[:, None],
                Runs(tiles.lengths[some], False, self.scale),
            )
            partial[rows] = dq_rows[:, 0]
            dk.index_add_(0, block, dk_tiles.to(dk.dtype))
            dv.index_add_(0, block, dv_tiles.to(dv.dtype))
        for rows in tiles.slot.T:
            dq += partial.index_select(0, rows)
        keys = self.shape[0], self.shape[2], width
        return dq.view(self.shape), dk.view(keys), dv.view(keys)

    def _own(self, x: Tensor) -> Tensor:
        """Turn (U, h, slots, ...) into rows by block, (U * slots, h, ...)."""
        return x.transpose(1, 2).flatten(0, 1)

    def _by_query(self, rows: Tensor) -> Tensor:
        """Turn rows by block (U * slots, h, ...) into rows by query, (U * h * slots, ...)."""
        units, _, slots, _ = self.shape
        return rows.view(units, slots, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def _tiled(chosen: Tensor, blocks: int, kernel: BlockKernel) -> list[tuple[slice, Tiles]]:
    """Tile the queries of as many units at a time as keep the rows gathered for them few."""
    step = max(1, ROWS_AT_ONCE // max(1, chosen[0].numel()))
    slices = [slice(begin, begin + step) for begin in range(0, chosen.shape[0], step)]
    return [
        (some, tile(chosen[some].flatten(1, 2), blocks, cut=kernel.cut, multiple=kernel.multiple))
        for some in slices
    ]


def _kernel(q: Tensor) -> BlockKernel:
    return CudaKernel() if q.is_cuda else CpuKernel()
