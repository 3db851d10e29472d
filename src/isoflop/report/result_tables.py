"""Tables of what no figure draws: claims, learning rates tried, predictions and their misses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from isoflop.fit.checks import RateCheck
from isoflop.report.analysis import Analysis
from isoflop.report.registration import Registration
from isoflop.report.render import write_table
from isoflop.report.rows import beside_measured, claim_rows
from isoflop.report.words import doubts


def write_result_tables(
    analysis: Analysis, registered: Sequence[Registration], folder: Path
) -> None:
    """Write `claims.csv`, `learning-rates.csv` and `predictions.csv`, those that have rows.

    Raises:
        StorageError: a file cannot be written.
    """
    write_found(claims(analysis), folder / "claims.csv")
    write_found(learning_rates(analysis.rates), folder / "learning-rates.csv")
    write_found(predictions(analysis, registered), folder / "predictions.csv")


def write_found(table: pd.DataFrame, path: Path) -> None:
    """Write a table if it has rows.

    Raises:
        StorageError: the file cannot be written.
    """
    if len(table):
        write_table(table, path)


def claims(analysis: Analysis) -> pd.DataFrame:
    """Return a row per budget and published claim: `statement`, `verdict`, `numbers` in words.

    `difference` with its ends is what was judged, below zero on the claimed side: of losses, or of
    log parameters where the claim is about sizes. A study with doubts has no verdicts.
    """
    doubted = bool(doubts(analysis))
    rows = [
        {
            "budget_flops": result.budget_flops,
            "statement": row["statement"],
            "verdict": row["verdict"],
            "difference": claim.interval.value if claim.interval else None,
            "difference_low": claim.interval.low if claim.interval else None,
            "difference_high": claim.interval.high if claim.interval else None,
            "numbers": row["numbers"],
        }
        for result in analysis.budgets
        for claim, row in zip(
            result.claims, claim_rows(result.claims, doubted=doubted), strict=True
        )
    ]
    return pd.DataFrame(rows)


def learning_rates(checks: Sequence[RateCheck]) -> pd.DataFrame:
    """Return a row per model and learning rate tried: the mean validation loss over `seeds`.

    `above_best`, with its ends, is how far that lies above the lowest, paired by seed; `used` marks
    the variant's own rate; `interior` says whether a lower and a higher rate than the best were
    both worse.
    """
    rows = [
        {
            "budget_flops": check.budget_flops,
            "variant": check.variant,
            "parameters": check.parameters,
            "learning_rate": rate,
            "validation_loss": loss,
            "seeds": check.seeds,
            "above_best": above.value if above else None,
            "above_best_low": above.low if above else None,
            "above_best_high": above.high if above else None,
            "used": rate == check.used,
            "best": rate == check.best,
            "interior": check.interior,
        }
        for check in checks
        for rate, loss, above in zip(check.rates, check.losses, check.above_best, strict=True)
    ]
    return pd.DataFrame(rows)


def predictions(analysis: Analysis, registered: Sequence[Registration]) -> pd.DataFrame:
    """Return a row per registered prediction of the study's variants, beside what was measured.

    `parameters` and `loss` with their ends were predicted; `measured_parameters` and
    `measured_loss` are the minimum by the parabola; `loss_error` is predicted less measured,
    `parameter_ratio` predicted over measured. What is not known is missing.
    """
    rows = [
        {
            "budget_flops": one.budget_flops,
            "variant": made.variant,
            "way": made.way,
            "parameters": made.parameters.value if made.parameters else None,
            "parameters_low": made.parameters.low if made.parameters else None,
            "parameters_high": made.parameters.high if made.parameters else None,
            "loss": made.loss.value if made.loss else None,
            "loss_low": made.loss.low if made.loss else None,
            "loss_high": made.loss.high if made.loss else None,
            "measured_parameters": miss.parameters if miss else None,
            "measured_loss": miss.loss if miss else None,
            "loss_error": miss.loss_error if miss else None,
            "parameter_ratio": miss.parameter_ratio if miss else None,
            "runs": one.runs,
            "sha256": one.sha256,
        }
        for one, made, miss in beside_measured(analysis, registered)
    ]
    return pd.DataFrame(rows)
