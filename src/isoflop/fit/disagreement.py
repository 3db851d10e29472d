"""How far converged estimators are apart: a systematic error bar, which no resampling shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from isoflop.config import Frozen
from isoflop.fit.curves import CurveMinimum
from isoflop.fit.minimum import Estimator
from isoflop.fit.optimum import compute_exponents
from isoflop.fit.surface import Surface


class MinimumDisagreement(Frozen):
    """How far the estimators of one minimum are apart."""

    budget_flops: float
    estimators: tuple[Estimator, ...]
    """Those that converged, two or more."""
    loss: float
    """Highest minimum loss less the lowest."""
    parameter_ratio: float
    """Largest optimal size over the smallest."""


class SurfaceDisagreement(Frozen):
    """How far the fits of one surface are apart."""

    fits: tuple[str, ...]
    """Those that are compared, two or more: estimators, and Huber with other deltas."""
    ranges: Mapping[str, tuple[float, float]]
    """Lowest and highest E, alpha, beta and a."""


def minimum_disagreements(minima: Iterable[CurveMinimum]) -> tuple[MinimumDisagreement, ...]:
    """Return how far the estimators of one variant are apart at each budget, ascending.

    Budgets at which fewer than two converged are left out.
    """
    by_budget: dict[float, list[CurveMinimum]] = {}
    for one in minima:
        if one.minimum.loss is not None:
            by_budget.setdefault(one.budget_flops, []).append(one)
    found = []
    for budget, here in sorted(by_budget.items()):
        if len(here) < 2:
            continue
        losses = [one.minimum.loss for one in here if one.minimum.loss is not None]
        sizes = [one.minimum.parameters for one in here if one.minimum.parameters is not None]
        found.append(
            MinimumDisagreement(
                budget_flops=budget,
                estimators=tuple(one.minimum.estimator for one in here),
                loss=max(losses) - min(losses),
                parameter_ratio=max(sizes) / min(sizes),
            )
        )
    return tuple(found)


def surface_disagreement(
    fits: Sequence[str], surfaces: Sequence[Surface], *, slope: float = 1.0
) -> SurfaceDisagreement | None:
    """Return how far surfaces are apart; None for fewer than two.

    Args:
        fits: what each surface is called.
        surfaces: through the same runs.
        slope: of the law of FLOPs per token by size, which `a` hangs on.
    """
    if len(surfaces) < 2:
        return None
    columns = {
        "E": [one.E for one in surfaces],
        "alpha": [one.alpha for one in surfaces],
        "beta": [one.beta for one in surfaces],
        "a": [float(compute_exponents(one.alpha, one.beta, slope)[0]) for one in surfaces],
    }
    return SurfaceDisagreement(
        fits=tuple(fits),
        ranges={name: (min(values), max(values)) for name, values in columns.items()},
    )
