"""Rotary positions (arXiv 2104.09864), in the half-split layout of Llama.

Axes: B batch, T time, H heads, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_tables(length: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines for positions 0 to length - 1.

    Returns:
        Two float32 tensors of shape (T, K/2).
    """
    frequencies = base ** -(torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + K/2]) by its position's angle.

    Args:
        x: queries or keys, (B, T, H, K).
        cosines: (T, K/2), or (B, T, K/2) where each sequence has positions of its own.
        sines: like `cosines`.

    Returns:
        (B, T, H, K) in the dtype of `x`.
    """
    cosines, sines = cosines.unsqueeze(-2), sines.unsqueeze(-2)
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
    return turned.to(x.dtype)
