"""`isoflop fit`: what was understood and what follows from it, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from isoflop.fit import (
    ESTIMATOR_NAMES,
    FitResult,
    RunTable,
    VariantFit,
    sentence,
    summary_sentences,
    surface_sentence,
)
from isoflop.fit.compare.verdict import BudgetVerdict
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.results import FittedSurface
from isoflop.fit.words import doubt_sentence, fraction_sentence, incomparable_sentences
from isoflop.notation import count, exponent
from isoflop.terminal.fit_details import (
    disagreement_words,
    fit_notes,
    fit_warnings,
    fitted_surfaces,
    holm_sentence,
    law_words,
)
from isoflop.terminal.fit_minima import (
    fitted_curves,
    minima_table,
    noiseless_sentence,
    refused_sentences,
)
from isoflop.terminal.tables import CLOSING, Screen, capped, coefficient, said
from isoflop.text import quoted

WHOLE = 6
"""Verdicts that are told one by one; of more there is a line per variant."""
MOST = 6
"""Lines per variant."""
WARNINGS = 3
NOTES = 4
REASONS = 3
NAMED = 3
"""Variants that a line names; of more it tells how many."""


COEFFICIENTS = ("E", "A", "alpha", "B", "beta")


def fit_answer(result: FitResult, runs: RunTable) -> Screen:
    """Return the answer, and under it the minima that it rests on as far as there is room."""
    warnings = [f"Warning: {one}" for one in fit_warnings(result, runs)]
    return Screen(
        above=(
            said(runs.understood or _extent(result)),
            *map(said, capped(warnings, WARNINGS)),
            *map(said, _assumed(result, runs)),
            *(_one_variant(result) if len(result.variants) == 1 else _several_variants(result)),
        ),
        below=tuple(map(said, [*_under_minima(result), CLOSING])),
        rows=len(fitted_curves(result)),
        table=lambda rows: minima_table(result, rows),
    )


def _under_minima(result: FitResult) -> Iterator[str]:
    noiseless = noiseless_sentence(result)
    if noiseless is not None:
        yield noiseless
    yield from refused_sentences(result)


def _assumed(result: FitResult, runs: RunTable) -> Iterator[str]:
    """Yield what was assumed or left out on the way."""
    notes = list(runs.notes)
    if runs.left_out and not runs.understood:
        first, *others = runs.left_out
        rows = sum(one.rows for one in runs.left_out)
        more = f"; {len(others)} more reasons" if others else ""
        notes.append(f"Left out: {rows} rows (row {first.first}: {first.reason}{more}).")
    notes += fit_notes(result)
    if notes:
        yield " ".join(capped(notes, NOTES))


def _extent(result: FitResult) -> str:
    budgets = {one.budget_flops for fit in result.variants.values() for one in fit.minima}
    runs = sum(fit.runs for fit in result.variants.values())
    variants = f" of {len(result.variants)} variants" if len(result.variants) > 1 else ""
    if len(budgets) == 1:
        at = f"one budget, {exponent(max(budgets))} FLOPs"
    else:
        low, high = exponent(min(budgets)), exponent(max(budgets))
        at = f"{len(budgets)} budgets, {low} to {high} FLOPs"
    return f"{runs} runs{variants} at {at}."


def _one_variant(result: FitResult) -> Iterator[Text]:
    """Yield how the optimum grows, where it lies, and the surface behind it."""
    (fit,) = result.variants.values()
    unit = f" {result.loss_unit}" if result.loss_unit else ""
    law = law_words(fit)
    if law is not None:
        yield said(f"{law[0].upper()}{law[1:]}.", "bold")
    found = [one for one in fit.minima if one.loss is not None]
    if found:
        largest = max(one.budget_flops for one in found)
        here = [one for one in found if one.budget_flops == largest]
        yield said(_optimum(_told_first(fit, here), unit), "bold")
    if law is None and not found:
        yield said("No budget has a minimum that may be told.", "bold")
    surface = _best_surface(fit)
    if surface is not None:
        yield said(_surface(surface, exponents=law is None))
    yield from map(said, _missing_surfaces(result))
    apart = disagreement_words(fit, result.loss_unit)
    if apart is not None:
        yield said(f"Estimators differ {apart}.")


def _several_variants(result: FitResult) -> Iterator[Text]:
    """Yield the verdicts, what cannot be compared, and how each optimum grows."""
    compared = [one for one in result.verdicts if one.difference is not None]
    on_surfaces = _on_surfaces(result, compared)
    if not compared and not on_surfaces:
        yield said("No two variants can be compared at one budget or on their surfaces.", "bold")
    elif 0 < len(compared) <= WHOLE:
        yield from _whole(compared, result.loss_unit)
    elif compared:
        yield from (said(one, "bold") for one in capped(summary_sentences(result), MOST))
    yield from (said(one, "bold") for one in capped(on_surfaces, MOST))
    if compared:
        yield said(holm_sentence(result))
    yield from map(said, capped(incomparable_sentences(result), REASONS))
    yield from map(said, _laws(result))
    yield from map(said, _missing_surfaces(result))
    apart = [
        (max(one.loss for one in fit.minimum_disagreements), name)
        for name, fit in result.variants.items()
        if fit.minimum_disagreements
    ]
    if apart:
        name = max(apart)[1]
        words = disagreement_words(result.variants[name], result.loss_unit)
        yield said(f"Estimators differ most for {name}: {words}.")


def _on_surfaces(result: FitResult, compared: Sequence[BudgetVerdict]) -> list[str]:
    """Return a sentence for each variant that shares no budget with the baseline."""
    at_budgets = {one.variant for one in compared}
    return [
        surface_sentence(one, result.loss_unit)
        for one in result.surface_comparisons
        if one.variant not in at_budgets and one.headline() is not None
    ]


def _whole(compared: Sequence[BudgetVerdict], unit: str | None) -> Iterator[Text]:
    last = {one.variant: one for one in compared}
    for verdict in compared:
        doubt = doubt_sentence(verdict)
        text = said(sentence(verdict, unit), "bold")
        yield text if doubt is None else text.append(f" {quoted(doubt)}", style="not bold")
        if verdict is last[verdict.variant] and verdict.forward_fraction is not None:
            yield said(fraction_sentence(verdict))


def _optimum(one: CurveMinimum, unit: str) -> str:
    assert one.parameters is not None
    assert one.loss is not None
    size, loss = count(one.parameters), f"{one.loss:.4f}"
    if one.interval is not None:
        held = one.interval
        size += f" [{count(held.parameters_low)}, {count(held.parameters_high)}]"
        loss += f" [{held.low:.4f}, {held.high:.4f}]"
    tokens = ""
    if one.tokens is not None:
        tokens = (
            f" and {count(one.tokens)} tokens ({one.tokens / one.parameters:.3g} per parameter)"
        )
    return (
        f"At {exponent(one.budget_flops)} FLOPs the optimum is {size} parameters{tokens}, with a "
        f"loss of {loss}{unit} ({ESTIMATOR_NAMES[one.estimator]})."
    )


def _told_first(fit: VariantFit, minima: Sequence[CurveMinimum]) -> CurveMinimum:
    """Return the minimum of a budget by a surface that fits its runs, which rests on them all."""
    good = [
        one.estimator
        for one in fitted_surfaces(fit)
        if one.status == "converged" and one.warning is None
    ]
    return next((one for one in minima if one.estimator in good), minima[0])


def _best_surface(fit: VariantFit) -> FittedSurface | None:
    return next((one for one in fitted_surfaces(fit) if one.status == "converged"), None)


def _surface(one: FittedSurface, *, exponents: bool) -> str:
    """Return a surface in a line, with how its optimum grows where no law tells it."""
    of_optimum = ("a", "b") if exponents else ()
    told = ", ".join(
        f"{name} {coefficient(getattr(one, name))}" for name in (*COEFFICIENTS, *of_optimum)
    )
    off = "" if one.rms_residual is None else f", off by {one.rms_residual:.2g} r.m.s."
    if one.largest_miss is not None:
        off += f" and by {abs(one.largest_miss.fitted - one.largest_miss.measured):.2g} at most"
    name = ESTIMATOR_NAMES[one.estimator]
    optimum = ", N ~ C^a, D ~ C^b" if exponents else ""
    return f"L = E + A/N^alpha + B/D^beta{optimum} ({name}, {one.points} runs{off}): {told}."


def _missing_surfaces(result: FitResult) -> Iterator[str]:
    """Yield a line per reason for which variants have no surface."""
    reasons: dict[str, list[str]] = {}
    for name, fit in result.variants.items():
        fits = fitted_surfaces(fit)
        if fits and _best_surface(fit) is None:
            reasons.setdefault(fits[0].message, []).append(name)
    lines = []
    for message, names in reasons.items():
        of = "" if len(result.variants) == 1 else f" of {_listed(names)}"
        lines.append(f"No surface{of}: {message}.")
    yield from capped(lines, REASONS)


def _laws(result: FitResult) -> Iterator[str]:
    """Yield one line with the exponent of each variant, by the first estimator that has one."""
    told = []
    for name, fit in result.variants.items():
        law = next((one for one in fit.laws if one.a is not None), None)
        if law is not None and law.a is not None:
            told.append(f"{name} {law.a.words('.3f')} ({ESTIMATOR_NAMES[law.estimator]})")
    if told:
        more = f"; and {len(told) - MOST} more" if len(told) > MOST else ""
        yield f"Optimal N ~ C^a with a = {'; '.join(told[:MOST])}{more}."


def _listed(names: Sequence[str]) -> str:
    if len(names) > NAMED:
        return f"{len(names)} variants"
    return "; ".join(names)
