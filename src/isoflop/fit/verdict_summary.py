"""Many verdicts in few sentences: one per variant, and one per reason for having none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isoflop.fit.fitted import FitResult
from isoflop.fit.verdict import BudgetVerdict, Outcome
from isoflop.fit.verdict_words import sentence

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
