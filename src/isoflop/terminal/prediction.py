"""`isoflop predict`: predictions as tables, and how far beyond the runs they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from isoflop.estimate import NONE, estimate_words
from isoflop.fit import surface_sentence
from isoflop.fit.predictions import Miss, PointPrediction, Prediction
from isoflop.fit.words import distance_words
from isoflop.notation import count, exponent
from isoflop.report.registration import WAY_WORDS
from isoflop.sweep.fits import BudgetPrediction, SizePrediction
from isoflop.terminal.tables import said, table


def size_lines(found: SizePrediction, level: float, unit: str | None) -> Iterator[RenderableType]:
    """Yield the losses predicted at a size and tokens, and how variants compare there."""
    made = found.predictions
    first = made[0]
    in_unit = f", {unit}" if unit else ""
    yield table(
        f"Predicted loss of {count(first.parameters)} parameters after {count(first.tokens)} "
        f"tokens, {level:.0%} intervals{in_unit}",
        {
            "variant": [one.variant for one in made],
            "by": [WAY_WORDS[one.way] for one in made],
            "FLOPs": [f"{one.training_flops:.3g}".replace("e+", "e") for one in made],
            "loss of the law": [estimate_words(one.loss) for one in made],
            "a new run": [(one.run.interval_words() if one.run else "") or NONE for one in made],
        },
        names=["variant"],
        words=["by"],
        long=["loss of the law", "a new run"],
    )
    yield from _doubts(made)
    for compared in found.comparisons:
        yield said(surface_sentence(compared, unit))


def budget_lines(
    found: BudgetPrediction, level: float, unit: str | None = None
) -> Iterator[RenderableType]:
    """Yield the predictions, and how well the same would have done for the largest budget."""
    made = found.predictions
    at, in_unit = exponent(made[0].budget_flops), f", {unit}" if unit else ""
    yield table(
        f"Predicted optimum at {at} FLOPs, {level:.0%} intervals{in_unit}",
        {
            "variant": [one.variant for one in made],
            "by": [WAY_WORDS[one.way] for one in made],
            "parameters": [estimate_words(one.parameters, count) for one in made],
            "tokens": [estimate_words(one.tokens, count) for one in made],
            "loss": [estimate_words(one.loss) for one in made],
        },
        names=["variant"],
        words=["by"],
        long=["parameters", "tokens", "loss"],
    )
    yield from _doubts(made)
    # What none of them could have predicted is no test.
    if any(one.prediction.loss is not None for one in found.leave_largest_out):
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
        {
            "variant": [one.prediction.variant for one in tested],
            "by": [WAY_WORDS[one.prediction.way] for one in tested],
            "loss": [
                "-" if one.prediction.loss is None else f"{one.prediction.loss.value:.4f}"
                for one in tested
            ],
            "measured": [f"{one.loss:.4f}" for one in tested],
            "error": [
                "-" if one.loss_error is None else f"{one.loss_error:+.4f}" for one in tested
            ],
            "size over measured": [
                "-" if one.parameter_ratio is None else f"{one.parameter_ratio:.2f}"
                for one in tested
            ],
        },
        names=["variant"],
        words=["by"],
    )


def _doubts(made: Sequence[Prediction] | Sequence[PointPrediction]) -> Iterator[Text]:
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
