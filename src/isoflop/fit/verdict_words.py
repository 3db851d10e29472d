"""A verdict in words: who is better, by how much, and whether the estimators agree."""

from __future__ import annotations

from isoflop.fit.minimum import ESTIMATOR_NAMES
from isoflop.fit.verdict import BudgetVerdict


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
