"""Comparisons and predictions on surfaces in words."""

from __future__ import annotations

import math

from isoflop.fit.minimum import ESTIMATOR_NAMES
from isoflop.fit.surface_comparison import SurfaceComparison, SurfaceGap
from isoflop.fit.surface_sample import FAR


def distance_words(extrapolation: float | None) -> str | None:
    """Return in words how far beyond the runs a prediction is; None up to `FAR` times."""
    if extrapolation is None or not extrapolation > FAR:
        return None
    times = f"{extrapolation:,.0f} times"
    if extrapolation >= 1e4:
        times = f"{math.log10(extrapolation):.0f} orders of magnitude"
    return f"{times} beyond the runs, where the intervals take the law to hold"


def surface_sentence(comparison: SurfaceComparison, unit: str | None = None) -> str:
    """Return a comparison on surfaces in words; losses are in `unit` where that is known."""
    name, base = comparison.variant, comparison.baseline
    gap = comparison.headline("stated") or comparison.headline()
    if gap is None:
        why = comparison.reason or "a surface has no optimum"
        return f"{name} and {base} cannot be compared on their surfaces ({why})."
    in_unit = f" {unit}" if unit else ""
    where = f"{_number(gap.training_flops)} FLOPs"
    if gap.parameters is not None and gap.tokens is not None:
        where = f"{_number(gap.parameters)} parameters and {_number(gap.tokens)} tokens"
    told = (
        f"On their surfaces, at {where}, {_outcome_words(gap, name, base)}: a loss difference of "
        f"{gap.difference.words('+.4f')}{in_unit}"
    )
    if gap.multiplier is not None:
        told += f", {gap.multiplier.words('.2f')} times the compute of {base} for its loss"
    told += _others(comparison, gap)
    if gap.extrapolation > FAR:
        told += f"; {distance_words(gap.extrapolation)}"
    elif gap.place == "optimum" and comparison.low_flops is None:
        told += "; between the runs of one and of the other, which do not overlap"
    elif comparison.low_flops is not None and comparison.high_flops is not None:
        low, high = comparison.low_flops, comparison.high_flops
        told += f"; both have runs from {_number(low)} to {_number(high)} FLOPs"
    if comparison.reason is not None:
        told += f" ({comparison.reason})"
    return f"{told}."


def _outcome_words(gap: SurfaceGap, name: str, base: str) -> str:
    if gap.extrapolation > FAR:
        return "neither is called better so far beyond the runs"
    if gap.outcome == "unresolved":
        return f"it is unresolved which of {name} and {base} is better"
    return f"{name} is {gap.outcome} than {base}"


def _others(comparison: SurfaceComparison, gap: SurfaceGap) -> str:
    """Return in words what the other estimator says at the same place."""
    same = [
        other
        for other in comparison.gaps
        if other.estimator != gap.estimator
        and (other.place, other.training_flops) == (gap.place, gap.training_flops)
    ]
    return "".join(
        f" ({other.difference.value:+.4f} by {ESTIMATOR_NAMES[other.estimator]})" for other in same
    )


def _number(value: float) -> str:
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")
