"""The loss of a readout without its whole logits.

Axes: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isoflop.memory import LOGITS_AT_A_TIME


def chunked_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    logits: int = LOGITS_AT_A_TIME,
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of the logits x W^T, and the loss of each token.

    Tokens are taken in chunks. The gradient of a chunk's logits, softmax less one-hot, is known as
    soon as its losses are, so it is carried on to `x` and `weight` at once and the logits are
    dropped: three products, as with whole logits, where recomputing them in the backward pass takes
    four. Products are in autocast's type where it is on; losses and sums are in float32 at least.

    Args:
        x: normed residual stream, (N, D).
        weight: of the head, (V, D).
        targets: int64 ids, (N,).
        logits: most that exist at a time, though never less than those of one token.
        slopes: `losses_and_slope` compiled; None for it as it is.

    Returns:
        The mean, a scalar in nats per token, which carries the gradient, and the losses, (N,),
        which carry none.
    """
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    rows = max(1, logits // weight.shape[0])
    with torch.autocast(x.device.type, enabled=False):
        mean, losses = _Chunked.apply(  # type: ignore[no-untyped-call]
            x, weight, targets, rows, dtype, slopes or losses_and_slope
        )
    return mean, losses


def losses_and_slope(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses (N,) and the slope of each by its logits: softmax less one-hot, (N, V)."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chances = wide.log_softmax(-1)
    losses = -chances.gather(1, targets[:, None]).squeeze(1)
    slope = chances.exp_().scatter_add_(1, targets[:, None], -torch.ones_like(losses)[:, None])
    return losses, slope.to(logits.dtype)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, weight, targets, rows, dtype, function
    ) -> tuple[Tensor, Tensor]:
        table = weight.to(dtype)
        losses = []
        wanted = ctx.needs_input_grad[:2]
        x_slope = torch.empty_like(x) if wanted[0] else None
        table_slope = torch.zeros_like(weight) if wanted[1] else None
        for start in range(0, len(x), rows):
            chunk = x[start : start + rows].to(dtype)
            loss, slope = function(chunk @ table.T, targets[start : start + rows])
            losses.append(loss)
            if x_slope is not None:
                x_slope[start : start + rows] = slope @ table
            if table_slope is not None:
                table_slope += slope.T @ chunk
            # Or it would stay until the next chunk has its own.
            del slope
        told = torch.cat(losses)
        ctx.tokens = len(x)
        ctx.save_for_backward(x_slope, table_slope)
        ctx.mark_non_differentiable(told)
        return told.mean(), told

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, mean_slope: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        share = mean_slope / ctx.tokens
        x_slope, table_slope = (
            None if slope is None else slope * share for slope in ctx.saved_tensors
        )
        return x_slope, table_slope, None, None, None, None
