"""Mixture of experts: each token goes to the top k of E SwiGLU feed-forwards, and none is dropped.

Router and balance loss after Switch (arXiv 2101.03961) and Mixtral; the bias that balances without
a loss after arXiv 2408.15664; shared experts after DeepSeekMoE (arXiv 2401.06066). With no-op
experts, which give nothing and cost nothing, it is integrated Mixture-of-Depths-and-Experts
(arXiv 2404.02258, section 4.4); behind `depth = { kind = "top_k", ... }` it is the staged one.

Where the papers balance over a batch, this balances within each sequence, so that what is learned
does not depend on how many sequences are held at a time.

Axes: B batch, T time, N = B T tokens, D width, E experts, H hidden width of an expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from isoflop.config import Frozen, ModelConfig
from isoflop.variants.protocols import Costs, Told

if TYPE_CHECKING:
    from torch import Tensor, nn

    Product = Callable[[Tensor, Tensor, Tensor], Tensor]

PART = "feed_forward"


class Config(Frozen):
    """How many experts there are, of what size, and how they are balanced."""

    experts: int = Field(default=8, ge=1, le=4096)
    """E, those that compute."""
    top_k: int = Field(default=2, ge=1, le=64)
    """Experts that a token goes to, no-ops among them."""
    noop_experts: int = Field(default=0, ge=0, le=4096)
    """Further experts that give nothing."""
    shared: int = Field(default=0, ge=0, le=64)
    """Experts that every token goes to besides."""
    hidden: float = Field(default=1.0, gt=0, le=64)
    """Hidden width of an expert over the model's, to a multiple of 8."""
    normalise: bool = False
    """Whether a token's k weights are made to sum to one, as in Mixtral."""
    balance: float = Field(default=0.01, ge=0, le=1e3)
    """Weight of the balance loss E sum_e f_e p_e; f is the share of choices, p the mean odds."""
    bias_rate: float = Field(default=0.0, ge=0, le=1)
    """What an expert's bias in the choice moves by after a step; the balance loss may then be 0."""

    @model_validator(mode="after")
    def _enough(self) -> Config:
        if self.top_k > self.experts + self.noop_experts:
            raise ValueError(
                f"top_k is {self.top_k}; expected at most {self.experts + self.noop_experts}, as "
                "many as there are experts"
            )
        return self


def sizes(share: float, routed: int, model: ModelConfig) -> tuple[int, int, int]:
    """Return H, weights of an expert, and weights of the router.

    Args:
        share: hidden width of an expert over the model's.
        routed: experts that the router tells apart.
        model: that they are part of.
    """
    hidden = max(8, round(share * model.hidden / 8) * 8)
    return hidden, 3 * model.width * hidden, model.width * routed


def costs(config: Config, model: ModelConfig, block: int, tokens: int, convention: str) -> Costs:
    """Return what the experts cost where they are balanced: no-ops get their share of choices."""
    routed = config.experts + config.noop_experts
    hidden, each, router = sizes(config.hidden, routed, model)
    computed = config.top_k * config.experts / routed
    active = router + (computed + config.shared) * each
    return Costs(
        parameters=router + (config.experts + config.shared) * each,
        active=round(active),
        flops=2 * tokens * active,
        kept_values=round(tokens * (computed + config.shared) * (2 * model.width + 4 * hidden)),
    )


def experts_of(
    x: Tensor,
    chosen: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    product: Product,
) -> Tensor:
    """Return the weighted sum of what its experts make of each token, (N, D).

    Tokens are sorted by expert, so that each expert's are one product.

    Args:
        x: tokens, (N, D).
        chosen: their experts, (N, k); from E on they are no-ops, which give nothing.
        weights: of these, (N, k).
        gate_up: of the experts, (E, 2 H, D).
        down: of the experts, (E, D, H).
        product: as `grouped`.
    """
    import torch
    import torch.nn.functional as F

    experts, flat = len(gate_up), chosen.flatten()
    order = flat.argsort(stable=True)
    token, expert = order // chosen.shape[1], flat[order]
    ends = (expert[:, None] <= torch.arange(experts, device=x.device)).sum(0)
    # No-ops lie behind all others; what no product reads or writes there is not used.
    idle = (expert >= experts)[:, None]
    rows = x[token].masked_fill(idle, 0)
    gate, up = product(rows, gate_up, ends).chunk(2, dim=-1)
    made = product(F.silu(gate) * up, down, ends).masked_fill(idle, 0)
    made = made * weights.flatten()[order, None].to(made.dtype)
    return torch.zeros_like(x, dtype=made.dtype).index_add(0, token, made)


def grouped(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """Return the product of each group of rows with the transpose of its own matrix.

    Args:
        rows: (R, I), group by group.
        matrices: (E, O, I).
        ends: where each group ends, (E,); rows behind the last one belong to none.
    """
    import torch
    import torch.nn.functional as F

    kind = rows.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
    if dtype == torch.float64 or any(side * dtype.itemsize % 16 for side in matrices.shape[1:]):
        # The product knows no such numbers, and wants rows that begin at whole 16 bytes.
        parts = rows.tensor_split(ends.cpu())
        made = [F.linear(one, matrix) for one, matrix in zip(parts, matrices, strict=False)]
        return torch.cat([*made, made[0].new_zeros(len(parts[-1]), matrices.shape[1])])
    return F.grouped_mm(rows.to(dtype), matrices.to(dtype).mT, offs=ends.int())


def build(config: Config, model: ModelConfig, block: int) -> nn.Module:
    """Return the router and its experts."""
    import torch
    import torch.nn.functional as F

    width, experts, routed = model.width, config.experts, config.experts + config.noop_experts
    hidden, _, _ = sizes(config.hidden, routed, model)

    # It has no compiled form but in bfloat16 on a GPU.
    product: Product = torch.compiler.disable(grouped)  # type: ignore[no-untyped-call]

    class Experts(torch.nn.Module):
        """Sorts the tokens by expert, so that each expert's are one product."""

        bias: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.router = torch.nn.Linear(width, routed, bias=False)
            self.gate_up = torch.nn.Parameter(torch.empty(experts, 2 * hidden, width))
            self.down = torch.nn.Parameter(torch.empty(experts, width, hidden))
            self.roles = {"router.weight": "router", "gate_up": "hidden", "down": "output"}
            if config.shared:
                inner = config.shared * hidden
                self.shared_gate_up = torch.nn.Linear(width, 2 * inner, bias=False)
                self.shared_down = torch.nn.Linear(inner, width, bias=False)
                self.roles["shared_down.weight"] = "output"
            self.register_buffer("bias", torch.zeros(routed))

        def forward(self, x: Tensor) -> tuple[Tensor, Told]:
            """Map (B, T, D) to (B, T, D)."""
            with torch.autocast(x.device.type, enabled=False):
                odds = F.linear(x.float(), self.router.weight.float()).softmax(-1)
            chosen = (odds + self.bias).topk(config.top_k, dim=-1).indices
            weights = odds.gather(-1, chosen)
            if config.normalise:
                weights = weights / weights.sum(-1, keepdim=True)
            rows, chosen, weights = (one.flatten(0, 1) for one in (x, chosen, weights))
            result = experts_of(rows, chosen, weights, self.gate_up, self.down, product).view_as(x)
            if config.shared:
                gate, up = self.shared_gate_up(x).chunk(2, dim=-1)
                result = result + self.shared_down(F.silu(gate) * up)
            load = (
                torch.zeros_like(odds).scatter_(-1, chosen.view(*x.shape[:2], -1), 1.0).mean(1)
                / config.top_k
            )
            told = {"load": load.mean(0), "computed": load[:, :experts].sum(-1).mean()}
            if config.balance:
                uneven = routed * (load * odds.mean(1)).sum(-1).mean()
                told["loss"] = config.balance * uneven
            return result, told

        def after_step(self, told: Told) -> None:
            """Move the biases towards an even load."""
            if config.bias_rate:
                load = told["load"]
                self.bias += config.bias_rate * torch.sign(load.mean() - load)

    return Experts()
