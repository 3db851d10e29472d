"""`isoflop predict`: how predictions are made and shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.fit_options import FitOptions
from isoflop.cli.tables import Column, table
from isoflop.config.problems import quoted
from isoflop.fit import (
    CurveDraws,
    Miss,
    Predicted,
    Prediction,
    RunTable,
    leave_largest_out,
    predict,
)
from isoflop.report.notation import count, exponent
from isoflop.report.rows import WAY_WORDS


def predictions(
    runs: RunTable, budget_flops: float, options: FitOptions
) -> tuple[tuple[Prediction, ...], tuple[Miss, ...]]:
    """Return the predictions at a budget, and those of the largest one from the smaller ones."""
    draws = CurveDraws(runs.table, resamples=options.resamples, seed=options.seed)
    made = predict(
        runs.table,
        budget_flops,
        level=options.level,
        resamples=options.resamples,
        delta=options.delta,
        seed=options.seed,
        draws=draws,
    )
    tested = leave_largest_out(
        runs.table,
        level=options.level,
        resamples=options.resamples,
        delta=options.delta,
        seed=options.seed,
        draws=draws,
    )
    return made, tested


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
                _counted(one.parameters),
                _counted(one.tokens),
                _loss(one.loss),
            )
            for one in made
        ],
    )
    for one in made:
        if one.reason is not None:
            yield Text(quoted(f"{one.variant}, {WAY_WORDS[one.way]}: {one.reason}."))
    if not tested:
        yield Text("One budget only, so nothing tests the prediction.")
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


def _counted(one: Predicted | None) -> str:
    if one is None:
        return "-"
    if one.low is None or one.high is None:
        return count(one.value)
    return f"{count(one.value)} [{count(one.low)}, {count(one.high)}]"


def _loss(one: Predicted | None) -> str:
    if one is None:
        return "-"
    if one.low is None or one.high is None:
        return f"{one.value:.4f}"
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"
