"""The subcommands on runs of a study or of any table: fits and predictions."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from isoflop.cli.options import RESULTS, Json, Results
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.fit import FitSettings, RunTable
    from isoflop.storage import JSON
    from isoflop.sweep.fits import Reading


@dataclass(frozen=True)
class FitOptions:
    """Whose runs are fitted, and what intervals of the fits rest on."""

    runs: Annotated[
        Path,
        Positional,
        arg(metavar="TABLE", help="A study, its records, or a table as CSV, JSON, Excel, Parquet."),
    ]
    columns: Annotated[
        tuple[str, ...],
        arg(
            metavar="NAME=COLUMN",
            help="Columns of the table that have names of their own, or arithmetic on them: "
            '"tokens=step*batch_tokens" "parameters=params*1e6" "loss=log(perplexity)".',
        ),
    ] = ()
    where: Annotated[
        tuple[str, ...],
        arg(metavar="COLUMN=VALUE", help="Rows to take; also !=, <, >, <= and >=."),
    ] = ()
    last_of: Annotated[
        str | None,
        arg(metavar="COLUMN", help="Take the last row of each run by this column, such as step."),
    ] = None
    best_of: Annotated[
        tuple[str, ...],
        arg(
            metavar="COLUMN",
            help="Settings that were searched, such as peak_lr: take the best at each size and "
            "number of tokens.",
        ),
    ] = ()
    tolerance: Annotated[float, arg(help="Budgets this near to each other count as one.")] = 0.1
    delta: Annotated[float, arg(help="Of the Huber loss on log loss.")] = 1e-3
    equal_exponents: Annotated[
        bool,
        arg(help="Fit surfaces with alpha = beta, for runs at fixed tokens per parameter."),
    ] = False
    level: Annotated[float, arg(help="Probability that intervals are to hold.")] = 0.95
    resamples: Annotated[int, arg(help="Bootstrap samples behind each interval.")] = 1000
    seed: Annotated[int, arg(help="Of the bootstrap.")] = 0
    per: Annotated[
        Literal["token", "byte"],
        arg(help="Of records: losses in bits per byte of text, which compare between tokenizers."),
    ] = "token"
    results: Results = RESULTS
    json: Json = False

    def settings(self, margin: float | None = None) -> FitSettings:
        """Return what a fit is asked for."""
        from isoflop.fit import FitSettings

        return FitSettings(
            delta=self.delta,
            level=self.level,
            resamples=self.resamples,
            seed=self.seed,
            equal_exponents=self.equal_exponents,
            margin=margin,
        )

    def reading(self, cluster: str | None = None) -> Reading:
        """Return how the runs are read."""
        from isoflop.sweep.fits import Reading

        named = ("columns", "where", "last_of", "best_of", "tolerance", "results", "per")
        return Reading(cluster=cluster, **{name: getattr(self, name) for name in named})


def fit(
    options: Annotated[FitOptions, arg(name="")],
    baseline: Annotated[
        str | None, arg(metavar="VARIANT", help="Whom the others are held against.")
    ] = None,
    margin: Annotated[
        float | None, arg(metavar="LOSS", help="Difference of loss that counts as none.")
    ] = None,
    cluster: Annotated[
        str | None,
        arg(metavar="COLUMN", help="Runs that share its value share noise, which surfaces heed."),
    ] = None,
    details: Annotated[
        bool, arg(help="Print every estimator, surface and interval, not only the answer.")
    ] = False,
) -> None:
    """Fit loss against size and tokens, with intervals, and compare variants."""
    from isoflop.fit import ScalingFit
    from isoflop.sweep.fits import fit_study
    from isoflop.terminal.fit_answer import fit_answer
    from isoflop.terminal.fit_details import fit_details, fit_warnings
    from isoflop.terminal.scaling import scaling_answer, scaling_tables
    from isoflop.terminal.tables import show, show_json

    fitted = fit_study(
        options.runs,
        options.settings(margin),
        baseline=baseline,
        reading=options.reading(cluster),
    )
    result, runs = fitted.result, fitted.runs
    if isinstance(result, ScalingFit):
        unit = fitted.loss_unit
        assert unit is not None, "a table names no sizes"
        if options.json:
            show_json(result.model_dump(mode="json"))
        else:
            show(scaling_tables(result, unit) if details else [scaling_answer(result, unit)])
        return
    assert runs is not None, "what is no scaling study has runs"
    if options.json:
        told = {**_said(runs), "warnings": fit_warnings(result, runs)}
        show_json({**result.model_dump(mode="json"), **told})
    else:
        show(fit_details(result, runs) if details else [fit_answer(result, runs)])


def predict(
    options: Annotated[FitOptions, arg(name="")],
    budget: Annotated[
        float | None, arg(metavar="FLOPS", help="Training FLOPs to predict the optimum at.")
    ] = None,
    parameters: Annotated[
        float | None, arg(metavar="N", help="Size to predict the loss of, with --tokens.")
    ] = None,
    tokens: Annotated[
        float | None, arg(metavar="D", help="Training tokens of a model of that size.")
    ] = None,
    register: Annotated[
        Path | None, arg(metavar="FILE", help="Write the prediction there, before it is trained.")
    ] = None,
) -> None:
    """Predict the optimum at a budget not trained yet, or the loss of a size and tokens."""
    from isoflop.sweep.fits import SizePrediction, predict_study
    from isoflop.terminal.prediction import budget_lines, size_lines
    from isoflop.terminal.tables import said, show, show_json

    at = _asked_for(budget, parameters, tokens)
    if register is not None and isinstance(at, tuple):
        raise ValueError("--register writes down an optimum; expected --budget with it")
    made, runs = predict_study(
        options.runs, at, options.settings(), reading=options.reading(), register_as=register
    )
    if register is not None:
        print(quoted(f"wrote {register}"), file=sys.stderr)
    if options.json:
        show_json({**made.model_dump(mode="json"), **_said(runs)})
        return
    if runs.understood:
        show([said(runs.understood)])
    show(said(f"Warning: {warning}") for warning in runs.warnings)
    if isinstance(made, SizePrediction):
        show(size_lines(made, options.level, runs.loss_unit))
    else:
        show(budget_lines(made, options.level, runs.loss_unit if options.per == "byte" else None))


def _said(runs: RunTable) -> dict[str, JSON]:
    """Return what was understood of a table, and what was assumed and doubted, as JSON."""
    return {
        "understood": runs.understood or None,
        "warnings": list(runs.warnings),
        "notes": list(runs.notes),
    }


def _asked_for(
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
