"""The minima of `isoflop fit`, a row per curve, and the curves that have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import RenderableType

from isoflop.fit import ESTIMATOR_NAMES, FitResult
from isoflop.fit.curves.minima import CurveMinimum, MinimumDisagreement
from isoflop.notation import count, exponent
from isoflop.terminal.tables import said, table

NAMED = 3
"""Curves without a minimum that are named one by one; more are counted."""


@dataclass(frozen=True)
class FittedCurve:
    """One variant's runs at one budget: their minimum, and how far estimators of it are apart."""

    variant: str
    minimum: CurveMinimum
    """By the first estimator that found one, the parabola before the others."""
    apart: MinimumDisagreement | None


def fitted_curves(result: FitResult) -> tuple[FittedCurve, ...]:
    """Return the curves that have a minimum, by variant and then budget."""
    found = []
    for name, fit in result.variants.items():
        apart = {one.budget_flops: one for one in fit.minimum_disagreements}
        for budget, here in groupby(fit.minima, key=lambda one: one.budget_flops):
            usable = next((one for one in here if one.loss is not None), None)
            if usable is not None:
                found.append(FittedCurve(name, usable, apart.get(budget)))
    return tuple(found)


def shown_curves(curves: Sequence[FittedCurve], most: int) -> tuple[FittedCurve, ...]:
    """Return at most so many curves: of each variant the smallest and the largest budgets."""
    if len(curves) <= most:
        return tuple(curves)
    by_variant = [list(own) for _, own in groupby(curves, key=lambda one: one.variant)]
    each = max(1, most // len(by_variant))
    kept: list[FittedCurve] = []
    for own in by_variant[:most]:
        first = 0 if len(own) <= each else each // 2
        kept += own[:first] + own[max(first, len(own) - (each - first)) :]
    return tuple(kept)


def minima_table(result: FitResult, most: int) -> list[RenderableType]:
    """Return a table with a row for each of at most so many curves, and how many more there are.

    Under `spread` stand the highest minimum less the lowest, and the largest optimal size over the
    smallest, of all estimators that converged.
    """
    curves = fitted_curves(result)
    shown = shown_curves(curves, most)
    ways = {one.minimum.estimator for one in shown}
    columns = {
        "variant": [one.variant for one in shown],
        "budget": [exponent(one.minimum.budget_flops) for one in shown],
        "parameters": [_parameters(one.minimum) for one in shown],
        "loss": [_loss(one.minimum) for one in shown],
        "by": [ESTIMATOR_NAMES[one.minimum.estimator] for one in shown],
        "spread": [_apart(one.apart) for one in shown],
    }
    if len(result.variants) == 1:
        del columns["variant"]
    if len(ways) == 1:
        del columns["by"]
    by = f" by {ESTIMATOR_NAMES[next(iter(ways))]}" if len(ways) == 1 else ""
    unit = f" in {result.loss_unit}" if result.loss_unit else ""
    title = f"Minima{by}{unit}, and the spread of all estimators"
    made: list[RenderableType] = [table(title, columns, names=["variant", "by"])]
    if len(shown) < len(curves):
        made.append(said(f"{len(curves) - len(shown)} more of {len(curves)} minima: --details."))
    return made


def refused_sentences(result: FitResult) -> Iterator[str]:
    """Yield a sentence on the curves without a minimum by the parabola, and what would help."""
    curves = [
        (name, one)
        for name, fit in result.variants.items()
        for one in fit.minima
        if one.estimator == "parabola"
    ]
    several = len(result.variants) > 1
    reasons: dict[str, list[str]] = {}
    for name, one in curves:
        if one.loss is None:
            at = f"{exponent(one.budget_flops)} FLOPs"
            reasons.setdefault(_lacking(one), []).append(f"{name} at {at}" if several else at)
    number = sum(map(len, reasons.values()))
    if number:
        of = f"{number} of {len(curves)} {'curves' if several else 'budgets'}"
        told = "; ".join(f"{reason}{_named(at, number)}" for reason, at in reasons.items())
        yield f"No minimum by the parabola at {of}: {told}."


def noiseless_sentence(result: FitResult) -> str | None:
    """Return what minima are whose intervals hold no noise, since nothing tells it."""
    told = [curve.minimum for curve in fitted_curves(result)]
    bare = [one for one in told if one.interval and one.interval.source == "systematic"]
    if not bare:
        return None
    which = "Intervals" if len(bare) == len(told) else f"{len(bare)} of {len(told)} intervals"
    return (
        f"{which} of minima hold only what the estimator gets wrong without noise: nothing tells "
        "how far runs scatter; more seeds or sizes would."
    )


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


def _named(where: Sequence[str], of: int) -> str:
    if len(where) <= NAMED:
        return f" ({'; '.join(where)})"
    return f" ({len(where)} of them)" if len(where) < of else ""


def _parameters(one: CurveMinimum) -> str:
    assert one.parameters is not None
    held = one.interval
    told = f" [{count(held.parameters_low)}, {count(held.parameters_high)}]" if held else ""
    return f"{count(one.parameters)}{told}"


def _loss(one: CurveMinimum) -> str:
    assert one.loss is not None
    held = one.interval
    return f"{one.loss:.4f}{f' [{held.low:.4f}, {held.high:.4f}]' if held else ''}"


def _apart(one: MinimumDisagreement | None) -> str:
    return "-" if one is None else f"{one.loss:.4f} {one.parameter_ratio:.2f}x"
