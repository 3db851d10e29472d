"""`isoflop predict`: how predictions are made and shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.fit_options import FitOptions
from isoflop.cli.tables import Column, table
from isoflop.estimate import NONE, estimate_words
from isoflop.fit import (
    RunTable,
    compare_surfaces,
    leave_largest_out,
    predict,
    predict_point,
    surface_sentence,
)
from isoflop.fit.compare.surfaces import SurfaceComparison
from isoflop.fit.predictions.optima import Miss, Prediction
from isoflop.fit.predictions.points import PointPrediction
from isoflop.fit.surfaces.sample import sample_surfaces
from isoflop.fit.words import distance_words
from isoflop.notation import count, exponent
from isoflop.report.registration import WAY_WORDS
from isoflop.storage import JSON
from isoflop.text import quoted


@dataclass(frozen=True)
class Points:
    """What is predicted at a stated size and number of tokens."""

    made: tuple[PointPrediction, ...]
    compared: tuple[SurfaceComparison, ...]
    """Every other variant against the baseline there."""


def asked_for(
    budget: float | None, parameters: float | None, tokens: float | None
) -> float | tuple[float, float]:
    """Return the budget, or the size and the tokens, that a prediction is asked for.

    Raises:
        ValueError: neither or both are given, one of a pair is missing, or a number is not
            positive.
    """
    given = {"--budget": budget, "--parameters": parameters, "--tokens": tokens}
    told = [name for name, value in given.items() if value is not None]
    for name, value in given.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value:g}; expected a positive number")
    if told == ["--budget"] and budget is not None:
        return budget
    if parameters is not None and tokens is not None and budget is None:
        return parameters, tokens
    raise ValueError(
        f"given is {' and '.join(told) or 'nothing to predict at'}; expected --budget alone, or "
        "--parameters with --tokens"
    )


def predictions(
    runs: RunTable, budget_flops: float, options: FitOptions
) -> tuple[tuple[Prediction, ...], tuple[Miss, ...]]:
    """Return the predictions at a budget, and those of the largest one from the smaller ones."""
    settings = options.settings()
    made = predict(runs.table, budget_flops, settings)
    tested = leave_largest_out(runs.table, settings)
    return made, tested


def points(
    runs: RunTable, at: tuple[float, float], options: FitOptions, baseline: str | None
) -> Points:
    """Return the predictions at a size and number of tokens, and how variants compare there.

    Args:
        runs: to predict from.
        at: size and tokens.
        options: of the surfaces and intervals.
        baseline: whom the others are held against; the first with a finished run if left out.
    """
    settings = options.settings()
    finished = runs.table[runs.table["state"] == "finished"]
    samples = sample_surfaces(finished, settings)
    made = predict_point(finished, *at, settings=settings, samples=samples)
    names = [one.variant for one in made]
    reference = baseline if baseline in names else names[0]
    compared = compare_surfaces(finished, reference, settings=settings, at=at, samples=samples)
    return Points(made=made, compared=compared)


def point_json(found: Points) -> Mapping[str, JSON]:
    """Return what is predicted at a size and tokens as JSON."""
    return {
        "predictions": [one.model_dump(mode="json") for one in found.made],
        "comparisons": [one.model_dump(mode="json") for one in found.compared],
    }


def prediction_json(made: Sequence[Prediction], tested: Sequence[Miss]) -> Mapping[str, JSON]:
    """Return the predictions at a budget as JSON."""
    return {
        "predictions": [one.model_dump(mode="json") for one in made],
        "leave_largest_out": [one.model_dump(mode="json") for one in tested],
    }


def point_lines(found: Points, level: float, unit: str | None) -> Iterator[RenderableType]:
    """Yield the losses predicted at a size and tokens, and how variants compare there."""
    first = found.made[0]
    in_unit = f", {unit}" if unit else ""
    yield table(
        f"Predicted loss of {count(first.parameters)} parameters after {count(first.tokens)} "
        f"tokens, {level:.0%} intervals{in_unit}",
        [
            Column("variant", wraps=True, number=False),
            Column("by", number=False),
            Column("FLOPs"),
            Column("loss of the law", wraps=True),
            Column("a new run", wraps=True),
        ],
        [
            (
                one.variant,
                WAY_WORDS[one.way],
                f"{one.training_flops:.3g}".replace("e+", "e"),
                estimate_words(one.loss),
                (one.run.interval_words() if one.run else "") or NONE,
            )
            for one in found.made
        ],
    )
    for one in found.made:
        if one.reason is not None:
            yield Text(quoted(f"{one.variant}, {WAY_WORDS[one.way]}: {one.reason}."))
        if one.warning is not None:
            yield Text(quoted(f"{one.variant}, {WAY_WORDS[one.way]}: {one.warning}."))
    yield from _distances(found.made)
    for compared in found.compared:
        yield Text(quoted(surface_sentence(compared, unit)))


def _distances(made: Sequence[Prediction] | Sequence[PointPrediction]) -> Iterator[Text]:
    """Yield how far beyond the runs of each variant a prediction is, where that is far."""
    told = {one.variant: distance_words(one.extrapolation) for one in made}
    far = {name: words for name, words in told.items() if words is not None}
    if len(set(far.values())) == 1 and len(far) == len(told):
        yield Text(quoted(f"This is {next(iter(far.values()))}."))
        return
    for name, words in far.items():
        yield Text(quoted(f"{name}: this is {words}."))


def prediction_tables(
    made: Sequence[Prediction], tested: Sequence[Miss], level: float
) -> Iterator[RenderableType]:
    """Yield the predictions, and how well the same would have done for the largest budget."""
    columns = [
        Column("variant", wraps=True, number=False),
        Column("by", number=False),
        Column("parameters", wraps=True),
        Column("tokens", wraps=True),
        Column("loss", wraps=True),
    ]
    budget = exponent(made[0].budget_flops)
    yield table(
        f"Predicted optimum at {budget} FLOPs, {level:.0%} intervals",
        columns,
        [
            (
                one.variant,
                WAY_WORDS[one.way],
                estimate_words(one.parameters, count),
                estimate_words(one.tokens, count),
                estimate_words(one.loss),
            )
            for one in made
        ],
    )
    for one in made:
        if one.reason is not None:
            yield Text(quoted(f"{one.variant}, {WAY_WORDS[one.way]}: {one.reason}."))
        if one.warning is not None:
            yield Text(quoted(f"{one.variant}, {WAY_WORDS[one.way]}: {one.warning}."))
    yield from _distances(made)
    # What none of them could have predicted is no test.
    tested = tested if any(one.prediction.loss is not None for one in tested) else ()
    if not tested:
        yield Text(
            "Nothing tests the prediction: that takes a largest budget with a minimum, and others "
            "to predict it from."
        )
        return
    largest = exponent(tested[0].prediction.budget_flops)
    yield table(
        f"Tested: {largest} FLOPs predicted from the smaller budgets",
        [
            Column("variant", wraps=True, number=False),
            Column("by", number=False),
            Column("loss"),
            Column("measured"),
            Column("error"),
            Column("size over measured"),
        ],
        [
            (
                one.prediction.variant,
                WAY_WORDS[one.prediction.way],
                "-" if one.prediction.loss is None else f"{one.prediction.loss.value:.4f}",
                f"{one.loss:.4f}",
                "-" if one.loss_error is None else f"{one.loss_error:+.4f}",
                "-" if one.parameter_ratio is None else f"{one.parameter_ratio:.2f}",
            )
            for one in tested
        ],
    )
