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
        f"{name} is {_counts(by_variant[name])}. {sentence(by_variant[name][-1], result.loss_unit)}"
        for name in sorted(by_variant, key=last_gap)
    )


def incomparable_sentences(result: FitResult) -> tuple[str, ...]:
    """Return a line per reason for which variants and the baseline cannot be compared.

    Budgets at which neither has a run say nothing of the two, and are not counted.
    """
    groups: dict[_Why, list[BudgetVerdict]] = {}
    runs_of: dict[str, int] = {}
    for one in result.verdicts:
        why = _why(result, one)
        if why == ("no_run", "no_run"):
            continue
        runs_of[one.variant] = runs_of.get(one.variant, 0) + 1
        if one.difference is None:
            groups.setdefault(why, []).append(one)
    return tuple(_incomparable(why, found, runs_of) for why, found in groups.items())


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
    reason = verdict.reason or ""
    variant = reason.startswith(f"{verdict.variant}: ")
    base = reason.startswith(f"{verdict.baseline}: ") or f"; {verdict.baseline}: " in reason
    return (
        _missing(result, verdict.variant, verdict.budget_flops) if variant else None,
        _missing(result, verdict.baseline, verdict.budget_flops) if base else None,
    )


def _missing(result: FitResult, variant: str, budget_flops: float) -> str:
    here = [one for one in result.variants[variant].minima if one.budget_flops == budget_flops]
    if not here:
        return "no_run"
    status = next((one.status for one in here if one.estimator == "parabola"), "converged")
    return "no_noise" if status == "converged" else status


def _incomparable(why: _Why, verdicts: Sequence[BudgetVerdict], runs_of: Mapping[str, int]) -> str:
    base = verdicts[0].baseline
    names = list(dict.fromkeys(one.variant for one in verdicts))
    budgets = sorted({one.budget_flops for one in verdicts})
    many = len(names) > FEW
    who = f"{len(names)} variants" if many else _listed(names)
    if len(budgets) == 1:
        where = f"At {_flops(budgets[0])} FLOPs"
    elif len(names) == 1:
        where = f"At {len(budgets)} of {runs_of[names[0]]} budgets"
    else:
        total = sum(runs_of[name] for name in names)
        where = f"At {len(verdicts)} of {total} pairs of variant and budget"
    of_variant, of_base = (_MISSING.get(one or "", "no usable minimum") for one in why)
    if why[0] == why[1]:
        reasons = [f"{'both have' if len(names) == 1 else 'each has'} {of_variant}"]
    else:
        reasons = [
            f"{subject} {of}"
            for one, subject, of in (
                (why[0], f"{names[0]} has" if len(names) == 1 else "they have", of_variant),
                (why[1], f"{base} has", of_base),
            )
            if one is not None
        ]
    return f"{where} {who} cannot be compared with {base} ({', '.join(reasons)})."


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names)


def _flops(value: float) -> str:
    return f"{value:.3g}".replace("e+", "e")
