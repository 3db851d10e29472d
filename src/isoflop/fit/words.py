"""A verdict in words: who is better, by how much, and whether the estimators agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from isoflop.fit.compare.surfaces import SurfaceComparison, SurfaceGap
from isoflop.fit.compare.verdict import BudgetVerdict
from isoflop.fit.curves.minima import ESTIMATOR_NAMES
from isoflop.fit.intervals import Outcome
from isoflop.fit.results import FitResult
from isoflop.fit.surfaces.sample import FAR


def sentence(verdict: BudgetVerdict, unit: str | None = None) -> str:
    """Return a verdict in words, with its intervals; losses are in `unit` where that is known."""
    in_unit = f" {unit}" if unit else ""
    at = f"At {verdict.budget_flops:.3g} FLOPs".replace("e+", "e")
    name, base = verdict.variant, verdict.baseline
    if verdict.difference is None:
        return f"{at} {name} and {base} cannot be compared ({verdict.reason})."
    gap = verdict.difference.interval
    numbers = f"{gap.words('+.4f')}{in_unit}"
    needs = None
    if verdict.multiplier is not None:
        m = verdict.multiplier.interval
        needs = f"needs {m.value:.2f}x {m.interval_words('.2f')} the compute of {base}"
    match verdict.outcome:
        case "better" | "worse":
            side = "below" if verdict.outcome == "better" else "above"
            return f"{at} {name} {needs or f'is {side} {base}'}: a loss difference of {numbers}."
        case "equivalent":
            return (
                f"{at} {name} equals {base} to within {verdict.margin:g}{in_unit}: a loss "
                f"difference of {numbers}."
            )
        case _:
            hint = f"; it {needs}" if needs else ""
            if gap.side != 0:
                hint += "; the interval excludes 0, but not once corrected for all comparisons"
            return (
                f"{at} it is unresolved which of {name} and {base} is better: a loss difference "
                f"of {numbers}{hint}."
            )


def fraction_sentence(verdict: BudgetVerdict) -> str:
    """Return in words what share of the baseline's forward FLOPs gives its loss.

    Raises:
        ValueError: the verdict has no such share.
    """
    found = verdict.forward_fraction
    if found is None:
        raise ValueError(f"{verdict.variant} has no share of forward FLOPs to tell")
    return (
        f"{verdict.variant} has the minimum loss of {verdict.baseline} at "
        f"{found.words('.2f')} of its forward FLOPs per token."
    )


def estimates_sentence(verdict: BudgetVerdict) -> str:
    """Return in words what each estimator says of a difference, and whether they agree.

    Raises:
        ValueError: fewer than two estimators found both minima.
    """
    if len(verdict.estimates) < 2:
        raise ValueError(f"{verdict.variant} has not two estimates of its difference to compare")
    told = ", ".join(
        f"{value:+.4f} ({ESTIMATOR_NAMES[name]})" for name, value in verdict.estimates.items()
    )
    doubt = _doubt(verdict)
    return f"By estimator the difference is {told}{f': {doubt}' if doubt else ''}."


def doubt_sentence(verdict: BudgetVerdict) -> str | None:
    """Return how far the estimators of a difference are apart; None where its interval holds it."""
    doubt = _doubt(verdict)
    if doubt is None:
        return None
    values = verdict.estimates.values()
    return f"By {len(values)} estimators it is {min(values):+.4f} to {max(values):+.4f}: {doubt}."


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


FEW = 3
"""Budgets or variants that are named one by one; more are counted."""

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
_Why = tuple[str | None, str | None]
"""What variant and baseline lack, a key of `_MISSING` each."""


def summary_sentences(result: FitResult) -> tuple[str, ...]:
    """Return a line per variant: at how many budgets it is better, and the largest one's verdict.

    Variants come in the order of their difference at the largest budget each, the best first.
    Those that are compared nowhere are left to `incomparable_sentences`.
    """
    by_variant: dict[str, list[BudgetVerdict]] = {}
    for one in result.verdicts:
        if one.difference is not None:
            by_variant.setdefault(one.variant, []).append(one)

    def last_gap(name: str) -> float:
        found = by_variant[name][-1].difference
        assert found is not None
        return found.interval.value

    return tuple(
        _summary(by_variant[name], result.loss_unit) for name in sorted(by_variant, key=last_gap)
    )


def incomparable_sentences(result: FitResult) -> tuple[str, ...]:
    """Return a line per reason for which variants and the baseline cannot be compared.

    Budgets at which neither has a run say nothing of the two, and are not counted.
    """
    groups: dict[_Why, dict[str, list[float]]] = {}
    own: dict[str, int] = {}
    common: set[str] = set()
    for one in result.verdicts:
        why = _why(result, one)
        if why == ("no_run", "no_run"):
            continue
        own[one.variant] = own.get(one.variant, 0) + 1
        if "no_run" not in why:
            common.add(one.variant)
        if one.difference is None:
            at = groups.setdefault(why, {}).setdefault(one.variant, [])
            at.append(one.budget_flops)
    lines = []
    apart = [name for name in own if name not in common]
    if apart:
        lines.append(f"No budget has runs of {result.baseline} and of {_named(apart, ' or ')}.")
    for why, found in groups.items():
        told = {name: budgets for name, budgets in found.items() if name in common}
        if told:
            lines.append(_incomparable(why, told, own, str(result.baseline)))
    return tuple(lines)


def _summary(verdicts: Sequence[BudgetVerdict], unit: str | None) -> str:
    last = sentence(verdicts[-1], unit)
    return last if len(verdicts) == 1 else f"{verdicts[0].variant} is {_counts(verdicts)}. {last}"


def _counts(verdicts: Sequence[BudgetVerdict]) -> str:
    """Return `better than X at 2 of 28 budgets (1e13, 4e13), not told apart from it at 26`."""
    parts: list[str] = []
    for outcome, words in _COUNTED.items():
        found = [one.budget_flops for one in verdicts if one.outcome == outcome]
        if not found:
            continue
        of = "" if parts else f" of {len(verdicts)} budgets"
        named = f" ({', '.join(map(_flops, found))})" if len(found) <= FEW else ""
        against = words.format("it" if parts else verdicts[0].baseline)
        parts.append(f"{against} at {len(found)}{of}{named}")
    return ", ".join(parts)


def _why(result: FitResult, verdict: BudgetVerdict) -> _Why:
    """Return what keeps the two from being compared; a missing run before all else."""
    reason = verdict.reason or ""
    at_fault = (
        reason.startswith(f"{verdict.variant}: "),
        reason.startswith(f"{verdict.baseline}: ") or f"; {verdict.baseline}: " in reason,
    )
    variant, base = (
        _missing(result, name, verdict.budget_flops) if found else None
        for name, found in zip((verdict.variant, verdict.baseline), at_fault, strict=True)
    )
    if "no_run" in (variant, base) and variant != base:
        return ("no_run", None) if variant == "no_run" else (None, "no_run")
    return variant, base


def _missing(result: FitResult, variant: str, budget_flops: float) -> str:
    here = [one for one in result.variants[variant].minima if one.budget_flops == budget_flops]
    if not here:
        return "no_run"
    status = next((one.status for one in here if one.estimator == "parabola"), "converged")
    return "no_noise" if status == "converged" else status


def _incomparable(
    why: _Why, found: Mapping[str, Sequence[float]], own: Mapping[str, int], base: str
) -> str:
    """Return one reason for which variants are not compared at the budgets found of each."""
    names = list(found)
    budgets = {budget for here in found.values() for budget in here}
    if len(budgets) == 1:
        who = f"At {_flops(*budgets)} FLOPs {_named(names, ' and ')}"
    elif len(names) == 1:
        who = f"At {len(budgets)} of {own[names[0]]} budgets {names[0]}"
    else:
        counted = [f"{name} (at {len(found[name])} of {own[name]} budgets)" for name in names]
        who = _named(counted, " and ")
    of_variant, of_base = (_MISSING.get(one or "", "no usable minimum") for one in why)
    if why[0] == why[1]:
        reasons = [f"{'both have' if len(names) == 1 else 'each has'} {of_variant}"]
    else:
        one = f"{names[0]} has" if len(names) == 1 else "they have"
        told = ((why[0], f"{one} {of_variant}"), (why[1], f"{base} has {of_base}"))
        reasons = [text for missing, text in told if missing is not None]
    return f"{who} cannot be compared with {base} ({', '.join(reasons)})."


def _named(names: Sequence[str], last: str) -> str:
    """Return names as a list in words, or how many there are; names may have commas."""
    if len(names) > FEW:
        return f"{len(names)} variants"
    return last.join(["; ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _flops(value: float) -> str:
    return f"{value:.3g}".replace("e+", "e")


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
    in_unit = f" {unit}" if unit else ""
    where = f"{_number(gap.training_flops)} FLOPs"
    if gap.parameters is not None and gap.tokens is not None:
        where = f"{_number(gap.parameters)} parameters and {_number(gap.tokens)} tokens"
    told = (
        f"On their surfaces, at {where}, {_outcome_words(gap, name, base)}: a loss difference of "
        f"{gap.difference.words('+.4f')}{in_unit}"
    )
    if gap.multiplier is not None:
        told += f", {gap.multiplier.words('.2f')} times the compute of {base} for its loss"
    told += _others(comparison, gap)
    if gap.extrapolation > FAR:
        told += f"; {distance_words(gap.extrapolation)}"
    elif gap.place == "optimum" and comparison.low_flops is None:
        told += "; between the runs of one and of the other, which do not overlap"
    elif comparison.low_flops is not None and comparison.high_flops is not None:
        low, high = comparison.low_flops, comparison.high_flops
        told += f"; both have runs from {_number(low)} to {_number(high)} FLOPs"
    if comparison.reason is not None:
        told += f" ({comparison.reason})"
    return f"{told}."


def _outcome_words(gap: SurfaceGap, name: str, base: str) -> str:
    if gap.extrapolation > FAR:
        return "neither is called better so far beyond the runs"
    if gap.outcome == "unresolved":
        return f"it is unresolved which of {name} and {base} is better"
    return f"{name} is {gap.outcome} than {base}"


def _others(comparison: SurfaceComparison, gap: SurfaceGap) -> str:
    """Return in words what the other estimator says at the same place."""
    same = [
        other
        for other in comparison.gaps
        if other.estimator != gap.estimator
        and (other.place, other.training_flops) == (gap.place, gap.training_flops)
    ]
    return "".join(
        f" ({other.difference.value:+.4f} by {ESTIMATOR_NAMES[other.estimator]})" for other in same
    )


def _number(value: float) -> str:
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")
