"""`isoflop fit` of a scaling study: gaps by position, and projections against compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from isoflop.config.run import Span
from isoflop.fit import ScalingFit, gap_sentence
from isoflop.fit.spans.values import SizeLoss, SpanGap
from isoflop.notation import count
from isoflop.terminal.tables import CLOSING, Screen, capped, coefficient, said, table

MOST = 6
"""Lines of each kind in the answer."""
_MEANT = (
    "Intervals are {level}; they hold other seeds and other documents. Equivalent is said where "
    "two one-sided tests stand at the margin, better and worse after Holm's correction over the "
    "spans."
)


def scaling_answer(fit: ScalingFit, unit: str) -> Screen:
    """Return what holds of the whole window and its trailing part, on one screen."""
    means = [gap for gap in fit.gaps if gap.non_embedding is None]
    whole = [gap_sentence(fit, gap, unit) for gap in means if _span_of(gap) in _summaries(fit)]
    whole_window = fit.spans[-2:-1]
    losses = [one for one in fit.losses if (one.start, one.stop) in whole_window]
    return Screen(
        above=(
            *(said(line, "bold") for line in capped(whole, MOST)),
            *map(said, capped(list(_by_position(fit, means, unit)), MOST)),
            said(_MEANT.format(level=f"{fit.level:.0%}")),
            _projections(fit, whole_window),
            *map(said, capped(_refused(fit), MOST)),
        ),
        below=(said(CLOSING),),
        rows=len(losses),
        table=lambda rows: [
            _losses(f"Test loss of the whole window, {unit}", losses[:rows]),
            *([said(f"{len(losses) - rows} more losses: --details.")] * (rows < len(losses))),
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
            yield said(gap_sentence(fit, gap, unit))
    yield said(_MEANT.format(level=f"{fit.level:.0%}"))
    title = f"Test loss of the whole window and its trailing part, {unit}"
    yield _losses(title, [one for one in fit.losses if (one.start, one.stop) in _summaries(fit)])
    yield _projections(fit, fit.spans)
    yield from map(said, _refused(fit))


def _refused(fit: ScalingFit) -> list[str]:
    return sorted(
        {f"{one.variant}: no projection, {one.message}." for one in fit.projections if not one.a}
    )


def _losses(title: str, losses: Sequence[SizeLoss]) -> RenderableType:
    return table(
        title,
        {
            "variant": [one.variant for one in losses],
            "N": [count(one.non_embedding) for one in losses],
            "positions": [f"{one.start}-{one.stop - 1}" for one in losses],
            "loss": [f"{one.loss.value:.4f}" for one in losses],
            "interval": [one.loss.interval_words() for one in losses],
            "seeds": [str(len(one.seeds)) for one in losses],
            "documents": [str(one.documents) for one in losses],
            "windows": [str(one.windows) for one in losses],
        },
        names=["variant"],
    )


def _projections(fit: ScalingFit, spans: Sequence[Span]) -> RenderableType:
    found = [one for one in fit.projections if one.a and (one.start, one.stop) in spans]
    return table(
        "L = a C^b, C in PFLOP/s-days; least squares of final losses",
        {
            "variant": [one.variant for one in found],
            "positions": [f"{one.start}-{one.stop - 1}" for one in found],
            "compute": [one.axis for one in found],
            "a": [coefficient(one.a) for one in found],
            "b": [coefficient(one.b) for one in found],
        },
        names=["variant"],
        words=["compute"],
        long=["a", "b"],
    )


def _summaries(fit: ScalingFit) -> set[Span]:
    """Return the spans of the whole window and of its trailing part, which come last."""
    return set(fit.spans[-2:])


def _span_of(gap: SpanGap) -> Span:
    return (gap.start, gap.stop)
