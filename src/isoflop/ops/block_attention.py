"""Mixture of Block Attention (arXiv 2502.13189): a reference, and the fast path.

Keys are split into blocks. A query attends its own block causally and, of the earlier blocks, the
top_k - 1 whose mean key has the largest product with it. `top_k` counts the own block.

Axes: B batch, H query heads, G key/value heads, T time, K head width, N key blocks, S selected
earlier blocks per query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isoflop.ops.attention import causal_attention
from isoflop.ops.block_kernels import BlockKernel, CpuKernel, CudaKernel
from isoflop.ops.block_routing import (
    NONE,
    BlockLayout,
    block_layout,
    block_means,
    choose_blocks,
)
from isoflop.ops.block_tiles import Tiles, tile

# Rows of gathered queries held at a time; the partial results of all are needed to merge them.
ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class BlockAttentionResult:
    """What block attention computed, and what it attended."""

    output: Tensor
    """(B, H, T, K)."""
    log_sum_exp: Tensor
    """Of the scaled scores attended, (B, H, T), float32 at least; -inf at padding. It carries no
    gradient."""
    routing: Tensor
    """Earlier blocks attended, (B, H, T, S), counted from the start of the document; -1 for
    none."""

    def queries_by_block(self) -> Tensor:
        """Return how many queries chose each block besides its own, (B, H, N), summed over
        documents."""
        blocks = int(self.routing.max()) + 1 if self.routing.numel() else 0
        chosen = (self.routing + 1).flatten(2)
        counts = chosen.new_zeros(*chosen.shape[:2], blocks + 1)
        counts.scatter_add_(2, chosen, torch.ones_like(chosen))
        return counts[..., 1:]


def block_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    top_k: int,
    scale: float | None = None,
    documents: Tensor | None = None,
    routing: Tensor | None = None,
) -> Tensor:
    """Block attention written out (section 2.2): choose blocks, mask, softmax.

    Arguments and result are those of `block_attention`.
    """
    _check(q, k, v, block_size, top_k, documents, routing)
    batch, heads, length, width = q.shape
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    allowed = torch.zeros(batch, heads, length, length, dtype=torch.bool, device=q.device)
    for row, head in product(range(batch), range(heads)):
        for start, end in _documents(None if documents is None else documents[row], length):
            if routing is None:
                chosen = _choose_reference(
                    q[row, head, start:end], k[row, head, start:end], block_size, top_k
                )
            else:
                chosen = routing[row, head, start:end].tolist()
            for t in range(start, end):
                own = (t - start) // block_size
                for block in (*chosen[t - start], own):
                    if block >= 0:
                        begin = start + block * block_size
                        allowed[row, head, t, begin : min(begin + block_size, t + 1)] = True
    scores = q @ k.transpose(-1, -2) * (width**-0.5 if scale is None else scale)
    weights = scores.masked_fill(~allowed, -math.inf).softmax(-1)
    # Padding attends nothing; 0 / 0 is not its output.
    return weights.masked_fill(~allowed.any(-1, keepdim=True), 0) @ v


@overload
def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    top_k: int,
    scale: float | None = ...,
    documents: Tensor | None = ...,
    routing: Tensor | None = ...,
    details: Literal[False] = ...,
) -> Tensor: ...


@overload
def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    top_k: int,
    scale: float | None = ...,
    documents: Tensor | None = ...,
    routing: Tensor | None = ...,
    details: Literal[True],
) -> BlockAttentionResult: ...


@torch.compiler.disable  # type: ignore[untyped-decorator]
def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    top_k: int,
    scale: float | None = None,
    documents: Tensor | None = None,
    routing: Tensor | None = None,
    details: bool = False,
) -> Tensor | BlockAttentionResult:
    """Attend the own block and the best earlier ones (Mixture of Block Attention, section 2.2).

    A block is chosen by the product of the query with the block's mean key, taken in float32 at
    least, for every query head on its own; of equal ones the earliest. Choosing passes no
    gradient. Where top_k * block_size >= T this is full attention, and runs as such.

    Args:
        q: (B, H, T, K), positions already applied.
        k: (B, G, T, K) with G dividing H; query head h reads key head h // (H/G).
        v: like `k`.
        block_size: keys in a block; the last block may be partial.
        top_k: blocks attended, the own one among them.
        scale: multiplies the scores; None for K ** -0.5.
        documents: (B, T) integers: runs of one number are documents, which do not attend each
            other and whose blocks are counted from their start; negative numbers are padding,
            which is not attended and gets zeros. None for one document per row.
        routing: blocks to attend besides the own one, (B, H, T, S), as in
            `BlockAttentionResult`, in place of the gate; those must be distinct and earlier.
        details: return a `BlockAttentionResult`.

    Returns:
        (B, H, T, K), or the result with its log-sum-exp and routing.

    Raises:
        ValueError: shapes do not fit, or `block_size` or `top_k` is below 1.
    """
    _check(q, k, v, block_size, top_k, documents, routing)
    batch, heads, length, width = q.shape
    scale = width**-0.5 if scale is None else scale
    gated = routing is None
    if gated and not details:
        if documents is None and top_k * block_size >= length:
            return causal_attention(q, k, v, scale=scale)
        if documents is None and _flash_moba_can(q):
            return _flash_moba(q, k, v, block_size, top_k, scale)
    layout = block_layout(batch, length, block_size, documents, q.device)
    laid_out = [layout.lay_out(x) for x in (q, k, v)]
    with torch.no_grad():
        if routing is None:
            means = block_means(laid_out[1], block_size)
            chosen = choose_blocks(laid_out[0], means, layout.first, block_size, top_k - 1)
        else:
            chosen = _laid_out_routing(routing, layout)
        if layout.source is not None:
            chosen = chosen.masked_fill((layout.source == NONE)[:, None, :, None], NONE)
    # A unit is a batch row and a key head.
    units = batch * k.shape[1]
    shared = heads // k.shape[1]
    slots = layout.blocks * block_size
    out, lse = _BlockAttention.apply(  # type: ignore[no-untyped-call]
        laid_out[0].reshape(units, shared, slots, width),
        laid_out[1].reshape(units, slots, width),
        laid_out[2].reshape(units, slots, width),
        chosen.reshape(units, shared, slots, chosen.shape[-1]),
        block_size,
        scale,
    )
    output = layout.take_back(out.view_as(laid_out[0]), 0.0)
    if not details:
        return output
    first = layout.first.repeat_interleave(block_size, dim=1)[:, None, :, None]
    relative = torch.where(chosen >= 0, chosen - first, NONE)
    return BlockAttentionResult(
        output=output,
        log_sum_exp=layout.take_back(lse.view(batch, heads, -1), -math.inf),
        routing=layout.take_back(relative, NONE),
    )


class _BlockAttention(torch.autograd.Function):
    """Own blocks and selected blocks, merged by log-sum-exp.

    q is (U, h, N * block_size, K) and k, v are (U, N * block_size, K), for U pairs of a batch row
    and a key head, and h query heads that share it; `chosen` is (U, h, N * block_size, S).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        chosen: Tensor,
        block_size: int,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        kernel = _kernel(q)
        results: list[tuple[Tensor, ...]] = []
        tiles = []
        for some in _units_at_once(chosen):
            part = _Part(q[some], k[some], v[some], chosen[some], block_size, scale, kernel)
            results.append(part.forward(q.dtype))
            tiles.append(part.tiles)
        out, lse = _joined(results)
        ctx.save_for_backward(q, k, v, out, lse, chosen)
        ctx.tiles, ctx.block_size, ctx.scale = tiles, block_size, scale
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, chosen = ctx.saved_tensors
        kernel = _kernel(q)
        results = []
        for some, tiles in zip(_units_at_once(chosen), ctx.tiles, strict=True):
            part = _Part(
                q[some], k[some], v[some], chosen[some], ctx.block_size, ctx.scale, kernel, tiles
            )
            gradients = part.backward(grad[some], out[some], lse[some])
            results.append(tuple(gradient.to(q.dtype) for gradient in gradients))
        dq, dk, dv = _joined(results)
        return dq, dk, dv, None, None, None


class _Part:
    """Block attention of some units, small enough to hold all partial results of."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        chosen: Tensor,
        block_size: int,
        scale: float,
        kernel: BlockKernel,
        tiles: Tiles | None = None,
    ) -> None:
        self.shape, self.block_size = q.shape, block_size
        self.scale, self.kernel = scale, kernel
        units, self.heads, slots, _ = q.shape
        self.blocks = slots // block_size
        self.q = q
        self.k, self.v = (x.reshape(units * self.blocks, block_size, -1) for x in (k, v))
        self.tiles = tiles or tile(
            chosen.flatten(1, 2),
            self.blocks,
            cut=kernel.cut,
            multiple=kernel.multiple,
        )

    def forward(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return output (U, h, slots, K) in `dtype` and log-sum-exp (U, h, slots)."""
        tiles, width = self.tiles, self.shape[-1]
        own, own_lse = self.kernel.forward(
            self._own(self.q), self.k, self.v, self.block_size, True, self.scale
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
                tiles.lengths[some],
                False,
                self.scale,
            )
            partial[rows], partial_lse[rows] = part[:, 0], part_lse[:, 0]
        parts_lse = partial_lse[tiles.slot]
        lse = torch.logsumexp(torch.cat([own_lse[:, None], parts_lse], 1), 1)
        merged = own.to(lse.dtype).mul_((own_lse - lse).exp()[:, None])
        for rows, weight in zip(tiles.slot.T, (parts_lse - lse[:, None]).exp().T, strict=True):
            merged.addcmul_(partial.index_select(0, rows).to(lse.dtype), weight[:, None])
        return merged.to(dtype).view(self.shape), lse.view(self.shape[:-1])

    def backward(self, grad: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v of these units, float32 at least."""
        tiles, width = self.tiles, self.shape[-1]
        dq, dk, dv = (
            x.to(lse.dtype)
            for x in self.kernel.backward(
                self._own(grad),
                self._own(self.q),
                self.k,
                self.v,
                self._own(out),
                self._own(lse[..., None])[..., 0],
                self.block_size,
                True,
                self.scale,
            )
        )
        dq = self._by_query(dq)
        dk, dv = (x.reshape(self.k.shape) for x in (dk, dv))
        partial = dq.new_empty(tiles.rows + 1, width)
        partial[-1] = 0
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
                tiles.lengths[some],
                False,
                self.scale,
            )
            partial[rows] = dq_rows[:, 0].to(partial.dtype)
            dk.index_add_(0, block, dk_tiles.to(dk.dtype))
            dv.index_add_(0, block, dv_tiles.to(dv.dtype))
        for rows in tiles.slot.T:
            dq += partial.index_select(0, rows)
        return dq.view(self.shape), dk.view(self._keys_shape), dv.view(self._keys_shape)

    @property
    def _keys_shape(self) -> tuple[int, int, int]:
        return self.shape[0], self.shape[2], self.shape[3]

    def _own(self, x: Tensor) -> Tensor:
        """Turn (U, h, slots, ...) into rows by block, (U * slots, h, ...)."""
        return x.transpose(1, 2).flatten(0, 1)

    def _by_query(self, rows: Tensor) -> Tensor:
        """Turn rows by block (U * slots, h, ...) into rows by query, (U * h * slots, ...)."""
        units, _, slots, _ = self.shape
        return rows.view(units, slots, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def _units_at_once(chosen: Tensor) -> list[slice]:
    """Split units so that the rows gathered for one slice stay few."""
    units, rows = chosen.shape[0], chosen[0].numel()
    step = max(1, ROWS_AT_ONCE // max(1, rows))
    return [slice(begin, begin + step) for begin in range(0, units, step)]


def _joined(parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Join what parts gave, unit after unit; a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    whole = tuple(
        x.new_empty(sum(part[i].shape[0] for part in parts), *x.shape[1:])
        for i, x in enumerate(parts[0])
    )
    begin = 0
    while parts:
        part = parts.pop(0)
        end = begin + part[0].shape[0]
        for to, x in zip(whole, part, strict=True):
            to[begin:end] = x
        begin = end
    return whole


def _kernel(q: Tensor) -> BlockKernel:
    return CudaKernel() if q.is_cuda else CpuKernel()


def _laid_out_routing(routing: Tensor, layout: BlockLayout) -> Tensor:
    """Turn blocks counted from a document's start into blocks of the layout."""
    laid_out = layout.lay_out(routing)
    first = layout.first.repeat_interleave(layout.block_size, dim=1)[:, None, :, None]
    return torch.where(laid_out >= 0, laid_out + first, NONE)


def _flash_moba_can(q: Tensor) -> bool:
    """Return whether the FlashMoBA package is there and takes such tensors."""
    if not q.is_cuda or q.dtype not in (torch.float16, torch.bfloat16) or q.shape[-1] > 256:
        return False
    try:
        import flash_moba  # noqa: F401
    except ImportError:
        return False
    return True


def _flash_moba(
    q: Tensor, k: Tensor, v: Tensor, block_size: int, top_k: int, scale: float
) -> Tensor:
    """Block attention by FlashMoBA's kernels (arXiv 2511.11571), which count the own block too."""
    from flash_moba import flash_moba_varlen_func

    batch, heads, length, width = q.shape
    # Their scale is fixed at K ** -0.5.
    q = q * (scale * width**0.5)
    packed = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]
    ends = torch.arange(batch + 1, dtype=torch.int32, device=q.device) * length
    out: Tensor = flash_moba_varlen_func(
        *packed, ends, ends, length, length, block_size, top_k, causal=True
    )
    return out.view(batch, length, heads, width).transpose(1, 2)


def _choose_reference(q: Tensor, k: Tensor, block_size: int, top_k: int) -> list[list[int]]:
    """Return the earlier blocks that each query of one head and document attends."""
    wide = torch.promote_types(q.dtype, torch.float32)
    means = torch.stack([block.mean(0) for block in torch.split(k.detach().to(wide), block_size)])
    scores = (q.detach().to(wide) @ means.T).tolist()
    # Sorting is stable: of equal scores the earliest block comes first.
    return [
        sorted(range(t // block_size), key=lambda block: -row[block])[: top_k - 1]
        for t, row in enumerate(scores)
    ]


def _documents(numbers: Tensor | None, length: int) -> list[tuple[int, int]]:
    """Return where each document of a row begins and ends, padding left out."""
    if numbers is None:
        return [(0, length)]
    values = numbers.tolist()
    borders = [t for t in range(length) if t == 0 or values[t] != values[t - 1]] + [length]
    return [(start, end) for start, end in pairwise(borders) if values[start] >= 0]


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block_size: int,
    top_k: int,
    documents: Tensor | None,
    routing: Tensor | None,
) -> None:
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; expected at least 1")
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; expected at least 1, the own block")
    shapes = [tuple(x.shape) for x in (q, k, v)]
    if (
        q.dim() != 4
        or shapes[1] != shapes[2]
        or shapes[1] != (shapes[0][0], shapes[1][1], *shapes[0][2:])
        or q.shape[1] % k.shape[1]
        or q.shape[2] < 1
    ):
        raise ValueError(
            f"q, k and v have the shapes {shapes}; expected (B, H, T, K) and twice (B, G, T, K) "
            "with G dividing H"
        )
    if documents is not None and documents.shape != (q.shape[0], q.shape[2]):
        raise ValueError(
            f"documents has the shape {tuple(documents.shape)}; expected (B, T) = "
            f"{(q.shape[0], q.shape[2])}"
        )
    if routing is not None and (routing.dim() != 4 or routing.shape[:3] != q.shape[:3]):
        raise ValueError(
            f"routing has the shape {tuple(routing.shape)}; expected (B, H, T, S) with "
            f"(B, H, T) = {tuple(q.shape[:3])}"
        )
