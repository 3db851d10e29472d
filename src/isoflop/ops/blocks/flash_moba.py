"""Block attention by the FlashMoBA package (arXiv 2511.11571), where it is installed."""

from __future__ import annotations

import torch
from torch import Tensor


def flash_moba_can(q: Tensor) -> bool:
    """Return whether the FlashMoBA package is there and takes such tensors.

    In compiled code it is not taken: that its calls leave a graph whole is nobody's promise.
    """
    if (
        torch.compiler.is_compiling()
        or not q.is_cuda
        or q.dtype not in (torch.float16, torch.bfloat16)
        or q.shape[-1] > 256
    ):
        return False
    try:
        import flash_moba  # noqa: F401
    except ImportError:
        return False
    return True


def flash_moba_attention(
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
