"""`isoflop fit`: what was understood and what follows from it, on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from rich.console import RenderableType
from rich.text import Text

from isoflop.estimate import NONE
from isoflop.fit import (
    ESTIMATOR_NAMES,
    FitResult,
    RunTable,
    sentence,
    summary_sentences,
    surface_sentence,
)
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.results import FittedSurface
from isoflop.fit.words import doubt_sentence, fraction_sentence, in_unit, incomparable_sentences
from isoflop.notation import count, exponent
from isoflop.terminal.fit_details import (
    disagreement_words,
    fit_notes,
    fit_warnings,
    holm_sentence,
    law_words,
)
from isoflop.terminal.tables import CLOSING, Screen, capped, coefficient, said, table
from isoflop.text import quoted

MOST = 6
"""Lines per variant, and verdicts that are told one by one; of more there is a line per variant."""
WARNINGS = 3
NOTES = 4
REASONS = 3
NAMED = 3
"""Variants or curves that a line names; of more it tells how many."""


def fit_answer(result: FitResult, runs: RunTable) -> Screen:
    """Return the answer, and under it the minima that it rests on as far as there is room."""
    warnings = [f"Warning: {one}" for one in fit_warnings(result, runs)]
    notes = list(runs.notes)
    if runs.left_out and not runs.understood:
        first, *others = runs.left_out
        rows = sum(one.rows for one in runs.left_out)
        more = f"; {len(others)} more reasons" if others else ""
        notes.append(f"Left out: {rows} rows (row {first.first}: {first.reason}{more}).")
    assumed = " ".join(capped([*notes, *fit_notes(result)], NOTES))
    answer = _one_variant if len(result.variants) == 1 else _several_variants
    return Screen(
        above=(
            said(runs.understood or _extent(result)),
            *map(said, capped(warnings, WARNINGS)),
            *([said(assumed)] if assumed else []),
            *answer(result),
        ),
        below=tuple(map(said, [*under_minima(result), CLOSING])),
        rows=len(fitted_curves(result)),
        table=lambda rows: minima_table(result, rows),
    )


def _extent(result: FitResult) -> str:
    budgets = {one.budget_flops for one in result.minima}
    runs = sum(fit.runs for fit in result.variants.values())
    variants = f" of {len(result.variants)} variants" if len(result.variants) > 1 else ""
    low, high = exponent(min(budgets)), exponent(max(budgets))
    span = f"{len(budgets)} budgets, {low} to" if len(budgets) > 1 else "one budget,"
    return f"{runs} runs{variants} at {span} {high} FLOPs."


def _one_variant(result: FitResult) -> Iterator[Text]:
    """Yield how the optimum grows, where it lies, and the surface behind it."""
    (fit,) = result.variants.values()
    law = law_words(fit)
    if law:
        yield said(f"{law[0].upper()}{law[1:]}.", "bold")
    found = [one for one in fit.minima if one.loss is not None]
    if found:
        largest = max(one.budget_flops for one in found)
        here = [one for one in found if one.budget_flops == largest]
        # By a surface that fits its runs, which rests on them all, or the first there is.
        ways = [s.estimator for s in fit.surfaces if s.status == "converged" and not s.warning]
        first = next((one for one in here if one.estimator in ways), here[0])
        yield said(_optimum(first, in_unit(result.loss_unit)), "bold")
    elif not law:
        yield said("No budget has a minimum that may be told.", "bold")
    surface = next((one for one in fit.surfaces if one.status == "converged"), None)
    if surface is not None:
        yield said(_surface(surface, exponents=not law))
    yield from map(said, _missing_surfaces(result))
    if apart := disagreement_words(fit, result.loss_unit):
        yield said(f"Estimators differ {apart}.")


def _several_variants(result: FitResult) -> Iterator[Text]:
    """Yield the verdicts, what cannot be compared, and how each optimum grows."""
    compared = [one for one in result.verdicts if one.difference is not None]
    at_budgets = {one.variant: one for one in compared}
    # Variants that share no budget with the baseline.
    on_surfaces = [
        surface_sentence(one, result.loss_unit)
        for one in result.surface_comparisons
        if one.variant not in at_budgets and one.headline() is not None
    ]
    if not compared and not on_surfaces:
        yield said("No two variants can be compared at one budget or on their surfaces.", "bold")
    elif len(compared) > MOST:
        yield from (said(one, "bold") for one in capped(summary_sentences(result), MOST))
    else:
        for verdict in compared:
            text, doubt = said(sentence(verdict, result.loss_unit), "bold"), doubt_sentence(verdict)
            yield text if doubt is None else text.append(f" {quoted(doubt)}", style="not bold")
            fraction = fraction_sentence(verdict)
            if fraction and verdict is at_budgets[verdict.variant]:
                yield said(fraction)
    yield from (said(one, "bold") for one in capped(on_surfaces, MOST))
    if compared:
        yield said(holm_sentence(result))
    yield from map(said, capped(incomparable_sentences(result), REASONS))
    laws = [
        f"{name} {law.a.words('.3f')} ({ESTIMATOR_NAMES[law.estimator]})"
        for name, fit in result.variants.items()
        for law in [law for law in fit.laws if law.a is not None][:1]
        if law.a is not None
    ]
    if laws:
        more = f"; and {len(laws) - MOST} more" if len(laws) > MOST else ""
        yield said(f"Optimal N ~ C^a with a = {'; '.join(laws[:MOST])}{more}.")
    yield from map(said, _missing_surfaces(result))
    apart = {
        name: max(one.loss for one in fit.minimum_disagreements)
        for name, fit in result.variants.items()
        if fit.minimum_disagreements
    }
    if apart:
        name = max(apart, key=lambda one: (apart[one], one))
        words = disagreement_words(result.variants[name], result.loss_unit)
        yield said(f"Estimators differ most for {name}: {words}.")


def _optimum(one: CurveMinimum, unit: str) -> str:
    size, loss = one.estimates()
    tokens = ""
    if one.tokens is not None:
        per = one.tokens / size.value
        tokens = f" and {count(one.tokens)} tokens ({per:.3g} per parameter)"
    return (
        f"At {exponent(one.budget_flops)} FLOPs the optimum is {size.words(count)} parameters"
        f"{tokens}, with a loss of {loss.words()}{unit} ({ESTIMATOR_NAMES[one.estimator]})."
    )


def _surface(one: FittedSurface, *, exponents: bool) -> str:
    """Return a surface in a line, with how its optimum grows where no law tells it."""
    names = ("E", "A", "alpha", "B", "beta", *(("a", "b") if exponents else ()))
    told = ", ".join(f"{name} {coefficient(getattr(one, name))}" for name in names)
    off = "" if one.rms_residual is None else f", off by {one.rms_residual:.2g} r.m.s."
    if one.largest_miss is not None:
        off += f" and by {abs(one.largest_miss.fitted - one.largest_miss.measured):.2g} at most"
    name = ESTIMATOR_NAMES[one.estimator]
    optimum = ", N ~ C^a, D ~ C^b" if exponents else ""
    return f"L = E + A/N^alpha + B/D^beta{optimum} ({name}, {one.points} runs{off}): {told}."


def _missing_surfaces(result: FitResult) -> list[str]:
    """Return a line per reason for which variants have no surface."""
    reasons: dict[str, list[str]] = {}
    for name, fit in result.variants.items():
        if fit.surfaces and all(one.status != "converged" for one in fit.surfaces):
            reasons.setdefault(fit.surfaces[0].message, []).append(name)
    lines = []
    for message, names in reasons.items():
        listed = "; ".join(names) if len(names) <= NAMED else f"{len(names)} variants"
        of = "" if len(result.variants) == 1 else f" of {listed}"
        lines.append(f"No surface{of}: {message}.")
    return capped(lines, REASONS)


def fitted_curves(result: FitResult) -> list[CurveMinimum]:
    """Return the minimum of each curve by the first estimator that found one, the parabola first.

    Curves come by variant and then budget; those without a minimum are left out.
    """
    found = (one for one in result.minima if one.loss is not None)
    curves = groupby(found, key=lambda one: (one.variant, one.budget_flops))
    return [next(here) for _, here in curves]


def shown_curves(curves: Sequence[CurveMinimum], most: int) -> list[CurveMinimum]:
    """Return at most so many curves: of each variant the smallest and the largest budgets."""
    if len(curves) <= most:
        return list(curves)
    by_variant = [list(own) for _, own in groupby(curves, key=lambda one: one.variant)]
    each = max(1, most // len(by_variant))
    kept: list[CurveMinimum] = []
    for own in by_variant[:most]:
        first = 0 if len(own) <= each else each // 2
        kept += own[:first] + own[max(first, len(own) - (each - first)) :]
    return kept


def minima_table(result: FitResult, most: int) -> list[RenderableType]:
    """Return a table with a row for each of at most so many curves, and how many more there are.

    Under `spread` stand the highest minimum less the lowest, and the largest optimal size over the
    smallest, of all estimators that converged.
    """
    curves = fitted_curves(result)
    shown = shown_curves(curves, most)
    ways = {ESTIMATOR_NAMES[one.estimator] for one in shown}
    apart = {
        (name, one.budget_flops): f"{one.loss:.4f} {one.parameter_ratio:.2f}x"
        for name, fit in result.variants.items()
        for one in fit.minimum_disagreements
    }
    cells: dict[str, Callable[[CurveMinimum], str]] = {
        "variant": lambda one: one.variant,
        "budget": lambda one: exponent(one.budget_flops),
        "parameters": lambda one: one.estimates()[0].words(count),
        "loss": lambda one: one.estimates()[1].words(),
        "by": lambda one: ESTIMATOR_NAMES[one.estimator],
        "spread": lambda one: apart.get((one.variant, one.budget_flops), NONE),
    }
    if len(result.variants) == 1:
        del cells["variant"]
    by = ""
    if len(ways) == 1:
        del cells["by"]
        by = f" by {ways.pop()}"
    unit = f" in {result.loss_unit}" if result.loss_unit else ""
    title = f"Minima{by}{unit}, and the spread of all estimators"
    made: list[RenderableType] = [table(title, shown, cells, names=["variant", "by"])]
    if len(shown) < len(curves):
        made.append(said(f"{len(curves) - len(shown)} more of {len(curves)} minima: --details."))
    return made


def under_minima(result: FitResult) -> Iterator[str]:
    """Yield which intervals hold no noise, and why curves have no minimum by the parabola."""
    told = fitted_curves(result)
    bare = [one for one in told if one.interval and one.interval.source == "systematic"]
    if bare:
        which = "Intervals" if len(bare) == len(told) else f"{len(bare)} of {len(told)} intervals"
        yield (
            f"{which} of minima hold only what the estimator gets wrong without noise: nothing "
            "tells how far runs scatter; more seeds or sizes would."
        )
    several = len(result.variants) > 1
    curves = [one for one in result.minima if one.estimator == "parabola"]
    lacking = [one for one in curves if one.loss is None]
    if lacking:
        reasons: dict[str, list[str]] = {}
        for one in lacking:
            at = f"{one.variant} at " if several else ""
            where = reasons.setdefault(_lacking(one), [])
            where.append(f"{at}{exponent(one.budget_flops)} FLOPs")
        words = "; ".join(
            f"{reason} ({'; '.join(at)})"
            if len(at) <= NAMED
            else reason + f" ({len(at)} of them)" * (len(at) < len(lacking))
            for reason, at in reasons.items()
        )
        of = f"{len(lacking)} of {len(curves)} {'curves' if several else 'budgets'}"
        yield f"No minimum by the parabola at {of}: {words}."


def _lacking(one: CurveMinimum) -> str:
    """Return what a curve lacks, and for a minimum at an edge which sizes would bracket it."""
    words = {
        "edge": f"{one.side} sizes than those measured would bracket it",
        "too_few": "fewer than 3 sizes",
        "concave": "the parabola opens downwards",
    }
    return words.get(one.status, one.message)
