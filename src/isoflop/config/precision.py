"""How a study came to its precision: what was measured of the machine, and what followed."""

from __future__ import annotations

from pydantic import Field

from isoflop.config.recipe import Precision
from isoflop.frozen import Frozen

FASTER = 1.1
"""Times as fast as fp32 that bf16 has to be to be chosen. Below that what is gained is less than
what two measurements differ by, and fp32 rounds less."""
SLOW = 1.5
"""Times as slow as the other precision from which it is told."""


class PrecisionSpeed(Frozen):
    """How fast forward and backward passes are in one precision."""

    product_flops: float = Field(gt=0)
    """FLOP/s of the matrix product."""
    attention_flops: float = Field(gt=0)
    """FLOP/s of causal attention."""


class PrecisionSpeeds(Frozen):
    """Both precisions on one machine, at the sizes of one model."""

    rows: int = Field(ge=1)
    """Tokens in the matrix product."""
    width: int = Field(ge=1)
    hidden: int = Field(ge=1)
    """The product is of (rows, width) with (width, hidden)."""
    attended: int = Field(ge=1)
    """Tokens of a sequence under attention."""
    head_width: int = Field(ge=1)
    attention_share: float = Field(ge=0, le=1)
    """Of the model's FLOPs, those of attention; all else is matrix products."""
    fp32: PrecisionSpeed
    bf16: PrecisionSpeed

    @property
    def bf16_gain(self) -> float:
        """Times as fast as fp32 that bf16 is, over the model's products and attention together."""
        share = self.attention_share
        fp32, bf16 = (
            (1 - share) / speed.product_flops + share / speed.attention_flops
            for speed in (self.fp32, self.bf16)
        )
        return fp32 / bf16

    @property
    def faster(self) -> Precision:
        """The precision to choose: bf16 where it is `FASTER` times as fast as fp32."""
        return "bf16" if self.bf16_gain >= FASTER else "fp32"


class PrecisionChoice(Frozen):
    """A precision, and the figures that led to it."""

    precision: Precision
    machine: str
    """Architecture and processor model."""
    device: str
    threads: int = Field(ge=1)
    torch: str
    compute_capability: str | None = None
    """Of the CUDA device that has bf16 in hardware, where that decided; nothing was measured."""
    speeds: PrecisionSpeeds | None = None

    @property
    def figures(self) -> str:
        """What led to the choice, in words."""
        if self.speeds is None:
            return f"compute capability {self.compute_capability} has bf16 in hardware"
        own, beside, other = self.speeds.fp32, self.speeds.bf16, "bf16"
        if self.precision == "bf16":
            own, beside, other = beside, own, "fp32"
        return (
            f"matrix products {own.product_flops / 1e9:.3g} GFLOP/s, in {other} "
            f"{beside.product_flops / 1e9:.3g}; attention {own.attention_flops / 1e9:.3g}, in "
            f"{other} {beside.attention_flops / 1e9:.3g}"
        )

    @property
    def place(self) -> str:
        """Where that was, in words."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.machine}, {threads}" if self.device == "cpu" else self.device

    def slowness(self, precision: Precision) -> float | None:
        """Return how many times as slow as the other one a precision is here.

        None where that is less than `SLOW`, or nothing was measured.
        """
        if self.speeds is None:
            return None
        gain = self.speeds.bf16_gain
        times = 1 / gain if precision == "bf16" else gain
        return times if times >= SLOW else None
