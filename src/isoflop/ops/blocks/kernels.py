"""Attention of many short runs of queries, each to its own block of keys, by torch's operators.

Both kernels return partial results with their log-sum-exp, and take the merged output and
log-sum-exp back: a backward pass that is given those is exact for every part of the softmax.

Axes: M runs, R query rows of all runs, h query heads that share a key head, L keys of a block,
K head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from isoflop.ops.blocks.tiles import UNBOUNDED, Tiles


class Runs(NamedTuple):
    """Runs of queries, each of which attends one block."""

    lengths: Tensor | int
    """Rows of each run, (M,), or of every run."""
    causal: bool
    """Whether row i of a run sees keys up to i only."""
    scale: float
    """Multiplies the scores."""


class BlockKernel(Protocol):
    """What block attention needs of a device."""

    cut: int
    """Rows from which a list of queries is worth a second tile."""
    multiple: int
    """Tiles are filled up to a multiple of this many rows."""

    def batches(self, tiles: Tiles) -> Iterator[tuple[slice, slice]]:
        """Yield the tiles and the rows that go into a call together."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> tuple[Tensor, Tensor]:
        """Attend every run of queries to its block.

        Args:
            q: (R, h, K).
            k: (M, L, K).
            v: like `k`.
            runs: how queries are cut, and how they attend.

        Returns:
            Output (R, h, K) and log-sum-exp (R, h), float32 at least.
        """

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        runs: Runs,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v, given the merged `out` and `lse`.

        `grad` and `out` are like `q`, `lse` like that of `forward`; shapes of the gradients are
        those of what they belong to.
        """


class CpuKernel:
    """Torch's flash attention for CPUs, in batches of runs of one length."""

    cut = 1024
    multiple = 64
    # Rows of a call: what is gathered for it stays in cache, and every thread has runs to work on.
    rows_at_once = 1 << 13
    _forward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    _backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

    def batches(self, tiles: Tiles) -> Iterator[tuple[slice, slice]]:
        """Yield batches of tiles of one length."""
        lengths, counts = torch.unique_consecutive(tiles.lengths, return_counts=True)
        tile = row = 0
        for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
            end = tile + count
            while tile < end:
                some = min(max(2, self.rows_at_once // length), end - tile)
                yield slice(tile, tile + some), slice(row, row + some * length)
                tile, row = tile + some, row + some * length

    def forward(self, q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> tuple[Tensor, Tensor]:
        """Attend every run of queries to its block; all runs have one length."""
        count, heads = k.shape[0], q.shape[1]
        out, lse = self._forward(
            _runs(q, count),
            _shared(k, heads),
            _shared(v, heads),
            0.0,
            runs.causal,
            scale=runs.scale,
        )
        return _rows(out), lse.transpose(1, 2).reshape(-1, heads)

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        runs: Runs,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v; all runs have one length."""
        count, heads = k.shape[0], q.shape[1]
        dq, dk, dv = self._backward(
            _runs(grad, count),
            _runs(q, count),
            _shared(k, heads),
            _shared(v, heads),
            _runs(out, count),
            lse.view(count, -1, heads).transpose(1, 2).contiguous(),
            0.0,
            runs.causal,
            scale=runs.scale,
        )
        return _rows(dq), *(d[:, 0] if heads == 1 else d.sum(1) for d in (dk, dv))


class CudaKernel:
    """Torch's variable-length attention; runs of any length in one call, nothing filled up."""

    cut = UNBOUNDED
    multiple = 1

    def __init__(self) -> None:
        import torch.nn.attention.varlen  # registers the operators

        self._forward: Any = torch.ops.torch_attn._varlen_attn
        self._backward: Any = torch.ops.torch_attn._varlen_attn_backward

    def batches(self, tiles: Tiles) -> Iterator[tuple[slice, slice]]:
        """Yield all tiles at once."""
        if tiles.rows:
            yield slice(0, len(tiles.block)), slice(0, tiles.rows)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> tuple[Tensor, Tensor]:
        """Attend every run of queries to its block."""
        out, lse, _ = self._forward(
            q.contiguous(),
            _shared_rows(k),
            _shared_rows(v),
            *_borders(k, runs.lengths),
            runs.causal,
            runs.scale,
            [-1, 0 if runs.causal else -1],
            True,
        )
        return out, lse.transpose(0, 1)

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        runs: Runs,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v."""
        dq, dk, dv = self._backward(
            grad.contiguous(),
            q.contiguous(),
            _shared_rows(k),
            _shared_rows(v),
            out.contiguous(),
            lse.transpose(0, 1).contiguous(),
            *_borders(k, runs.lengths),
            runs.causal,
            # State of a generator that no dropout draws from.
            torch.zeros(2, dtype=torch.uint64, device=q.device),
            runs.scale,
            [-1, 0 if runs.causal else -1],
        )
        return dq, dk.view_as(k), dv.view_as(v)


def _runs(rows: Tensor, runs: int) -> Tensor:
    """Turn rows (R, h, K) into runs of one length (M, h, R / M, K)."""
    return rows.view(runs, -1, *rows.shape[1:]).transpose(1, 2)


def _rows(runs: Tensor) -> Tensor:
    """Turn (M, h, R / M, K) into rows (R, h, K)."""
    return runs.transpose(1, 2).flatten(0, 1)


def _shared(blocks: Tensor, heads: int) -> Tensor:
    """Show blocks (M, L, K) to every query head, (M, h, L, K), without a copy."""
    return blocks[:, None].expand(-1, heads, -1, -1)


def _shared_rows(blocks: Tensor) -> Tensor:
    return blocks.reshape(-1, 1, blocks.shape[-1])


def _borders(k: Tensor, lengths: Tensor | int) -> tuple[Tensor, Tensor, int, int]:
    """Return where runs and blocks begin and end, and the longest of each."""
    runs, keys = k.shape[:2]
    if isinstance(lengths, int):
        lengths = torch.full((runs,), lengths, device=k.device)
    ends = torch.zeros(runs + 1, dtype=torch.int32, device=k.device)
    ends[1:] = lengths.cumsum(0)
    key_ends = torch.arange(runs + 1, dtype=torch.int32, device=k.device) * keys
    return ends, key_ends, int(lengths.max()), keys
