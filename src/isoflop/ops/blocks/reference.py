"""Block attention written out (arXiv 2502.13189, section 2.2): choose blocks, mask, softmax.

Axes: B batch, H query heads, G key/value heads, T time, K head width.
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import torch
from torch import Tensor


def check_block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block_size: int,
    top_k: int,
    documents: Tensor | None,
    routing: Tensor | None,
) -> None:
    """Raise ValueError where arguments of block attention do not fit each other."""
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
    """Attend the own block and the best earlier ones, as the definition has it.

    Arguments and result are those of `block_attention`.
    """
    check_block_attention(q, k, v, block_size, top_k, documents, routing)
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
