"""`isoflop fit` of a scaling study: gaps by position, and projections against compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from isoflop.config.run import Span
from isoflop.fit import ScalingFit, gap_sentence
from isoflop.fit.spans.values import SizeLoss
from isoflop.notation import count
from isoflop.terminal.tables import CLOSING, Screen, capped, coefficient, said, table

MOST = 6
"""Lines of each kind in the answer."""


def scaling_answer(fit: ScalingFit, unit: str) -> Screen:
    """Return what holds of the whole window and its trailing part, on one screen."""
    # The whole window and its trailing part come last.
    window, trailing = fit.spans[-2:]
    ranges = [one for one in fit.spans if one not in (window, trailing)]
    losses = [one for one in fit.losses if (one.start, one.stop) == window]
    return Screen(
        above=(
            *(said(one, "bold") for one in capped(_gaps(fit, [window, trailing], unit), MOST)),
            *map(said, capped(list(_by_position(fit, ranges, unit)), MOST)),
            said(_meant(fit)),
            _projections(fit, [window]),
            *map(said, capped(_refused(fit), MOST)),
        ),
        below=(said(CLOSING),),
        rows=len(losses),
        table=lambda rows: [
            _losses(f"Test loss of the whole window, {unit}", losses[:rows]),
            *([said(f"{len(losses) - rows} more losses: --details.")] * (rows < len(losses))),
        ],
    )


def scaling_tables(fit: ScalingFit, unit: str) -> Iterator[RenderableType]:
    """Yield a sentence per variant and span, then losses, projections and how they were made."""
    yield from map(said, _gaps(fit, fit.spans, unit))
    yield said(_meant(fit))
    title = f"Test loss of the whole window and its trailing part, {unit}"
    yield _losses(title, [one for one in fit.losses if (one.start, one.stop) in fit.spans[-2:]])
    yield _projections(fit, fit.spans)
    yield from map(said, _refused(fit))


def _gaps(fit: ScalingFit, spans: Sequence[Span], unit: str) -> list[str]:
    """Return a sentence for each gap of the mean over sizes in spans."""
    return [
        gap_sentence(fit, gap, unit)
        for gap in fit.gaps
        if gap.non_embedding is None and (gap.start, gap.stop) in spans
    ]


def _by_position(fit: ScalingFit, ranges: Sequence[Span], unit: str) -> Iterator[str]:
    """Yield a line per variant with how its gap to the baseline runs over the positions."""
    gaps = [g for g in fit.gaps if g.non_embedding is None and (g.start, g.stop) in ranges]
    for name in dict.fromkeys(gap.variant for gap in gaps):
        own = [gap for gap in gaps if gap.variant == name]
        values = [gap.difference.value for gap in own if gap.difference is not None]
        if not values:
            continue
        found = [gap.outcome for gap in own]
        outcomes = ", ".join(f"{one} in {found.count(one)}" for one in dict.fromkeys(found))
        yield (
            f"{name} against {fit.baseline}, of {len(own)} ranges of positions: {outcomes}; "
            f"differences {min(values):+.4f} to {max(values):+.4f} {unit}."
        )


def _meant(fit: ScalingFit) -> str:
    seeds = "other seeds and " if any(one.seed_error is not None for one in fit.gaps) else ""
    return (
        f"Intervals are {100 * fit.level:g}%; they hold {seeds}other documents. Equivalent is said "
        "where two one-sided tests stand at the margin, better and worse after Holm's correction "
        "over the spans."
    )


def _refused(fit: ScalingFit) -> list[str]:
    return sorted(
        {f"{one.variant}: no projection, {one.message}." for one in fit.projections if not one.a}
    )


def _losses(title: str, losses: Sequence[SizeLoss]) -> RenderableType:
    return table(
        title,
        losses,
        {
            "variant": lambda one: one.variant,
            "N": lambda one: count(one.non_embedding),
            "positions": lambda one: f"{one.start}-{one.stop - 1}",
            "loss": lambda one: f"{one.loss.value:.4f}",
            "interval": lambda one: one.loss.interval_words(),
            "seeds": lambda one: str(len(one.seeds)),
            "documents": lambda one: str(one.documents),
            "windows": lambda one: str(one.windows),
        },
        names=["variant"],
    )


def _projections(fit: ScalingFit, spans: Sequence[Span]) -> RenderableType:
    found = [one for one in fit.projections if one.a and (one.start, one.stop) in spans]
    return table(
        "L = a C^b, C in PFLOP/s-days; least squares of final losses",
        found,
        {
            "variant": lambda one: one.variant,
            "positions": lambda one: f"{one.start}-{one.stop - 1}",
            "compute": lambda one: one.axis,
            "a": lambda one: coefficient(one.a),
            "b": lambda one: coefficient(one.b),
        },
        names=["variant"],
        words=["compute"],
        long=["a", "b"],
    )
