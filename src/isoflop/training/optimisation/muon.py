"""Muon, over all matrices of a shape at once.

`torch.optim.Muon` goes matrix by matrix and in bfloat16 alone, which is slow on small models and
on processors without bf16 units; what is computed is the same.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from isoflop.config import Muon, Precision
from isoflop.training.optimisation.sharding import is_sharded, local, part_of, together

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, as in `torch.optim.Muon`."""
SMALLEST_NORM = 1e-7
ELEMENTS_AT_A_TIME = 2**24
"""Of parameters that are updated together, which bounds the memory that takes."""


def adjustment(choice: Muon, rows: int, columns: int) -> float:
    """Return what multiplies the orthogonal update of a matrix (rows, columns)."""
    match choice.adjust:
        case "match_rms_adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        case "original":
            return math.sqrt(max(1.0, rows / columns))
        case "spectral":
            return math.sqrt(rows / columns)
        case _:
            assert_never(choice.adjust)


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """Return U S' V^T of each U S V^T of `matrices` (N, A, B), A <= B, with S' near one."""
    a, b, c = COEFFICIENTS
    norms = torch.linalg.matrix_norm(matrices, keepdim=True, dtype=torch.float32)
    x: Tensor = matrices / norms.clamp_min(SMALLEST_NORM).to(matrices.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class MuonMatrices(torch.optim.Optimizer):
    """Muon over groups of parameters, each a matrix or several one above the other, or a stack.

    Args:
        groups: with `params`, `lr`, `weight_decay`, and `rows`: those of each matrix of a
            parameter.
        choice: what the recipe says of it.
        precision: what updates are orthogonalised in.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], choice: Muon, precision: Precision
    ) -> None:
        super().__init__(groups, {})
        self._choice = choice
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.found_inf: Tensor | None = None
        """One where a step is to change nothing, as a fused optimiser of torch takes it."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter from its gradient."""
        alike: dict[torch.Size, list[tuple[nn.Parameter, dict[str, Any]]]] = defaultdict(list)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                alike[p.shape].append((p, group))
        for shape, found in alike.items():
            together = max(1, ELEMENTS_AT_A_TIME // shape.numel())
            for start in range(0, len(found), together):
                self._update(found[start : start + together])

    def _update(self, found: list[tuple[nn.Parameter, dict[str, Any]]]) -> None:
        """Update parameters of one shape, each with its group."""
        buffers = [local(self.state[p]["momentum_buffer"]) for p, _ in found]
        gradients = [local(g) for p, _ in found if (g := p.grad) is not None]
        alive: Tensor | float = 1.0
        if self.found_inf is not None:
            halted, alive = self.found_inf > 0, 1 - self.found_inf
            pairs = zip(gradients, buffers, strict=True)
            gradients = [torch.where(halted, buffer, g) for g, buffer in pairs]
        torch._foreach_lerp_(buffers, gradients, 1 - self._choice.momentum)
        updates = buffers
        if self._choice.nesterov:
            updates = list(torch._foreach_lerp(gradients, buffers, self._choice.momentum))
        for p, group in found:
            local(p).mul_(1 - group["lr"] * group["weight_decay"] * alive)
        # Of a parameter that is split over ranks, each makes the whole update and keeps its part.
        moved = [torch.zeros(p.shape, device=p.device) if is_sharded(p) else p for p, _ in found]
        alike: dict[torch.Size, list[tuple[Tensor, Tensor, float]]] = defaultdict(list)
        for (p, group), to, part in zip(found, moved, updates, strict=True):
            update = together(p, part)
            flat = (of.flatten(0, -2) for of in (to, update))
            pieces = zip(*(torch.split(of, group["rows"]) for of in flat), strict=True)
            for weight, step in pieces:
                rate = group["lr"] * adjustment(self._choice, *weight.shape)
                alike[weight.shape].append((weight, step, -rate))
        for weights, steps, rates in (zip(*pieces, strict=True) for pieces in alike.values()):
            stacked = torch.stack(steps).to(self._dtype)
            wide = stacked.shape[1] <= stacked.shape[2]
            turned = orthogonal(stacked if wide else stacked.mT, self._choice.steps).float()
            scaled = torch._foreach_mul((turned if wide else turned.mT).unbind(), rates)
            torch._foreach_mul_(scaled, alive)
            torch._foreach_add_(weights, scaled)
        for (p, _), by in zip(found, moved, strict=True):
            if is_sharded(p):
                local(p).add_(part_of(p, by))
