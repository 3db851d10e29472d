"""The minima of `isoflop fit`, a row per curve, and the curves that have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import RenderableType

from isoflop.estimate import NONE
from isoflop.fit import ESTIMATOR_NAMES, FitResult
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.notation import count, exponent
from isoflop.terminal.tables import said, table

NAMED = 3
"""Curves without a minimum that are named one by one; more are counted."""


def fitted_curves(result: FitResult) -> list[CurveMinimum]:
    """Return the minimum of each curve by the first estimator that found one, the parabola first.

    Curves come by variant and then budget; those without a minimum are left out.
    """
    found = (one for one in result.minima if one.loss is not None)
    curves = groupby(found, key=lambda one: (one.variant, one.budget_flops))
    return [next(here) for _, here in curves]


def shown_curves(curves: Sequence[CurveMinimum], most: int) -> list[CurveMinimum]:
    """Return at most so many curves: of each variant the smallest and the largest budgets."""
    if len(curves) <= most:
        return list(curves)
    by_variant = [list(own) for _, own in groupby(curves, key=lambda one: one.variant)]
    each = max(1, most // len(by_variant))
    kept: list[CurveMinimum] = []
    for own in by_variant[:most]:
        first = 0 if len(own) <= each else each // 2
        kept += own[:first] + own[max(first, len(own) - (each - first)) :]
    return kept


def minima_table(result: FitResult, most: int) -> list[RenderableType]:
    """Return a table with a row for each of at most so many curves, and how many more there are.

    Under `spread` stand the highest minimum less the lowest, and the largest optimal size over the
    smallest, of all estimators that converged.
    """
    curves = fitted_curves(result)
    shown = shown_curves(curves, most)
    ways = {ESTIMATOR_NAMES[one.estimator] for one in shown}
    apart = {
        (name, one.budget_flops): f"{one.loss:.4f} {one.parameter_ratio:.2f}x"
        for name, fit in result.variants.items()
        for one in fit.minimum_disagreements
    }
    columns = {
        "variant": [one.variant for one in shown],
        "budget": [exponent(one.budget_flops) for one in shown],
        "parameters": [one.estimates()[0].words(count) for one in shown],
        "loss": [one.estimates()[1].words() for one in shown],
        "by": [ESTIMATOR_NAMES[one.estimator] for one in shown],
        "spread": [apart.get((one.variant, one.budget_flops), NONE) for one in shown],
    }
    if len(result.variants) == 1:
        del columns["variant"]
    by = ""
    if len(ways) == 1:
        del columns["by"]
        by = f" by {ways.pop()}"
    unit = f" in {result.loss_unit}" if result.loss_unit else ""
    title = f"Minima{by}{unit}, and the spread of all estimators"
    made: list[RenderableType] = [table(title, columns, names=["variant", "by"])]
    if len(shown) < len(curves):
        made.append(said(f"{len(curves) - len(shown)} more of {len(curves)} minima: --details."))
    return made


def under_minima(result: FitResult) -> Iterator[str]:
    """Yield which intervals hold no noise, and why curves have no minimum by the parabola."""
    told = fitted_curves(result)
    bare = [one for one in told if one.interval and one.interval.source == "systematic"]
    if bare:
        which = "Intervals" if len(bare) == len(told) else f"{len(bare)} of {len(told)} intervals"
        yield (
            f"{which} of minima hold only what the estimator gets wrong without noise: nothing "
            "tells how far runs scatter; more seeds or sizes would."
        )
    several = len(result.variants) > 1
    curves = [one for one in result.minima if one.estimator == "parabola"]
    lacking = [one for one in curves if one.loss is None]
    if lacking:
        reasons: dict[str, list[str]] = {}
        for one in lacking:
            at = f"{one.variant} at " if several else ""
            where = reasons.setdefault(_lacking(one), [])
            where.append(f"{at}{exponent(one.budget_flops)} FLOPs")
        words = "; ".join(
            f"{reason} ({'; '.join(at)})"
            if len(at) <= NAMED
            else reason + f" ({len(at)} of them)" * (len(at) < len(lacking))
            for reason, at in reasons.items()
        )
        of = f"{len(lacking)} of {len(curves)} {'curves' if several else 'budgets'}"
        yield f"No minimum by the parabola at {of}: {words}."


def _lacking(one: CurveMinimum) -> str:
    """Return what a curve lacks, and for a minimum at an edge which sizes would bracket it."""
    match one.status:
        case "edge":
            return f"{one.side} sizes than those measured would bracket it"
        case "too_few":
            return "fewer than 3 sizes"
        case "concave":
            return "the parabola opens downwards"
        case _:
            return one.message
