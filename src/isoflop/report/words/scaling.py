"""The result of a scaling study in sentences: at which positions a variant matches the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from isoflop.fit.intervals import Outcome
from isoflop.fit.spans.values import SpanGap
from isoflop.notation import count, percent
from isoflop.report.scaling import ScalingAnalysis, Span

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
    runs = [record for _, record in analysis.finished()]
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
    if analysis.fit is None:
        return f"No run of {analysis.baseline} has finished, so there is nothing to compare."
    if not analysis.challengers:
        return f"{analysis.baseline} alone was trained, so there is nothing to compare it with."
    answers = [_answer(analysis, name) for name in analysis.challengers]
    if len(answers) == 1:
        answers += _within_margin(analysis, *analysis.challengers)
    return " ".join(answers)


def results(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return what the runs show of each variant: over the window, its end, and range by range."""
    sentences = []
    for variant in analysis.challengers:
        for span, name in analysis.span_names.items():
            one = analysis.gap(variant, span)
            if one is not None and span not in analysis.ranges:
                sentences.append(_sentence(analysis, one, name))
        extreme = _largest(analysis, variant)
        if extreme is not None:
            span, one = extreme
            sentences.append(
                f"Of the ranges, the largest gap of {variant} is at {analysis.span_names[span]}: "
                f"{_numbers(analysis, one)}."
            )
        if len(analysis.challengers) > 1:
            sentences += _within_margin(analysis, variant)
        sentences += _unknown(analysis, variant)
    return tuple(sentences)


def doubts(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return what limits what may be said; empty where nothing does."""
    if analysis.fit is None:
        return ()
    found = []
    if analysis.challengers and analysis.study.equivalence_margin is None:
        found.append(
            "No margin was declared before training (equivalence_margin), so nothing can be called "
            "equivalent."
        )
    seeds = Counter(
        (variant, record.parameters.non_embedding) for variant, record in analysis.finished()
    )
    if seeds and max(seeds.values()) == 1:
        found.append(
            "One seed per size: the intervals hold what other documents would give, and not what "
            "other seeds would."
        )
    elif seeds and min(seeds.values()) == 1:
        single = sum(number == 1 for number in seeds.values())
        found.append(f"{single} of {len(seeds)} models have one seed only.")
    refused = refusals(analysis)
    if refused:
        found.append("Projections refused: " + "; ".join(refused) + ".")
    at_edge = [one.variant for one in analysis.rates if not one.interior]
    if at_edge:
        found.append(
            f"The best learning rate tried of {listed(at_edge)} is not between two worse ones at "
            "the size where it was checked."
        )
    return tuple(found)


def refusals(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return which projections there are not, and why, each reason once."""
    spans: dict[tuple[str, str], set[Span]] = {}
    for one in analysis.fit.projections if analysis.fit else ():
        if one.a is None:
            spans.setdefault((one.variant, one.message), set()).add((one.start, one.stop))
    return tuple(
        f"{variant} at "
        + (
            "every range"
            if len(found) == len(analysis.spans)
            else listed([name for span, name in analysis.span_names.items() if span in found])
        )
        + f" ({message})"
        for (variant, message), found in spans.items()
    )


def _answer(analysis: ScalingAnalysis, variant: str) -> str:
    """Return in a sentence at which ranges a variant matches the baseline, is worse, or better."""
    base, margin = analysis.baseline, analysis.study.equivalence_margin
    spans = analysis.ranges or analysis.spans
    groups: dict[Outcome, list[Span]] = {}
    for span in spans:
        one = analysis.gap(variant, span)
        known = one is not None and one.difference is not None
        groups.setdefault(one.outcome if one and known else "unresolved", []).append(span)
    within = f" to within {margin:g} {analysis.loss_unit}" if margin else ""
    clauses: list[str] = []
    if "equivalent" in groups:
        clauses.append(f"matches {base}{within} {_places(analysis, groups['equivalent'])}")
    for outcome in ("worse", "better"):
        if outcome in groups:
            than = "" if clauses else f" than {base}"
            at = groups[outcome]
            clauses.append(
                f"is {outcome}{than} {_places(analysis, at)}, by {_extent(analysis, variant, at)}"
            )
    if not clauses:
        return (
            f"Whether {variant} matches {base} is unresolved at every range of positions: the "
            "intervals leave it open."
        )
    text = f"{variant} {', and '.join(clauses)}"
    if "unresolved" in groups:
        text += f"; it is unresolved {_places(analysis, groups['unresolved'])}"
    return f"{text}."


def _within_margin(analysis: ScalingAnalysis, variant: str) -> Iterator[str]:
    """Yield where a loss that counts as equal is known to be higher, and where lower."""
    gaps = [(span, analysis.gap(variant, span)) for span in analysis.ranges]
    for side, sign in (("higher", 1), ("lower", -1)):
        at = [
            span
            for span, one in gaps
            if one is not None
            and one.outcome == "equivalent"
            and one.difference is not None
            and one.difference.value * sign > 0
            and one.p_different is not None
            and one.p_different <= 1 - analysis.level
        ]
        if at:
            yield (
                f"Within that margin the loss of {variant} is {side} {_places(analysis, at)}, "
                f"by {_extent(analysis, variant, at)}."
            )


def _extent(analysis: ScalingAnalysis, variant: str, spans: Sequence[Span]) -> str:
    values = sorted(
        abs(one.difference.value)
        for span in spans
        if (one := analysis.gap(variant, span)) is not None and one.difference is not None
    )
    low, high = f"{values[0]:.4f}", f"{values[-1]:.4f}"
    return f"{low if low == high else f'{low} to {high}'} {analysis.loss_unit}"


def _places(analysis: ScalingAnalysis, spans: Sequence[Span]) -> str:
    """Return where ranges are, neighbours joined: at positions 0-511 and 1024-2047."""
    every = analysis.ranges or analysis.spans
    if len(spans) == len(every) > 1:
        return "at every range of positions"
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return "at positions " + listed([f"{start}\N{EN DASH}{stop - 1}" for start, stop in joined])


def _sentence(analysis: ScalingAnalysis, one: SpanGap, name: str) -> str:
    at = "Over all positions" if name == "all positions" else f"Over the {name} positions"
    gap, base = _numbers(analysis, one), one.baseline
    match one.outcome:
        case "equivalent":
            return (
                f"{at} {one.variant} equals {base} to within "
                f"{analysis.study.equivalence_margin:g}: a gap of {gap}."
            )
        case "worse" | "better":
            return f"{at} {one.variant} is {one.outcome} than {base}: a gap of {gap}."
        case _:
            return f"{at} it is unresolved whether {one.variant} matches {base}: a gap of {gap}."


def _numbers(analysis: ScalingAnalysis, one: SpanGap) -> str:
    if one.difference is None:
        return f"unknown size ({one.reason})"
    gap = one.difference
    return (
        f"{gap.words('+.4f')} {analysis.loss_unit} ({percent(analysis.level, 0)}, mean over sizes)"
    )


def _largest(analysis: ScalingAnalysis, variant: str) -> tuple[Span, SpanGap] | None:
    found = [
        (abs(one.difference.value), span, one)
        for span in analysis.ranges
        if (one := analysis.gap(variant, span)) is not None and one.difference is not None
    ]
    if not found:
        return None
    _, span, one = max(found, key=lambda each: each[0])
    return span, one


def _unknown(analysis: ScalingAnalysis, variant: str) -> list[str]:
    """Return the ranges whose gap could not be estimated, each with its reason."""
    return [
        f"There is no gap of {variant} at {analysis.span_names[span]}: "
        + (one.reason or "no reason was recorded" if one else "no runs to compare")
        + "."
        for span in analysis.ranges
        if (one := analysis.gap(variant, span)) is None or one.difference is None
    ]


def listed(parts: Sequence[str]) -> str:
    """Return several things in words: a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
