"""`isoflop fit` of a scaling study: gaps by position, and projections against compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.own_runs import own_runs
from isoflop.cli.screen import CLOSING, Screen, capped
from isoflop.cli.tables import Column, coefficient, table
from isoflop.config import Study
from isoflop.config.run import Span
from isoflop.fit import ScalingFit, fit_scaling, gap_sentence
from isoflop.fit.spans.values import SpanGap
from isoflop.notation import count
from isoflop.text import quoted

MOST = 6
"""Lines of each kind in the answer."""
_MEANT = (
    "Intervals are {level}; they hold other seeds and other documents. Equivalent is said where "
    "two one-sided tests stand at the margin, better and worse after Holm's correction over the "
    "spans."
)


def fit_scaling_study(
    study: Study,
    root: Path,
    results: Path,
    file: Path,
    *,
    baseline: str | None,
    margin: float | None,
    level: float,
) -> ScalingFit:
    """Return the fit of the runs of a scaling study that have finished.

    Raises:
        ValueError: no run has a record, or its runs tell no positions apart.
    """
    records, runs = own_runs(study, root, results, file)
    return fit_scaling(
        records,
        runs.variant_of,
        baseline=baseline or study.baseline_variant.name,
        margin=margin or study.equivalence_margin,
        level=level,
    )


def scaling_answer(fit: ScalingFit, unit: str) -> Screen:
    """Return what holds of the whole window and its trailing part, on one screen."""
    means = [gap for gap in fit.gaps if gap.non_embedding is None]
    whole = [gap_sentence(fit, gap, unit) for gap in means if _span_of(gap) in _summaries(fit)]
    cells = _loss_cells(fit, fit.spans[-2:-1])
    return Screen(
        above=(
            *(Text(quoted(line), style="bold") for line in capped(whole, MOST)),
            *(Text(quoted(line)) for line in capped(list(_by_position(fit, means, unit)), MOST)),
            Text(_MEANT.format(level=f"{fit.level:.0%}")),
            _projections(fit, fit.spans[-2:-1]),
            *map(Text, capped(_refused(fit), MOST)),
        ),
        below=(Text(CLOSING),),
        rows=len(cells),
        table=lambda rows: [
            _losses(f"Test loss of the whole window, {unit}", cells[:rows]),
            *([Text(f"{len(cells) - rows} more losses: --details.")] if rows < len(cells) else []),
        ],
    )


def _by_position(fit: ScalingFit, means: Sequence[SpanGap], unit: str) -> Iterator[str]:
    """Yield a line per variant with how its gap to the baseline runs over the positions."""
    for name in dict.fromkeys(gap.variant for gap in means):
        own = [gap for gap in means if gap.variant == name and _span_of(gap) not in _summaries(fit)]
        values = [gap.difference.value for gap in own if gap.difference is not None]
        if not values:
            continue
        outcomes = ", ".join(
            f"{outcome} in {sum(gap.outcome == outcome for gap in own)}"
            for outcome in dict.fromkeys(gap.outcome for gap in own)
        )
        yield (
            f"{name} against {fit.baseline}, of {len(own)} ranges of positions: {outcomes}; "
            f"differences {min(values):+.4f} to {max(values):+.4f} {unit}."
        )


def scaling_tables(fit: ScalingFit, unit: str) -> Iterator[RenderableType]:
    """Yield a sentence per variant and span, then losses, projections and how they were made."""
    for gap in fit.gaps:
        if gap.non_embedding is None:
            yield Text(quoted(gap_sentence(fit, gap, unit)))
    yield Text(_MEANT.format(level=f"{fit.level:.0%}"))
    title = f"Test loss of the whole window and its trailing part, {unit}"
    yield _losses(title, _loss_cells(fit, fit.spans[-2:]))
    yield _projections(fit, fit.spans)
    yield from map(Text, _refused(fit))


def _refused(fit: ScalingFit) -> list[str]:
    lines = {
        f"{one.variant}: no projection, {one.message}." for one in fit.projections if one.a is None
    }
    return [quoted(line) for line in sorted(lines)]


def _loss_cells(fit: ScalingFit, spans: Sequence[Span]) -> list[tuple[str, ...]]:
    return [
        (
            one.variant,
            count(one.non_embedding),
            _span(one.start, one.stop),
            f"{one.loss.value:.4f}",
            one.loss.interval_words(),
            str(len(one.seeds)),
            str(one.documents),
            str(one.windows),
        )
        for one in fit.losses
        if (one.start, one.stop) in spans
    ]


def _losses(title: str, cells: Sequence[tuple[str, ...]]) -> RenderableType:
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
    return table(title, columns, cells)


def _projections(fit: ScalingFit, spans: Sequence[Span]) -> RenderableType:
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
        if one.a is not None and (one.start, one.stop) in spans
    ]
    return table("L = a C^b, C in PFLOP/s-days; least squares of final losses", columns, cells)


def _summaries(fit: ScalingFit) -> set[Span]:
    """Return the spans of the whole window and of its trailing part, which come last."""
    return set(fit.spans[-2:])


def _span_of(gap: SpanGap) -> Span:
    return (gap.start, gap.stop)


def _span(start: int, stop: int) -> str:
    return f"{start}-{stop - 1}"
