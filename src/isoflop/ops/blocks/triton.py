"""Block attention on CUDA by Triton kernels, which gather queries as they read them.

The queries that attend a block are a run, wherever they lie (arXiv 2502.13189; 2511.11571). A pair
is a query and a block that it attends, its own one among them. Outputs of pairs are partial and
merged by log-sum-exp; the backward pass takes the merged ones, which makes each pair's gradient
exact. One program makes the gradients of a tile of keys, so that nothing is added atomically. No
call waits for the device: grids are as large as they may have to be, and programs beyond the last
run end at once.

Never run on a GPU, in no dtype: tests run the kernels by Triton's interpreter on a CPU, in float32
and float16 (it has no bfloat16); compiling them for compute capability 9.0 was tried by hand.

Axes: U units (a batch row and a key/value head), h query heads that share a unit's keys, Q slots of
a sequence in whole blocks, K head width, S selected earlier blocks per query, C = S + 1, N key
blocks, P pairs.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Pairs whose partial results are held at a time.
PAIRS_AT_ONCE = 1 << 21
# Bytes of a tile of queries or keys in a kernel, which has room for six of them.
TILE_BYTES = 1 << 14


def forward(
    q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, block_size: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend own and chosen blocks, as `parts.forward` does.

    Raises:
        ValueError: the inputs are not of float16, bfloat16 or float32.
    """
    _check(q)
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:-1], dtype=torch.float32)
    for some in _units_at_once(chosen):
        plan = _Plan.of(q[some], chosen[some], block_size)
        partial = q.new_zeros(plan.pairs.shape[0], q.shape[-1])
        partial_lse = lse.new_full(plan.pairs.shape, -math.inf)
        _forward[(len(plan.lists),)](
            q[some], k[some], v[some], (partial, partial_lse), tuple(plan[:4]), scale, plan.shape
        )
        choices = chosen.shape[-1] + 1
        parts_lse = partial_lse.view(-1, choices)
        merged_lse = parts_lse.logsumexp(1)
        merged = torch.zeros(len(parts_lse), q.shape[-1], device=q.device)
        weights = (parts_lse - merged_lse[:, None]).exp()
        for part, weight in zip(
            partial.view(-1, choices, q.shape[-1]).unbind(1), weights.unbind(1), strict=True
        ):
            merged.addcmul_(part.float(), weight[:, None])
        out[some], lse[some] = merged.view_as(out[some]), merged_lse.view_as(lse[some])
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
    """Return the gradients of q, k and v, as `parts.backward` does."""
    _check(q)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    # Of each row, the product of the output and its gradient, which all its pairs share.
    delta = (grad.float() * out.float()).sum(-1)
    grad, lse = grad.contiguous(), lse.contiguous()
    for some in _units_at_once(chosen):
        plan = _Plan.of(q[some], chosen[some], block_size)
        rows = (grad[some], lse[some], delta[some])
        where, shape = tuple(plan[:4]), plan.shape
        partial = q.new_zeros(plan.pairs.shape[0], q.shape[-1])
        _backward_queries[(len(plan.lists),)](
            q[some], k[some], v[some], rows, partial, where, scale, shape
        )
        dq[some] = partial.view(*q[some].shape[:3], -1, q.shape[-1]).sum(3, dtype=torch.float32)
        blocks = len(plan.borders) - 1
        _backward_keys[(blocks, triton.cdiv(block_size, plan.tile))](
            q[some], k[some], v[some], rows, (dk[some], dv[some]), where, scale, shape
        )
    return dq, dk, dv


class _Plan(NamedTuple):
    """Which pairs each program takes."""

    pairs: Tensor
    """Pairs in the order of their blocks, those without one last; a pair is query * C + choice."""
    borders: Tensor
    """Where the run of each block begins, and where the last one ends, (U * N + 1,)."""
    lists: Tensor
    """Block of each program."""
    begins: Tensor
    """First pair of each program; where its block's run ends or later, it has none."""
    shape: tuple[int | str, ...]
    """What kernels are compiled for: C, Q, the block's size, K, K filled up, rows and precision."""

    @property
    def tile(self) -> int:
        """Queries or keys that a kernel takes at a time."""
        return int(self.shape[5])

    @classmethod
    def of(cls, q: Tensor, chosen: Tensor, block_size: int) -> _Plan:
        """Plan for queries (U, h, Q, K) and their chosen blocks (U, h, Q, S)."""
        units, heads, slots, width = q.shape
        device, blocks = q.device, slots // block_size
        wide = max(16, triton.next_power_of_2(width))
        size = q.element_size()
        # Products of float32 are no work of tensor cores, and long code where tiles are large.
        tile = min(128 // size, max(16, TILE_BYTES // (wide * size)))
        own = torch.arange(slots, device=device) // block_size
        every = torch.cat([own[:, None].expand(units, heads, -1, 1), chosen], -1)
        numbers = every + torch.arange(units, device=device)[:, None, None, None] * blocks
        last = units * blocks
        numbers = numbers.masked_fill(every < 0, last).to(torch.int32)
        numbers, pairs = numbers.flatten().sort(stable=True)
        each = torch.arange(last + 1, device=device, dtype=torch.int32)
        borders = torch.searchsorted(numbers, each)
        tiles = -(-borders.diff() // tile)
        ends = tiles.cumsum(0)
        # Every run has at most one tile that is not full.
        programs = torch.arange(len(pairs) // tile + last, device=device)
        lists = torch.searchsorted(ends, programs, right=True)
        # Those beyond the last run begin where it has ended.
        lists = lists.clamp_(max=last - 1)
        begins = borders[lists] + (programs - (ends - tiles)[lists]) * tile
        choices = every.shape[-1]
        # Products of float32 are as torch makes its own.
        precise = torch.get_float32_matmul_precision() == "highest"
        precision = "ieee" if precise else "tf32"
        shape = (choices, slots, block_size, width, wide, tile, precision)
        return cls(pairs, borders, lists, begins, shape)


def _check(q: Tensor) -> None:
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ValueError(f"q is {q.dtype}; expected float16, bfloat16 or float32 on {q.device}")


def _units_at_once(chosen: Tensor) -> list[slice]:
    pairs = chosen.shape[1] * chosen.shape[2] * (chosen.shape[3] + 1)
    step = max(1, PAIRS_AT_ONCE // pairs)
    return [slice(begin, begin + step) for begin in range(0, chosen.shape[0], step)]


@triton.jit
def _taken(x, rows, there, shape: tl.constexpr):
    """Load the rows of x (..., K) at `rows`, zero where not `there`, filled up with zeros."""
    columns = tl.arange(0, shape[4])
    held = there[:, None] & (columns < shape[3])[None, :]
    return tl.load(x + rows[:, None] * shape[3] + columns[None, :], mask=held, other=0.0)


@triton.jit
def _put(x, rows, there, values, shape: tl.constexpr):
    """Store `values` where `_taken` loads them."""
    columns = tl.arange(0, shape[4])
    held = there[:, None] & (columns < shape[3])[None, :]
    at = x + rows[:, None] * shape[3] + columns[None, :]
    tl.store(at, values.to(x.dtype.element_ty), mask=held)


@triton.jit
def _product(x, y, shape: tl.constexpr):
    """x times y in float32."""
    return tl.dot(x, y, input_precision=shape[6])


@triton.jit
def _scores(queries, keys, positions, key_positions, scale, shape: tl.constexpr):
    """Scores of queries and keys, minus infinity where a key is behind the query."""
    scores = _product(queries, tl.trans(keys), shape) * scale
    return tl.where(key_positions[None, :] <= positions[:, None], scores, float("-inf"))


@triton.jit
def _pairs_at(begin, end, plan, shape: tl.constexpr):
    """Return a tile of pairs, which of them are there, and rows and positions of their queries."""
    at = begin + tl.arange(0, shape[5])
    there = at < end
    pairs = tl.load(plan[0] + at, mask=there, other=0)
    rows = pairs // shape[0]
    # One that is not there sees all keys, so that its softmax has terms.
    return pairs, there, rows, tl.where(there, rows % shape[1], shape[1])


@triton.jit
def _keys_at(block, start, shape: tl.constexpr):
    """Return a tile of a block's keys: their rows, which are there, and their positions."""
    inside = start + tl.arange(0, shape[5])
    there = inside < shape[2]
    rows = block * shape[2] + inside
    # One that is not there is behind all queries.
    return rows, there, tl.where(there, rows % shape[1], shape[1] + 1)


@triton.jit
def _forward(q, k, v, results, plan, scale, shape: tl.constexpr):
    """Attend a tile of queries to their block: partial output and log-sum-exp of each pair."""
    block = tl.load(plan[2] + tl.program_id(0))
    begin = tl.load(plan[3] + tl.program_id(0))
    end = tl.load(plan[1] + block + 1)
    if begin >= end:
        return
    pairs, there, rows, positions = _pairs_at(begin, end, plan, shape)
    queries = _taken(q, rows, there, shape)
    largest = tl.full((shape[5],), float("-inf"), tl.float32)
    total = tl.zeros((shape[5],), tl.float32)
    sums = tl.zeros((shape[5], shape[4]), tl.float32)
    # The first key of a block is seen by all its queries, so that the largest score is finite.
    for start in range(0, shape[2], shape[5]):
        key_rows, keys_there, key_positions = _keys_at(block, start, shape)
        keys = _taken(k, key_rows, keys_there, shape)
        values = _taken(v, key_rows, keys_there, shape)
        scores = _scores(queries, keys, positions, key_positions, scale, shape)
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp(scores - larger[:, None])
        kept = tl.exp(largest - larger)
        total = total * kept + tl.sum(weights, 1)
        sums = sums * kept[:, None] + _product(weights.to(values.dtype), values, shape)
        largest = larger
    _put(results[0], pairs, there, sums / total[:, None], shape)
    tl.store(results[1] + pairs, largest + tl.log(total), mask=there)


@triton.jit
def _slopes(scores, grads, values, lse, delta, shape: tl.constexpr):
    """Return weights and gradients of scores (arXiv 2307.08691, algorithm 2)."""
    weights = tl.exp(scores - lse[:, None])
    return weights, weights * (_product(grads, tl.trans(values), shape) - delta[:, None])


@triton.jit
def _backward_queries(q, k, v, given, partial, plan, scale, shape: tl.constexpr):
    """Make the partial gradient of a tile of queries, pair by pair."""
    block = tl.load(plan[2] + tl.program_id(0))
    begin = tl.load(plan[3] + tl.program_id(0))
    end = tl.load(plan[1] + block + 1)
    if begin >= end:
        return
    pairs, there, rows, positions = _pairs_at(begin, end, plan, shape)
    queries, grads = _taken(q, rows, there, shape), _taken(given[0], rows, there, shape)
    lse = tl.load(given[1] + rows, mask=there, other=0.0)
    delta = tl.load(given[2] + rows, mask=there, other=0.0)
    sums = tl.zeros((shape[5], shape[4]), tl.float32)
    for start in range(0, shape[2], shape[5]):
        key_rows, keys_there, key_positions = _keys_at(block, start, shape)
        keys = _taken(k, key_rows, keys_there, shape)
        values = _taken(v, key_rows, keys_there, shape)
        scores = _scores(queries, keys, positions, key_positions, scale, shape)
        _, slopes = _slopes(scores, grads, values, lse, delta, shape)
        sums += _product(slopes.to(keys.dtype), keys, shape)
    _put(partial, pairs, there, sums * scale, shape)


@triton.jit
def _backward_keys(q, k, v, given, results, plan, scale, shape: tl.constexpr):
    """Make the gradients of a tile of a block's keys and values from all its queries."""
    block = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(plan[1] + block), tl.load(plan[1] + block + 1)
    key_rows, keys_there, key_positions = _keys_at(block, tl.program_id(1) * shape[5], shape)
    keys = _taken(k, key_rows, keys_there, shape)
    values = _taken(v, key_rows, keys_there, shape)
    key_sums = tl.zeros((shape[5], shape[4]), tl.float32)
    value_sums = tl.zeros((shape[5], shape[4]), tl.float32)
    for at in range(begin, end, shape[5]):
        _, there, rows, positions = _pairs_at(at, end, plan, shape)
        queries, grads = _taken(q, rows, there, shape), _taken(given[0], rows, there, shape)
        lse = tl.load(given[1] + rows, mask=there, other=0.0)
        delta = tl.load(given[2] + rows, mask=there, other=0.0)
        scores = _scores(queries, keys, positions, key_positions, scale, shape)
        weights, slopes = _slopes(scores, grads, values, lse, delta, shape)
        value_sums += _product(tl.trans(weights.to(grads.dtype)), grads, shape)
        key_sums += _product(tl.trans(slopes.to(queries.dtype)), queries, shape)
    _put(results[0], key_rows, keys_there, key_sums * scale, shape)
    _put(results[1], key_rows, keys_there, value_sums, shape)
