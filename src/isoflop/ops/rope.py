"""Rotary positions (arXiv 2104.09864), in the half-split layout of Llama.

Axes: B batch, T time, H heads, K head width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from isoflop.config.model import RopeScaling


def rotary_tables(
    length: int, head_width: int, base: float, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines for positions 0 to length - 1.

    Scaled, frequencies of few turns within the former context are divided by the factor, those of
    many stay, and between them both are mixed by the turns (Llama 3, arXiv 2407.21783, section 3.4,
    as transformers computes it).

    Returns:
        Two float32 tensors of shape (T, K/2).
    """
    frequencies = base ** -(torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    if scaling is not None:
        kept = torch.zeros_like(frequencies)
        if scaling.kind == "llama3":
            turns = scaling.trained * frequencies / (2 * math.pi)
            kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
        frequencies = kept * frequencies + (1 - kept) * frequencies / scaling.factor
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
