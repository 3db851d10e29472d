"""What was checked beside the runs of figures: other learning rates, seeds crossed with orders."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from isoflop.fit.checks import RateCheck
from isoflop.notation import count, scientific
from isoflop.report.analysis import Analysis
from isoflop.report.blocks import Block, Section, Styled, Table, Text, columns, size_of, variant
from isoflop.report.scaling import ScalingAnalysis


def section(analysis: Analysis) -> Section | None:
    """Return the checks at the minima; None where there are none."""
    blocks: list[Block] = []
    if analysis.rates:
        rows = [
            [
                scientific(one.budget_flops),
                variant(one.variant),
                count(one.parameters),
                *_rate_cells(one),
            ]
            for one in analysis.rates
        ]
        titles = ("#Budget", ".Variant", "#Parameters")
        blocks.append(_rates_table("at the best size", titles, rows, analysis.rates))
    if analysis.components:
        blocks.append(_components(analysis))
    return Section("Checks at the minima", blocks) if blocks else None


def scaling_table(analysis: ScalingAnalysis) -> Table:
    """Return the learning rates that a scaling study tried, by variant."""
    sizes = {record.parameters.total: record for record in analysis.records.values()}
    rows = [
        [variant(one.variant), size_of(sizes[one.parameters].config), *_rate_cells(one)]
        for one in sorted(analysis.rates, key=lambda one: analysis.names.index(one.variant))
    ]
    return _rates_table("at one size", (".Variant", "Size"), rows, analysis.rates)


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
            "above_best": above.value if above else None,
            "above_best_low": above.low if above else None,
            "above_best_high": above.high if above else None,
            "used": rate == check.used,
            "best": rate == check.best,
            "interior": check.interior,
        }
        for check in checks
        for rate, loss, above in zip(check.rates, check.losses, check.above_best, strict=True)
    )


def _rates_table(
    where: str, titles: tuple[str, ...], rows: list[list[Text]], checks: Sequence[RateCheck]
) -> Table:
    return Table(
        f"Learning rates tried {where}: validation loss, the lowest in bold; with several seeds "
        "their mean, and how far it lies above the lowest, paired by seed, with its 95% interval. "
        "A star marks the rate used; interior means that a lower and a higher rate than the best "
        "were both worse. No fit uses the runs at other rates.",
        columns(*titles, "#Seeds", ":Loss by learning rate", "Interior"),
        rows,
        csv="learning-rates",
        data=learning_rates(checks),
    )


def _rate_cells(check: RateCheck) -> list[Text]:
    """Return seeds, what was found at each learning rate, and whether the best is interior."""
    trials: list[str | Styled] = []
    for rate, loss, apart in zip(check.rates, check.losses, check.above_best, strict=True):
        told = "diverged" if loss is None else f"{loss:.4f}"
        if trials:
            trials.append(Styled("break"))
        trials += [
            f"{rate:.3g}{'*' if rate == check.used else ''}: ",
            Styled("strong", told) if rate == check.best else told,
        ]
        if apart is not None:
            trials.append(f" ({apart.words('+.4f')})")
    return [str(check.seeds), tuple(trials), "yes" if check.interior else "no"]


def _components(analysis: Analysis) -> Table:
    return Table(
        f"What the loss of one model varies by: standard deviations, {analysis.loss_unit}, of the "
        "test loss over seeds (initialisation) and data orders, crossed.",
        columns(
            "#Budget",
            ".Variant",
            "#Parameters",
            "#Seed",
            "#Data order",
            "#Rest",
            "#Seeds by orders",
        ),
        [
            [
                scientific(one.budget_flops),
                variant(one.variant),
                count(one.parameters),
                f"{one.seed:.4f}",
                f"{one.order:.4f}",
                f"{one.rest:.4f}",
                f"{one.seeds} \N{MULTIPLICATION SIGN} {one.orders}",
            ]
            for one in analysis.components
        ],
    )
