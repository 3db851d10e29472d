"""How a study came to its precision: what was measured of the machine, and what followed."""

from __future__ import annotations

from pydantic import Field

from isoflop.config.run import Precision
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

    def of(self, precision: Precision) -> PrecisionSpeed:
        """Return the speed in a precision."""
        return self.bf16 if precision == "bf16" else self.fp32

    def seconds_per_flop(self, precision: Precision) -> float:
        """Return the time of a FLOP of the model's products and attention together."""
        speed, share = self.of(precision), self.attention_share
        return (1 - share) / speed.product_flops + share / speed.attention_flops

    @property
    def bf16_gain(self) -> float:
        """Times as fast as fp32 that bf16 is."""
        return self.seconds_per_flop("fp32") / self.seconds_per_flop("bf16")

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
        other: Precision = "fp32" if self.precision == "bf16" else "bf16"
        own, beside = self.speeds.of(self.precision), self.speeds.of(other)
        return (
            f"matrix products {_giga(own.product_flops)} GFLOP/s, in {other} "
            f"{_giga(beside.product_flops)}; attention {_giga(own.attention_flops)}, in {other} "
            f"{_giga(beside.attention_flops)}"
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


def _giga(flops: float) -> str:
    return f"{flops / 1e9:.3g}"
