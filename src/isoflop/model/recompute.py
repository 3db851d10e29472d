"""Activation checkpointing: what a block computes again in its backward pass (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, assert_never

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from isoflop.config import Recompute
from isoflop.ops import BLOCK_ATTENTION, TILED_ATTENTION

Result = TypeVar("Result")

_KEPT = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    BLOCK_ATTENTION,
    TILED_ATTENTION,
]
"""What `selective` keeps: products of matrices, and attention over all keys or by blocks."""


def recomputed(kind: Recompute, function: Callable[..., Result], *inputs: Any) -> Result:
    """Return `function(*inputs)`, whose backward pass computes again what is not kept.

    Nothing in a block is drawn at random and its routing is decided outside, so that what is
    computed again is the same.

    Args:
        kind: `none` keeps all, `selective` products and attention, `full` the inputs alone.
        function: of tensors, which gives one, or a collection of them.
        inputs: of it.
    """
    again = partial(checkpoint, function, *inputs, use_reentrant=False, preserve_rng_state=False)
    match kind:
        case "none":
            return function(*inputs)
        case "full":
            result: Result = again()
            return result
        case "selective":
            result = again(context_fn=partial(create_selective_checkpoint_contexts, _KEPT))
            return result
        case _:
            assert_never(kind)
