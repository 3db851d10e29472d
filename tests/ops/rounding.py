"""How far attention may be from the truth by rounding alone, whichever kernel computes it.

Rounding errors are taken as independent and without mean, each within the unit roundoff of what is
rounded (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019). Their sum, weighted with what each
does to the result, exceeds LIMIT times the root of the sum of squares with a probability below
2 exp(-LIMIT**2 / 2) (Hoeffding). What is rounded, and how large it is, follows from the steps that
every kernel takes, in whatever order it adds:

- a sum of n products is accumulated in float32 at least: n additions, none larger than the sum of
  the products' sizes;
- scores, weights, results, and the gradients of each may be stored in the narrow type;
- what is smaller than the smallest normal number of float32 may be taken for zero;
- an exponential is off by 20 units in the last place, which torch allows its fast one.

What is left where terms cancel is as large as the terms' errors were: the gradient of a query with
a single key is zero, and its two terms are not.

Axes: B batch, H query heads, G key heads, T queries, S keys, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of 100,000 elements one is beyond it with a probability of 0.3%, were every error the largest.
LIMIT = 6.0
EXPONENTIAL_ULPS = 20
# Exponentials of a weight, of rescaling to a new largest score, and of merging two parts.
EXPONENTIALS = 3
# Differences and logarithms of scores: to the largest so far, between two largest, the log-sum-exp
# of a part and of all, their difference, and the score less the log-sum-exp in the backward pass.
LOGARITHMS = 6


def rounding_bounds(
    given: list[Tensor],
    allowed: Tensor,
    dtype: torch.dtype,
    *,
    scale: float = 14**-0.5,
    parts: int = 1,
) -> list[Tensor]:
    """Return bounds on the absolute errors of the output, dq, dk and dv, element by element.

    Args:
        given: q (B, H, T, K), k and v (B, G, S, K), and the gradient of the output, like q;
            exactly as the kernel gets them.
        allowed: the keys of each query, at least one; anything that broadcasts to (B, H, T, S).
        dtype: what the kernel stores in.
        scale: multiplies the scores.
        parts: how many stored sums make up an element of the output or of a gradient.
    """
    q, k, v, grad = (x.detach().double() for x in given)
    groups, width = k.shape[1], q.shape[-1]
    k, v = (x.repeat_interleave(q.shape[1] // groups, 1) for x in (k, v))
    keys = allowed.sum(-1, keepdim=True).double()
    queries = float(q.shape[2] * q.shape[1] // groups)
    stored = (torch.finfo(dtype).eps / 2) ** 2
    wide = torch.finfo(torch.promote_types(dtype, torch.float32))
    added, lost = (wide.eps / 2) ** 2, wide.tiny**2

    # All `*_error` are sums of squares. `row_error`: of what the keys of a query share.
    score = (q @ k.mT * scale).masked_fill(~allowed, 0)
    exponent_error = (
        stored * (2 * score**2 + scale**2 * (q**2 @ k.mT**2))
        + added * width * (scale * (q.abs() @ k.mT.abs())) ** 2
        + added * LOGARITHMS * (score.abs().amax(-1, keepdim=True) + keys.log()) ** 2
        + added * EXPONENTIALS * (2 * EXPONENTIAL_ULPS) ** 2
    )
    weight = score.masked_fill(~allowed, -torch.inf).softmax(-1)
    weight_error = weight**2 * (exponent_error + 2 * stored) + lost
    row_error = (weight**2 * exponent_error).sum(-1, keepdim=True) + added * keys

    def summed(x: Tensor, y: Tensor, terms: Tensor | float) -> Tensor:
        """Of the sums `x @ y`: every term stored, all added up, and stored part by part.

        A part is taken to be as large as the whole and what random terms amount to.
        """
        random = x**2 @ y**2
        kept = random + (2 + parts) * ((x @ y) ** 2 + random)
        return stored * kept + added * terms * (x.abs() @ y.abs()) ** 2

    output = weight @ v
    output_error = weight_error @ v**2 + row_error * output**2 + summed(weight, v, keys)

    # dS = P (dP - delta), where dP = dO v, and delta = sum P dP = dO O is shared by a row.
    change, sizes = grad @ v.mT, grad.abs() @ v.mT.abs()
    change_error = stored * change**2 + added * width * sizes**2
    delta = (weight * change).sum(-1, keepdim=True)
    delta_error = (
        (weight_error * change**2 + weight**2 * change_error).sum(-1, keepdim=True)
        + row_error * delta**2
        + stored * (1 + parts) * ((grad * output) ** 2).sum(-1, keepdim=True)
        + added * (keys + width) * (weight * sizes).sum(-1, keepdim=True) ** 2
    )
    slope = weight * (change - delta)
    slope_error = weight_error * (change - delta) ** 2 + weight**2 * change_error
    slope_error = slope_error + 2 * stored * slope**2 + lost
    dq_error = (
        slope_error @ k**2
        + delta_error * (weight @ k) ** 2
        + row_error * (slope @ k) ** 2
        + summed(slope, k, keys)
    )
    slope_error = slope_error + weight**2 * delta_error + row_error * slope**2
    dk_error = slope_error.mT @ q**2 + summed(slope.mT, q, queries)
    dv_error = (weight_error + row_error * weight**2).mT @ grad**2
    dv_error = dv_error + summed(weight.mT, grad, queries)
    # The query heads of a group add up in their keys and values.
    dk_error, dv_error = (x.unflatten(1, (groups, -1)).sum(2) for x in (dk_error, dv_error))
    variances = (output_error, scale**2 * dq_error, scale**2 * dk_error, dv_error)
    return [LIMIT * variance.sqrt() for variance in variances]
