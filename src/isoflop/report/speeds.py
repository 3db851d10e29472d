"""Measured speeds, given as values: the report neither times anything nor guesses."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

SAME_FLOPS = 0.01
"""Relative difference of FLOPs per step below which a row measures the same step."""


class BenchRow(BaseModel):
    """One row of `isoflop bench train --json`; what else a row holds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    variant: str
    parameters: float = Field(gt=0)
    flops_per_step: float = Field(gt=0)
    steps_per_second: float = Field(gt=0)
    achieved_flops: float | None = None
    peak_flops: float | None = None


def steps_per_second(
    rows: Sequence[BenchRow], variant: str, parameters: float, flops_per_step: float
) -> float | None:
    """Return the median measured speed of this model and step; None when none was measured."""
    found = [
        row.steps_per_second
        for row in rows
        if row.variant == variant
        and row.parameters == parameters
        and abs(row.flops_per_step / flops_per_step - 1) <= SAME_FLOPS
    ]
    return median(found) if found else None
