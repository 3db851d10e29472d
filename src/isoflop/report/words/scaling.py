"""The result of a scaling study in sentences: at which positions a variant matches the baseline."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from isoflop.fit.spans.values import SpanGap
from isoflop.notation import count
from isoflop.report.scaling import ScalingAnalysis, Span
from isoflop.report.words.prose import listed, told

METHOD = (
    "Each line is L = a C^b by least squares on log loss over log compute, through the mean final "
    "test loss of each size; training curves are shown and not fitted. The intervals of a and b "
    "are Student's, from the scatter of the sizes about the line; what other documents would do to "
    "it is not in them."
)
"""How projections are made."""


def facts(analysis: ScalingAnalysis) -> list[tuple[str, str]]:
    """Return what stands at the top of the page, with its label."""
    study = analysis.study
    runs = [record for _, record in analysis.finished]
    sizes = sorted({record.parameters.non_embedding for record in runs})
    others = len(analysis.table) - len(runs) + len(analysis.evidence.missing)
    return [
        ("Variants", str(len(study.variants))),
        ("Sizes (N)", ", ".join(count(size) for size in sizes) or "none"),
        ("Seeds", str(len(study.seeds))),
        ("Window", f"{study.data.sequence_length:,} tokens"),
        ("Runs finished", str(len(runs))),
        ("Runs left out", str(others) if others else ""),
    ]


def headline(analysis: ScalingAnalysis) -> str:
    """Return the page's first sentences: the answer for each variant, by range of positions."""
    return " ".join(told("scaling", "headline", _CALLED, analysis))


def results(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return what the runs show of each variant: over the window, its end, and range by range."""
    return told("scaling", "results", _CALLED, analysis)


def doubts(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return what limits what may be said; empty where nothing does."""
    return told("scaling", "doubtful", _CALLED, analysis)


def refusals(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return which projections there are not, and why, each reason once."""
    spans: Mapping[tuple[str, str], set[Span]] = defaultdict(set)
    for one in analysis.fit.projections if analysis.fit else ():
        if one.a is None:
            spans[one.variant, one.message].add((one.start, one.stop))
    names = analysis.span_names
    return tuple(
        f"{variant} at "
        + (
            "every range"
            if len(found) == len(names)
            else listed(names[s] for s in names if s in found)
        )
        + f" ({message})"
        for (variant, message), found in spans.items()
    )


def _outcomes(analysis: ScalingAnalysis, variant: str) -> Mapping[str, list[Span]]:
    """Return the ranges by what is known of a variant there."""
    found: Mapping[str, list[Span]] = defaultdict(list)
    for span in analysis.ranges or analysis.spans:
        one = analysis.gap(variant, span)
        found[one.outcome if one and one.difference else "unresolved"].append(span)
    return found


def _within_margin(analysis: ScalingAnalysis, variant: str, side: str) -> list[Span]:
    """Return where a loss that counts as equal is known to be higher, or lower."""
    sign = 1 if side == "higher" else -1
    return [
        span
        for span in analysis.ranges
        if (one := analysis.gap(variant, span))
        and one.outcome == "equivalent"
        and one.difference
        and one.difference.value * sign > 0
        and one.p_different is not None
        and one.p_different <= 1 - analysis.level
    ]


def _sizes(analysis: ScalingAnalysis, variant: str, spans: Sequence[Span]) -> dict[Span, float]:
    """Return how large the gaps are that are known."""
    gaps = {span: analysis.gap(variant, span) for span in spans}
    return {span: abs(one.difference.value) for span, one in gaps.items() if one and one.difference}


def _extent(analysis: ScalingAnalysis, variant: str, spans: Sequence[Span]) -> str:
    sizes = _sizes(analysis, variant, spans).values()
    ends = dict.fromkeys((f"{min(sizes):.4f}", f"{max(sizes):.4f}"))
    return f"{' to '.join(ends)} {analysis.loss_unit}"


def _places(analysis: ScalingAnalysis, spans: Sequence[Span]) -> str:
    """Return where ranges are, neighbours joined: at positions 0-511 and 1024-2047."""
    if len(spans) == len(analysis.ranges or analysis.spans) > 1:
        return "at every range of positions"
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and joined[-1][1] == start:
            start, _ = joined.pop()
        joined.append((start, stop))
    return "at positions " + listed(f"{start}\N{EN DASH}{stop - 1}" for start, stop in joined)


def _largest_gap(analysis: ScalingAnalysis, variant: str) -> tuple[Span, SpanGap | None] | None:
    sizes = _sizes(analysis, variant, analysis.ranges)
    span = max(sizes, key=sizes.__getitem__, default=None)
    return None if span is None else (span, analysis.gap(variant, span))


def _seeds_of(analysis: ScalingAnalysis) -> list[int]:
    """Return the seeds of each model that has any."""
    models = ((name, record.parameters.non_embedding) for name, record in analysis.finished)
    return list(Counter(models).values())


_CALLED = {
    "extent": _extent,
    "largest_gap": _largest_gap,
    "outcomes": _outcomes,
    "places": _places,
    "refusals": refusals,
    "seeds_of": _seeds_of,
    "within_margin": _within_margin,
}
"""What the templates call by name."""
