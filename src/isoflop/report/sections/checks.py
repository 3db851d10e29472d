"""What was checked beside the runs of figures: other learning rates, seeds crossed with orders."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from isoflop.fit.checks import RateCheck, VarianceComponents
from isoflop.notation import count, scientific
from isoflop.report import blocks
from isoflop.report.analysis import Analysis, Studied
from isoflop.report.words.prose import caption


def section(analysis: Analysis) -> blocks.Section | None:
    """Return the checks at the minima; None where there are none."""
    parts = [rates_table(analysis, "at the best size")] if analysis.rates else []
    if analysis.components:
        rows = [
            {
                **_model(analysis, one),
                "#Seed": f"{one.seed:.4f}",
                "#Data order": f"{one.order:.4f}",
                "#Rest": f"{one.rest:.4f}",
                "#Seeds by orders": f"{one.seeds} \N{MULTIPLICATION SIGN} {one.orders}",
            }
            for one in analysis.components
        ]
        parts.append(blocks.table(caption("components", analysis), rows))
    return blocks.Section("Checks at the minima", parts) if parts else None


def learning_rates(checks: Sequence[RateCheck]) -> pd.DataFrame:
    """Return a row per model and learning rate tried: the mean validation loss over `seeds`.

    `above_best`, with its ends, is how far that lies above the lowest, paired by seed; `used` marks
    the variant's own rate; `interior` says whether a lower and a higher rate than the best were
    both worse.
    """
    return pd.DataFrame(
        {
            "budget_flops": check.budget_flops,
            "variant": check.variant,
            "parameters": check.parameters,
            "learning_rate": rate,
            "validation_loss": loss,
            "seeds": check.seeds,
            **blocks.with_columns("above_best", above),
            "used": rate == check.used,
            "best": rate == check.best,
            "interior": check.interior,
        }
        for check in checks
        for rate, loss, above in zip(check.rates, check.losses, check.above_best, strict=True)
    )


def rates_table(analysis: Studied, where: str) -> blocks.Table:
    """Return what was found at each learning rate tried, in the order of the variants."""
    return blocks.table(
        caption("rates", where),
        [
            {
                **_model(analysis, check),
                "#Seeds": str(check.seeds),
                ":Loss by learning rate": _trials(check),
                "Interior": "yes" if check.interior else "no",
            }
            for check in analysis.rates
        ],
        csv="learning-rates",
        data=learning_rates(analysis.rates),
    )


def _model(analysis: Studied, one: RateCheck | VarianceComponents) -> dict[str, blocks.Text]:
    """Return cells that tell a model: of a budget, or of a size that the study names."""
    name = blocks.variant(one.variant)
    if analysis.study.scaling is None:
        budget, size = scientific(one.budget_flops), count(one.parameters)
        return {"#Budget": budget, ".Variant": name, "#Parameters": size}
    sizes = {record.parameters.total: record for record in analysis.records.values()}
    return {".Variant": name, "Size": blocks.size_of(sizes[one.parameters].config)}


def _trials(check: RateCheck) -> blocks.Text:
    found: list[str | blocks.Styled] = []
    for rate, loss, apart in zip(check.rates, check.losses, check.above_best, strict=True):
        told = "diverged" if loss is None else f"{loss:.4f}"
        found += [
            blocks.Styled("break"),
            f"{rate:.3g}{'*' if rate == check.used else ''}: ",
            blocks.Styled("strong", told) if rate == check.best else told,
            *([] if apart is None else [f" ({apart.words('+.4f')})"]),
        ]
    return tuple(found[1:])
