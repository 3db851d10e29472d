"""FLOPs of products that torch counts in a model, as a whole and in each module of one's own."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from isoflop.config import BlockAttention, Part
from isoflop.costs import attended_pairs
from isoflop.model import OwnBlock, OwnPart, Transformer

Key = tuple[int, Part]
"""Block and part."""
WHOLE: Key = (-1, "block")


def parts_of(model: Transformer) -> dict[Key, OwnPart]:
    """Return each module of one's own by its block and part."""
    return {(block, module.part): module for block, module in model.own}


def counted(model: Transformer, tokens: Tensor) -> tuple[dict[Key, int], float]:
    """Return the FLOPs that torch counts in a forward pass, by block and part and of the whole
    model, and those of the backward pass over these."""
    names = {id(module): f"Transformer.{name}" for name, module in model.named_modules()}
    aten, ours = torch.ops.aten, torch.ops.isoflop
    known = {
        aten._grouped_mm: _grouped,
        aten.convolution_backward: _convolution_backward,
        ours.block_attention: _block_attention,
        ours.block_attention_backward: _block_attention_backward,
    }
    # Kernels that are fused have no formula on a CPU and would count as free.
    with (
        sdpa_kernel(SDPBackend.MATH),
        warnings.catch_warnings(action="ignore"),  # of what oneDNN could do on another device
        torch.backends.mkldnn.flags(enabled=False),
        FlopCounterMode(display=False, custom_mapping=known) as counter,
    ):
        loss = model(tokens).logits.square().mean()
        forward = counter.get_total_flops()
        by_name = {name: sum(ops.values()) for name, ops in counter.flop_counts.items()}
        loss.backward()
        backward = counter.get_total_flops() - forward
    found = {WHOLE: forward}
    for key, module in parts_of(model).items():
        found[key] = by_name.get(names[id(module.own)], 0)
        around = model.blocks[key[0]]
        if key[1] == "depth" and isinstance(around, OwnBlock):
            found[key] -= by_name.get(names[id(around.block)], 0)
    return found, backward / forward


def _grouped(rows: Any, matrices: Any, *_: Any, **__: Any) -> int:
    """Return the FLOPs of products of the rows of each group with a matrix of its own.

    Of (M, K) with (G, K, N), and in the backward pass of (M, K) with (K, N) in G groups of K.
    """
    return int(2 * math.prod(rows) * matrices[-1])


def _convolution_backward(out: Any, x: Any, weight: Any, *how: Any, **_: Any) -> int:
    """Return the FLOPs of the gradients of a convolution, each of which takes what it takes.

    Torch's formula for that of the weights has each group meet the channels of all.
    """
    transposed, wanted = how[4], how[7]
    positions = math.prod((x if transposed else out)[2:])
    return int(2 * sum(wanted[:2]) * out[0] * positions * math.prod(weight))


def _block_attention(q: Any, k: Any, v: Any, *how: Any, **_: Any) -> int:
    attended, gated = _by_block(q, *how[2:4])
    return 2 * attended + gated


def _block_attention_backward(grad: Any, _: Any, results: Any, *how: Any, **__: Any) -> int:
    # As many blocks as were chosen, and the own one; choosing passes no gradient.
    return 4 * _by_block(grad, how[1], results[2][-1] + 1)[0]


def _by_block(q: Any, block_size: int, top_k: int) -> tuple[int, int]:
    """Return the FLOPs of a product of queries (B, H, T, K) with the keys of whole blocks, and with
    the means of blocks."""
    batch, heads, length, width = q
    attention = BlockAttention(block_size=block_size, top_k=top_k)
    attended, gated = attended_pairs(attention, length, causal=False)
    return 2 * batch * heads * width * attended, 2 * batch * heads * width * gated
