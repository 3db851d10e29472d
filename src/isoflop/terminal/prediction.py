"""`isoflop predict`: predictions as tables, and how far beyond the runs they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from isoflop.estimate import NONE, estimate_words
from isoflop.fit import surface_sentence
from isoflop.fit.predictions import Miss, PointPrediction, Prediction
from isoflop.fit.words import distance_words
from isoflop.notation import count, exponent
from isoflop.report.registration import WAY_WORDS
from isoflop.sweep.fits import BudgetPrediction, SizePrediction
from isoflop.terminal.tables import Cells, said, table, told


def prediction_lines(
    found: SizePrediction | BudgetPrediction, level: float, unit: str | None, *, per_byte: bool
) -> Iterator[RenderableType]:
    """Yield the predictions at a size and tokens, or at a budget, and what tests or doubts them.

    `level` is that of their intervals; a predicted optimum names the unit of its loss only where
    losses `per_byte` were asked for.
    """
    made: Sequence[Any] = found.predictions
    first, sure = made[0], f"{100 * level:g}% intervals"
    if isinstance(found, SizePrediction):
        at = f"{count(first.parameters)} parameters after {count(first.tokens)} tokens"
        title = f"Predicted loss of {at}, {sure}"
        title += f", {unit}" if unit else ""
        told_of: Cells[Any] = {
            "FLOPs": lambda one: exponent(one.training_flops),
            "loss of the law": lambda one: estimate_words(one.loss),
            "a new run": lambda one: (one.run.interval_words() if one.run else "") or NONE,
        }
    else:
        title = f"Predicted optimum at {exponent(first.budget_flops)} FLOPs, {sure}"
        title += f", {unit}" if unit and per_byte else ""
        told_of = {
            "parameters": lambda one: estimate_words(one.parameters, count),
            "tokens": lambda one: estimate_words(one.tokens, count),
            "loss": lambda one: estimate_words(one.loss),
        }
    of: Cells[Any] = {"variant": lambda one: one.variant, "by": lambda one: WAY_WORDS[one.way]}
    long = [heading for heading in told_of if heading != "FLOPs"]
    yield table(title, made, {**of, **told_of}, names=["variant"], words=["by"], long=long)
    yield from _doubts(made)
    if isinstance(found, SizePrediction):
        yield from (said(surface_sentence(one, unit)) for one in found.comparisons)
    # What none of them could have predicted is no test.
    elif any(one.prediction.loss is not None for one in found.leave_largest_out):
        yield _tested(found.leave_largest_out)
    else:
        yield said(
            "Nothing tests the prediction: that takes a largest budget with a minimum, and others "
            "to predict it from."
        )


def _tested(tested: Sequence[Miss]) -> RenderableType:
    largest = exponent(tested[0].prediction.budget_flops)
    return table(
        f"Tested: {largest} FLOPs predicted from the smaller budgets",
        tested,
        {
            "variant": lambda one: one.prediction.variant,
            "by": lambda one: WAY_WORDS[one.prediction.way],
            "loss": lambda one: told(getattr(one.prediction.loss, "value", None), "{:.4f}"),
            "measured": lambda one: f"{one.loss:.4f}",
            "error": lambda one: told(one.loss_error, "{:+.4f}"),
            "size over measured": lambda one: told(one.parameter_ratio, "{:.2f}"),
        },
        names=["variant"],
        words=["by"],
    )


def _doubts(made: Sequence[Prediction | PointPrediction]) -> Iterator[Text]:
    """Yield why predictions are missing or weak, and which are far beyond the runs."""
    for one in made:
        for doubt in (one.reason, one.warning):
            if doubt is not None:
                yield said(f"{one.variant}, {WAY_WORDS[one.way]}: {doubt}.")
    told = {one.variant: distance_words(one.extrapolation) for one in made}
    far = {name: words for name, words in told.items() if words is not None}
    if len(set(far.values())) == 1 and len(far) == len(told):
        yield said(f"This is {next(iter(far.values()))}.")
        return
    for name, words in far.items():
        yield said(f"{name}: this is {words}.")
