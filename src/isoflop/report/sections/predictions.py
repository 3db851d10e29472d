"""Predictions that were registered before their budget was trained, and their misses."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from isoflop.estimate import estimate_words
from isoflop.fit.predictions import Miss, Prediction, misses
from isoflop.notation import count, scientific
from isoflop.report import blocks
from isoflop.report.analysis import Analysis
from isoflop.report.registration import WAY_WORDS, Registration
from isoflop.report.words.prose import caption


def section(analysis: Analysis) -> blocks.Section | None:
    """Return each prediction beside what was measured; None where none was registered."""
    found = predictions(analysis)
    if found.empty:
        return None
    rows: list[blocks.Row] = [
        {
            "#Budget": scientific(one.budget_flops),
            ".Variant": blocks.variant(made.variant),
            ".By": WAY_WORDS[made.way],
            "#Predicted size": estimate_words(made.parameters, count, blocks.NONE),
            "#Predicted loss": estimate_words(made.loss, none=blocks.NONE),
            "#Measured": f"{miss.loss:.4f} at {count(miss.parameters)}"
            if miss
            else "not trained yet",
            "#Miss": blocks.number(miss.loss_error if miss else None, "+.4f"),
        }
        for one, made, miss in beside_measured(analysis)
    ]
    notes = [
        blocks.Paragraph(
            (f"{caption('registered', one)} ", blocks.Styled("code", one.sha256), "."), "caption"
        )
        for one in analysis.evidence.registered
    ]
    shown = blocks.table(caption("predictions"), rows, csv="predictions", data=found)
    return blocks.Section("Predictions", [shown, *notes])


def predictions(analysis: Analysis) -> pd.DataFrame:
    """Return a row per registered prediction of the study's variants, beside what was measured.

    `parameters` and `loss` with their ends were predicted; `measured_parameters` and
    `measured_loss` are the minimum by the parabola; `loss_error` is predicted less measured,
    `parameter_ratio` predicted over measured. What is not known is missing.
    """
    return pd.DataFrame(
        {
            "budget_flops": one.budget_flops,
            "variant": made.variant,
            "way": made.way,
            **blocks.with_columns("parameters", made.parameters),
            **blocks.with_columns("loss", made.loss),
            "measured_parameters": miss and miss.parameters,
            "measured_loss": miss and miss.loss,
            "loss_error": miss and miss.loss_error,
            "parameter_ratio": miss and miss.parameter_ratio,
            "runs": one.runs,
            "sha256": one.sha256,
        }
        for one, made, miss in beside_measured(analysis)
    )


def beside_measured(analysis: Analysis) -> Iterator[tuple[Registration, Prediction, Miss | None]]:
    """Yield registered predictions of the study's variants, with the miss where there is one."""
    for one in analysis.evidence.registered:
        missed = {
            (miss.prediction.variant, miss.prediction.way): miss
            for miss in misses(analysis.table, one.predictions)
        }
        for made in one.predictions:
            if made.variant in analysis.names:
                yield one, made, missed.get((made.variant, made.way))
