"""`isoflop fit` of a scaling study: gaps by position, and projections against compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.own_runs import own_runs
from isoflop.cli.tables import Column, coefficient, table
from isoflop.config import Study
from isoflop.config.problems import quoted
from isoflop.fit import ScalingFit, fit_scaling, gap_sentence
from isoflop.report.notation import count


def fit_scaling_study(
    study: Study,
    root: Path,
    results: Path,
    *,
    baseline: str | None,
    margin: float | None,
    level: float,
) -> ScalingFit:
    """Return the fit of the runs of a scaling study that have finished.

    Raises:
        ValueError: no run has a record, or its runs tell no positions apart.
    """
    records, runs = own_runs(study, root, results)
    return fit_scaling(
        records,
        runs.variant_of,
        baseline=baseline or study.baseline_variant.name,
        margin=margin or study.equivalence_margin,
        level=level,
    )


def scaling_tables(fit: ScalingFit, unit: str) -> Iterator[RenderableType]:
    """Yield a sentence per variant and span, then losses, projections and how they were made."""
    for gap in fit.gaps:
        if gap.non_embedding is None:
            yield Text(quoted(gap_sentence(fit, gap, unit)))
    yield Text(
        f"Intervals are {fit.level:.0%}; they hold other seeds and other documents. Equivalent is "
        "said where two one-sided tests stand at the margin, better and worse after Holm's "
        "correction over the spans."
    )
    yield _losses(fit, unit)
    yield _projections(fit)
    refused = {
        f"{one.variant}: no projection, {one.message}." for one in fit.projections if one.a is None
    }
    for line in sorted(refused):
        yield Text(quoted(line))


def _losses(fit: ScalingFit, unit: str) -> RenderableType:
    columns = [
        Column("variant", wraps=True, number=False),
        Column("N"),
        Column("positions"),
        Column("loss"),
        Column("interval"),
        Column("seeds"),
        Column("documents"),
        Column("windows"),
    ]
    cells = [
        (
            one.variant,
            count(one.non_embedding),
            _span(one.start, one.stop),
            f"{one.loss.value:.4f}",
            f"[{one.loss.low:.4f}, {one.loss.high:.4f}]",
            str(len(one.seeds)),
            str(one.documents),
            str(one.windows),
        )
        for one in fit.losses
        if (one.start, one.stop) in _summaries(fit)
    ]
    return table(f"Test loss of the whole window and its trailing part, {unit}", columns, cells)


def _projections(fit: ScalingFit) -> RenderableType:
    columns = [
        Column("variant", wraps=True, number=False),
        Column("positions"),
        Column("compute", number=False),
        Column("a", wraps=True),
        Column("b", wraps=True),
    ]
    cells = [
        (
            one.variant,
            _span(one.start, one.stop),
            one.axis,
            coefficient(one.a),
            coefficient(one.b),
        )
        for one in fit.projections
        if one.a is not None
    ]
    return table("L = a C^b, C in PFLOP/s-days; least squares of final losses", columns, cells)


def _summaries(fit: ScalingFit) -> set[tuple[int, int]]:
    """Return the spans of the whole window and of its trailing part, which come last."""
    return set(fit.spans[-2:])


def _span(start: int, stop: int) -> str:
    return f"{start}-{stop - 1}"
