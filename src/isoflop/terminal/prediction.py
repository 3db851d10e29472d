"""`isoflop predict`: predictions as tables, and how far beyond the runs they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from isoflop.estimate import NONE, estimate_words
from isoflop.fit import surface_sentence
from isoflop.fit.predictions.optima import Prediction
from isoflop.fit.predictions.points import PointPrediction
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
    yield _predictions(
        f"Predicted loss of {count(first.parameters)} parameters after {count(first.tokens)} "
        f"tokens, {level:.0%} intervals{in_unit}",
        made,
        {
            "FLOPs": [exponent(one.training_flops) for one in made],
            "loss of the law": [estimate_words(one.loss) for one in made],
            "a new run": [(one.run.interval_words() if one.run else "") or NONE for one in made],
        },
        long=["loss of the law", "a new run"],
    )
    yield from _doubts(made)
    for compared in found.comparisons:
        yield said(surface_sentence(compared, unit))


def budget_lines(found: BudgetPrediction, level: float) -> Iterator[RenderableType]:
    """Yield the predictions, and how well the same would have done for the largest budget."""
    made, tested = found.predictions, found.leave_largest_out
    yield _predictions(
        f"Predicted optimum at {exponent(made[0].budget_flops)} FLOPs, {level:.0%} intervals",
        made,
        {
            "parameters": [estimate_words(one.parameters, count) for one in made],
            "tokens": [estimate_words(one.tokens, count) for one in made],
            "loss": [estimate_words(one.loss) for one in made],
        },
        long=["parameters", "tokens", "loss"],
    )
    yield from _doubts(made)
    # What none of them could have predicted is no test.
    if all(one.prediction.loss is None for one in tested):
        yield said(
            "Nothing tests the prediction: that takes a largest budget with a minimum, and others "
            "to predict it from."
        )
        return
    largest = exponent(tested[0].prediction.budget_flops)
    predicted = [one.prediction for one in tested]
    errors, ratios = [one.loss_error for one in tested], [one.parameter_ratio for one in tested]
    yield _predictions(
        f"Tested: {largest} FLOPs predicted from the smaller budgets",
        predicted,
        {
            "loss": [NONE if one.loss is None else f"{one.loss.value:.4f}" for one in predicted],
            "measured": [f"{one.loss:.4f}" for one in tested],
            "error": [NONE if error is None else f"{error:+.4f}" for error in errors],
            "size over measured": [NONE if ratio is None else f"{ratio:.2f}" for ratio in ratios],
        },
    )


def _predictions(
    title: str,
    made: Sequence[Prediction] | Sequence[PointPrediction],
    columns: dict[str, list[str]],
    long: Sequence[str] = (),
) -> RenderableType:
    return table(
        title,
        {
            "variant": [one.variant for one in made],
            "by": [WAY_WORDS[one.way] for one in made],
            **columns,
        },
        names=["variant"],
        words=["by"],
        long=long,
    )


def _doubts(made: Sequence[Prediction] | Sequence[PointPrediction]) -> Iterator[Text]:
    """Yield why predictions are missing or weak, and which are far beyond the runs."""
    for one in made:
        for doubt in (one.reason, one.warning):
            if doubt is not None:
                yield said(f"{one.variant}, {WAY_WORDS[one.way]}: {doubt}.")
    told = {one.variant: distance_words(one.extrapolation) for one in made}
    if len(set(told.values())) == 1 and None not in told.values():
        yield said(f"This is {told[made[0].variant]}.")
        return
    for name, words in told.items():
        if words is not None:
            yield said(f"{name}: this is {words}.")
