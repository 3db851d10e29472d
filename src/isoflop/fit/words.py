"""What fits find, in words: verdicts, their summary, comparisons on surfaces, gaps of spans."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from isoflop.fit.compare.surfaces import SurfaceComparison
from isoflop.fit.compare.verdict import BudgetVerdict
from isoflop.fit.curves.minima import ESTIMATOR_NAMES
from isoflop.fit.intervals import Outcome
from isoflop.fit.results import FitResult
from isoflop.fit.spans.values import ScalingFit, SpanGap
from isoflop.fit.surfaces.sample import FAR
from isoflop.notation import exponent

FEW = 3
"""Budgets that are named one by one; more are counted."""

_COUNTED: Mapping[Outcome, str] = {
    "better": "better than {}",
    "worse": "worse than {}",
    "equivalent": "equal to {}",
    "unresolved": "not told apart from {}",
}
_MISSING: Mapping[str, str] = {
    "no_run": "no run there",
    "too_few": "fewer than 3 sizes there",
    "edge": "the lowest loss at an end of the sizes there",
    "concave": "a parabola that opens downwards",
    "no_noise": "one seed near the minimum, so that the noise is not known",
}


def in_unit(unit: str | None) -> str:
    """Return what stands behind a loss: its unit, where that is known."""
    return f" {unit}" if unit else ""


def sentence(verdict: BudgetVerdict, unit: str | None = None) -> str:
    """Return a verdict in words, with its intervals; losses are in `unit` where that is known."""
    at = f"At {exponent(verdict.budget_flops)} FLOPs"
    name, base = verdict.variant, verdict.baseline
    if verdict.difference is None:
        return f"{at} {name} and {base} cannot be compared ({verdict.reason})."
    gap = verdict.difference.interval
    needs, hint, sided = "", "", False
    if verdict.multiplier is not None:
        m = verdict.multiplier.interval
        sided = not m.ends[0] <= 1 <= m.ends[1]
        needs = f"needs {m.value:.2f}x {m.interval_words('.2f')} the compute of {base}"
    match verdict.outcome:
        case "better" | "worse":
            side = "below" if verdict.outcome == "better" else "above"
            claim = f"{name} {needs if sided else f'is {side} {base}'}"
            hint = f"; it {needs}" if needs and not sided else ""
        case "equivalent":
            claim = f"{name} equals {base} to within {verdict.margin:g}{in_unit(unit)}"
        case _:
            claim = f"it is unresolved which of {name} and {base} is better"
            hint = f"; it {needs}" if needs else ""
            if gap.side != 0:
                hint += "; the interval excludes 0, but not once corrected for all comparisons"
    looks = "" if gap.looks_from is None else f", at every look from {gap.looks_from} seeds on"
    return f"{at} {claim}: a loss difference of {gap.words('+.4f')}{in_unit(unit)}{looks}{hint}."


def fraction_sentence(verdict: BudgetVerdict) -> str | None:
    """Return in words what share of the baseline's forward FLOPs gives its loss, if one does."""
    if verdict.forward_fraction is None:
        return None
    share = verdict.forward_fraction.words(".2f")
    return (
        f"{verdict.variant} has the minimum loss of {verdict.baseline} at {share} of its forward "
        "FLOPs per token."
    )


def estimates_sentence(verdict: BudgetVerdict) -> str | None:
    """Return in words what each estimator says of a difference, and whether they agree.

    None where fewer than two estimators found both minima.
    """
    if len(verdict.estimates) < 2:
        return None
    told = ", ".join(
        f"{value:+.4f} ({ESTIMATOR_NAMES[name]})" for name, value in verdict.estimates.items()
    )
    doubt = _doubt(verdict)
    return f"By estimator the difference is {told}{f': {doubt}' if doubt else ''}."


def doubt_sentence(verdict: BudgetVerdict) -> str | None:
    """Return how far the estimators of a difference are apart; None where its interval holds it."""
    values, doubt = verdict.estimates.values(), _doubt(verdict)
    return doubt and (
        f"By {len(values)} estimators it is {min(values):+.4f} to {max(values):+.4f}: {doubt}."
    )


def _doubt(verdict: BudgetVerdict) -> str | None:
    values = verdict.estimates.values()
    if len(values) < 2:
        return None
    if min(values) <= 0 <= max(values):
        return "estimators do not agree on its sign"
    if verdict.difference is not None:
        low, high = verdict.difference.interval.ends
        if min(values) < low or max(values) > high:
            return "further apart than that interval tells"
    return None


def summary_sentences(result: FitResult) -> tuple[str, ...]:
    """Return a line per variant: at how many budgets it is better, and the largest one's verdict.

    Variants come in the order of their difference at the largest budget each, the best first.
    Those that are compared nowhere are left to `incomparable_sentences`.
    """
    by_variant: dict[str, list[BudgetVerdict]] = {}
    for one in result.verdicts:
        if one.difference is not None:
            by_variant.setdefault(one.variant, []).append(one)
    lines = []
    for name, found in by_variant.items():
        last = found[-1]
        counts = f"{name} is {_counts(found)}. " if len(found) > 1 else ""
        gap = last.difference.interval.value if last.difference else 0.0
        lines.append((gap, counts + sentence(last, result.loss_unit)))
    return tuple(line for _, line in sorted(lines, key=lambda one: one[0]))


def _counts(verdicts: Sequence[BudgetVerdict]) -> str:
    """Return `better than X at 2 of 28 budgets (1e13, 4e13), not told apart from it at 26`."""
    parts: list[str] = []
    for outcome, words in _COUNTED.items():
        found = [exponent(one.budget_flops) for one in verdicts if one.outcome == outcome]
        if found:
            of = "" if parts else f" of {len(verdicts)} budgets"
            named = f" ({', '.join(found)})" if len(found) <= FEW else ""
            against = words.format("it" if parts else verdicts[0].baseline)
            parts.append(f"{against} at {len(found)}{of}{named}")
    return ", ".join(parts)


def incomparable_sentences(result: FitResult) -> tuple[str, ...]:
    """Return a line per variant and reason for which it cannot be compared with the baseline.

    Budgets at which neither has a run say nothing of the two, and are not counted.
    """
    base = str(result.baseline)
    status = {
        (one.variant, one.budget_flops): one.status
        for one in reversed(result.minima)
        if one.estimator == "parabola"
    }
    shared: Counter[str] = Counter()
    reasons: dict[tuple[str, str, str], list[float]] = {}
    for one in result.verdicts:
        own, theirs = (
            _lacks(status.get((name, one.budget_flops), "no_run"), f"{name}: one", one.reason)
            for name in (one.variant, base)
        )
        if own == theirs == "no_run":
            continue
        shared[one.variant] += 1
        if "no_run" in (own, theirs):
            own, theirs = (what if what == "no_run" else "" for what in (own, theirs))
        if one.difference is None:
            reasons.setdefault((one.variant, own, theirs), []).append(one.budget_flops)
    lines = []
    for (name, own, theirs), budgets in reasons.items():
        at = f"{len(budgets)} of {shared[name]} budgets"
        if len(budgets) == 1:
            at = f"{exponent(budgets[0])} FLOPs"
        sides = [(f"{name} has", own), (f"{base} has", theirs)]
        if own == theirs:
            sides = [("both have", own)]
        words = ", ".join(
            f"{has} {_MISSING.get(what, 'no usable minimum')}" for has, what in sides if what
        )
        lines.append(f"At {at} {name} cannot be compared with {base} ({words}).")
    return tuple(lines)


def _lacks(status: str, seed: str, reason: str | None) -> str:
    """Return what keeps a curve from being compared, a key of `_MISSING`, or nothing."""
    if status != "converged":
        return status
    return "no_noise" if seed in (reason or "") else ""


def distance_words(extrapolation: float | None) -> str | None:
    """Return in words how far beyond the runs a prediction is; None up to `FAR` times."""
    if extrapolation is None or not extrapolation > FAR:
        return None
    times = f"{extrapolation:,.0f} times"
    if extrapolation >= 1e4:
        times = f"{math.log10(extrapolation):.0f} orders of magnitude"
    return f"{times} beyond the runs, where the intervals take the law to hold"


def surface_sentence(comparison: SurfaceComparison, unit: str | None = None) -> str:
    """Return a comparison on surfaces in words; losses are in `unit` where that is known."""
    name, base = comparison.variant, comparison.baseline
    gap = comparison.headline("stated") or comparison.headline()
    if gap is None:
        why = comparison.reason or "a surface has no optimum"
        return f"{name} and {base} cannot be compared on their surfaces ({why})."
    where = f"{exponent(gap.training_flops)} FLOPs"
    if gap.parameters is not None and gap.tokens is not None:
        where = f"{exponent(gap.parameters)} parameters and {exponent(gap.tokens)} tokens"
    outcome = f"{name} is {gap.outcome} than {base}"
    if gap.extrapolation > FAR:
        outcome = "neither is called better so far beyond the runs"
    elif gap.outcome == "unresolved":
        outcome = f"it is unresolved which of {name} and {base} is better"
    told = (
        f"On their surfaces, at {where}, {outcome}: a loss difference of "
        f"{gap.difference.words('+.4f')}{in_unit(unit)}"
    )
    if gap.multiplier is not None:
        told += f", {gap.multiplier.words('.2f')} times the compute of {base} for its loss"
    for other in comparison.gaps:
        same = (other.place, other.training_flops) == (gap.place, gap.training_flops)
        if same and other.estimator != gap.estimator:
            told += f" ({other.difference.value:+.4f} by {ESTIMATOR_NAMES[other.estimator]})"
    low, high = comparison.low_flops, comparison.high_flops
    if gap.extrapolation > FAR:
        told += f"; {distance_words(gap.extrapolation)}"
    elif low is not None and high is not None:
        told += f"; both have runs from {exponent(low)} to {exponent(high)} FLOPs"
    elif gap.place == "optimum":
        told += "; between the runs of one and of the other, which do not overlap"
    return f"{told}{f' ({comparison.reason})' if comparison.reason else ''}."


def gap_sentence(fit: ScalingFit, gap: SpanGap, unit: str | None = None) -> str:
    """Return a gap in words, with its interval; losses are in `unit` where that is known."""
    at = f"Positions {gap.start}-{gap.stop - 1}"
    if gap.non_embedding is not None:
        at += f" at N = {gap.non_embedding:,}"
    name, base = gap.variant, gap.baseline
    if gap.difference is None:
        return f"{at}: {name} and {base} cannot be compared ({gap.reason})."
    notes = f"; {gap.reason}" if gap.reason else ""
    match gap.outcome:
        case "equivalent":
            claim = f"{name} is equivalent to {base} within {fit.margin:g}{in_unit(unit)}"
        case "better" | "worse":
            side = "lower" if gap.outcome == "better" else "higher"
            claim = f"{name} has a {side} loss than {base}"
        case _:
            claim = f"it is unresolved which of {name} and {base} is better"
            if gap.p_different is not None and gap.difference.side != 0:
                notes += "; the interval excludes 0, but not once corrected for the other spans"
    return (
        f"{at}: {claim} (difference {gap.difference.words('+.4f')}{in_unit(unit)}, "
        f"{gap.pairs} {'pair' if gap.pairs == 1 else 'pairs'} of runs{notes})."
    )
