"""The subcommands on runs of a study or of any table: fits and predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from isoflop.cli.options import RESULTS, Json, Results, taken, tell

if TYPE_CHECKING:
    from isoflop.fit import FitSettings, RunTable
    from isoflop.storage import JSON
    from isoflop.sweep.fits import Reading


@dataclass(frozen=True, kw_only=True)
class OfRuns:
    """Whose runs are fitted, and what intervals of the fits rest on."""

    runs: Annotated[Path, Positional, arg(metavar="TABLE")]
    """A study, its records, or a table as CSV, JSON, Excel, Parquet."""
    columns: Annotated[tuple[str, ...], arg(metavar="NAME=COLUMN")] = ()
    """Columns of the table that have names of their own, or arithmetic on them:
    "tokens=step*batch_tokens" "parameters=params*1e6" "loss=log(perplexity)"."""
    where: Annotated[tuple[str, ...], arg(metavar="COLUMN=VALUE")] = ()
    """Rows to take; also !=, <, >, <= and >=."""
    last_of: Annotated[str | None, arg(metavar="COLUMN")] = None
    """Take the last row of each run by this column, such as step."""
    best_of: Annotated[tuple[str, ...], arg(metavar="COLUMN")] = ()
    """Settings that were searched, such as peak_lr: take the best at each size and number of
    tokens."""
    tolerance: Annotated[float, arg(help="Budgets this near to each other count as one.")] = 0.1
    delta: Annotated[float, arg(help="Of the Huber loss on log loss.")] = 1e-3
    equal_exponents: bool = False
    """Fit surfaces with alpha = beta, for runs at fixed tokens per parameter."""
    level: Annotated[float, arg(help="Probability that intervals are to hold.")] = 0.95
    resamples: Annotated[int, arg(help="Bootstrap samples behind each interval.")] = 1000
    seed: Annotated[int, arg(help="Of the bootstrap.")] = 0
    per: Literal["token", "byte"] = "token"
    """Of records: losses in bits per byte of text, which compare between tokenizers."""
    results: Results = RESULTS
    json: Json = False

    def settings(self) -> FitSettings:
        """Return what a fit is asked for."""
        from isoflop.fit import FitSettings

        # What shares noise is told by the column that the reading names.
        return taken(FitSettings, self, cluster=None)

    def reading(self) -> Reading:
        """Return how the runs are read."""
        from isoflop.sweep.fits import Reading

        return taken(Reading, self)


@dataclass(frozen=True, kw_only=True)
class Fit(OfRuns):
    """Fit loss against size and tokens, with intervals, and compare variants."""

    baseline: Annotated[str | None, arg(metavar="VARIANT")] = None
    """Whom the others are held against."""
    margin: Annotated[float | None, arg(metavar="LOSS")] = None
    """Difference of loss that counts as none."""
    cluster: Annotated[str | None, arg(metavar="COLUMN")] = None
    """Runs that share its value share noise, which surfaces heed."""
    details: bool = False
    """Print every estimator, surface and interval, not only the answer."""

    def __call__(self) -> None:
        from isoflop.fit import ScalingFit
        from isoflop.sweep.fits import fit_study
        from isoflop.terminal.fit_answer import fit_answer
        from isoflop.terminal.fit_details import fit_details, fit_warnings
        from isoflop.terminal.scaling import scaling_answer, scaling_tables
        from isoflop.terminal.tables import answer

        fitted = fit_study(
            self.runs, self.settings(), baseline=self.baseline, reading=self.reading()
        )
        result, runs = fitted.result, fitted.runs
        if isinstance(result, ScalingFit):
            unit = fitted.loss_unit
            assert unit is not None, "a table names no sizes"
            shown = scaling_tables(result, unit) if self.details else [scaling_answer(result, unit)]
            answer(result, shown, json=self.json)
            return
        assert runs is not None, "what is no scaling study has runs"
        told = {**_said(runs), "warnings": fit_warnings(result, runs)}
        details = fit_details(result, runs) if self.details else [fit_answer(result, runs)]
        answer({**result.model_dump(mode="json"), **told}, details, json=self.json)


@dataclass(frozen=True, kw_only=True)
class Predict(OfRuns):
    """Predict the optimum at a budget not trained yet, or the loss of a size and tokens."""

    budget: Annotated[float | None, arg(metavar="FLOPS")] = None
    """Training FLOPs to predict the optimum at."""
    parameters: Annotated[float | None, arg(metavar="N")] = None
    """Size to predict the loss of, with --tokens."""
    tokens: Annotated[float | None, arg(metavar="D")] = None
    """Training tokens of a model of that size."""
    register: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the prediction there, before it is trained."""

    def __call__(self) -> None:
        from isoflop.sweep.fits import predict_study
        from isoflop.terminal.prediction import prediction_lines
        from isoflop.terminal.tables import answer, said

        at = self._asked_for()
        if self.register is not None and isinstance(at, tuple):
            raise ValueError("--register writes down an optimum; expected --budget with it")
        made, runs = predict_study(
            self.runs, at, self.settings(), reading=self.reading(), register_as=self.register
        )
        if self.register is not None:
            tell(f"wrote {self.register}")
        doubts = [f"Warning: {warning}" for warning in runs.warnings]
        above = [said(one) for one in (runs.understood, *doubts) if one]
        lines = prediction_lines(made, self.level, runs.loss_unit, per_byte=self.per == "byte")
        told = {**made.model_dump(mode="json"), **_said(runs)}
        answer(told, [*above, *lines], json=self.json)

    def _asked_for(self) -> float | tuple[float, float]:
        """Return the budget, or the size and the tokens, that a prediction is asked for.

        Raises:
            ValueError: neither or both are given, one of a pair is missing, or a number is not
                positive.
        """
        budget, parameters, tokens = self.budget, self.parameters, self.tokens
        given = {"--budget": budget, "--parameters": parameters, "--tokens": tokens}
        told = [name for name, value in given.items() if value is not None]
        for name, value in given.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value:g}; expected a positive number")
        if budget is not None and told == ["--budget"]:
            return budget
        if parameters is not None and tokens is not None and budget is None:
            return parameters, tokens
        raise ValueError(
            f"given is {' and '.join(told) or 'nothing to predict at'}; expected --budget alone, "
            "or --parameters with --tokens"
        )


def _said(runs: RunTable) -> dict[str, JSON]:
    """Return what was understood of a table, and what was assumed and doubted, as JSON."""
    return {
        "understood": runs.understood or None,
        "warnings": list(runs.warnings),
        "notes": list(runs.notes),
    }
