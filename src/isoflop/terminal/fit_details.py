"""`isoflop fit --details`: all that was fitted, by every estimator."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from isoflop.estimate import NONE
from isoflop.fit import ESTIMATOR_NAMES, FitResult, RunTable, VariantFit, sentence, surface_sentence
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.results import FittedSurface
from isoflop.fit.surfaces.bootstrap import DRAWS_WORDS, QUANTITIES
from isoflop.fit.words import estimates_sentence, fraction_sentence, in_unit
from isoflop.notation import count, exponent
from isoflop.terminal.tables import coefficient, said, table, told


def fit_details(result: FitResult, runs: RunTable) -> Iterator[RenderableType]:
    """Yield what was fitted: verdicts, minima, surfaces, and what was left out or assumed."""
    unit = result.loss_unit
    if runs.understood:
        yield said(runs.understood)
    for warning in fit_warnings(result, runs):
        yield said(f"Warning: {warning}")
    for verdict in result.verdicts:
        yield said(sentence(verdict, unit), "bold")
        more = (estimates_sentence(verdict), fraction_sentence(verdict))
        yield from (said(one) for one in more if one)
    if result.verdicts:
        yield said(holm_sentence(result))
    for comparison in result.surface_comparisons:
        yield said(surface_sentence(comparison, unit))
    yield _minima(result)
    yield from _surfaces(result)
    yield from map(said, _of_variants(result))
    for note in (*runs.notes, *fit_notes(result)):
        yield said(note)
    for one in runs.left_out:
        yield said(f"Left out: {one.rows} rows (first: row {one.first}): {one.reason}.")


def _of_variants(result: FitResult) -> Iterator[str]:
    """Yield surfaces that failed, laws, envelopes, and how far estimators are apart."""
    fits = result.variants.items()
    for name, fit in fits:
        for surface in fit.surfaces:
            if surface.status != "converged":
                yield f"{name}, {ESTIMATOR_NAMES[surface.estimator]}: {surface.message}."
    yield from (f"{name}: {words}." for name, fit in fits if (words := law_words(fit)))
    for name, fit in fits:
        found = fit.envelope
        if found is not None and found.a and found.b:
            a, b = found.a.words(".3f"), found.b.words(".3f")
            yield (
                f"{name}: envelope of training curves N ~ C^a with a = {a}, D ~ C^b with b = {b}, "
                f"{found.sizes} sizes; biased, since no run has ended there."
            )
        elif found is not None:
            yield f"{name}, envelope of training curves: {found.message}."
    for name, fit in fits:
        if words := disagreement_words(fit, result.loss_unit):
            yield f"{name}: estimators differ {words}."


def fit_warnings(result: FitResult, runs: RunTable) -> list[str]:
    """Return a sentence for each thing in the runs or the fits that may make the answer wrong."""
    found = list(runs.warnings)
    for name, fit in result.variants.items():
        of = f"{name}, " if len(result.variants) > 1 else ""
        found += [
            f"{of}{ESTIMATOR_NAMES[one.estimator]}: {one.warning}"
            for one in fit.surfaces
            if one.warning is not None
        ]
    return [f"{one.removesuffix('.')}." for one in found]


def fit_notes(result: FitResult) -> list[str]:
    """Return what the fits did to the runs and left out, each sentence once."""
    several = len(result.variants) > 1
    return [
        f"{name}: {note}" if several else note
        for name, fit in result.variants.items()
        for note in fit.notes
    ]


def holm_sentence(result: FitResult) -> str:
    """Return what verdicts rest on: level of the intervals, and for how many tests they answer."""
    tests = sum(one.p_adjusted is not None for one in result.verdicts)
    return (
        f"Intervals are {100 * result.level:g}%; better, worse and equivalent are said after "
        f"Holm's correction for {tests} comparison{'s' * (tests != 1)}."
    )


def law_words(fit: VariantFit) -> str:
    """Return how the optimal size grows with compute, by each estimator that tells it."""
    laws = [
        f"{ESTIMATOR_NAMES[law.estimator]} {law.a.words('.3f')}"
        + ("" if law.interval_note is None else f" ({law.interval_note})")
        for law in fit.laws
        if law.a is not None
    ]
    return f"optimal N ~ C^a with a = {', '.join(laws)}" if laws else ""


def disagreement_words(fit: VariantFit, loss_unit: str | None) -> str:
    """Return how far the estimators of a variant are apart; nothing where too few found any."""
    parts, apart = [], fit.minimum_disagreements
    if apart:
        widest = f"{max(one.loss for one in apart):.4f}{in_unit(loss_unit)}"
        farthest = max(one.parameter_ratio for one in apart)
        parts.append(f"on a minimum by up to {widest} and {farthest:.2f} times in size")
    if fit.surface_disagreement:
        ranges = fit.surface_disagreement.ranges.items()
        gaps = ", ".join(f"{high - low:.2g} in {one}" for one, (low, high) in ranges)
        parts.append(f"on the surface by {gaps}")
    return "; ".join(parts)


def _minima(result: FitResult) -> RenderableType:
    """Return a row per budget with sizes enough for a minimum, and estimator."""
    found = [one for one in result.minima if one.status != "too_few"]
    if not found:
        return said("No budget has sizes enough for a minimum.")
    unit = f", in {result.loss_unit}" if result.loss_unit else ""
    return table(
        f"Minima of loss over log parameters{unit}",
        found,
        {
            "variant": lambda one: one.variant,
            "budget": lambda one: exponent(one.budget_flops),
            "estimator": lambda one: ESTIMATOR_NAMES[one.estimator],
            "parameters": lambda one: told(one.parameters, count),
            "loss": lambda one: told(one.loss, "{:.4f}"),
            "interval of the loss": _loss_interval,
            "status": lambda one: one.status,
        },
        names=["variant"],
        words=["estimator", "status"],
    )


def _loss_interval(one: CurveMinimum) -> str:
    if one.interval is None:
        return NONE
    noiseless = " without noise" if one.interval.source == "systematic" else ""
    return f"{one.estimates()[1].interval_words()}{noiseless}"


def _surfaces(result: FitResult) -> Iterator[RenderableType]:
    """Yield a table per estimator: a line per coefficient, a column per variant."""
    for estimator in ("surface", "variable_projection"):
        found = {
            name: surface
            for name, fit in result.variants.items()
            for surface in fit.surfaces
            if surface.estimator == estimator and surface.status == "converged"
        }
        if not found:
            continue
        title = f"L = E + A / N^alpha + B / D^beta, N ~ C^a, D ~ C^b; {ESTIMATOR_NAMES[estimator]}"
        for at in range(0, len(found), 6):  # as many variants fit into 80 columns
            columns = {"": [*QUANTITIES, "r.m.s. of misses", "largest miss", "runs"]}
            for name, one in list(found.items())[at : at + 6]:
                columns[name] = [
                    *(coefficient(getattr(one, of)) for of in QUANTITIES),
                    told(one.rms_residual, "{:.2g}"),
                    _farthest(one),
                    str(one.points),
                ]
            cells = {name: column.__getitem__ for name, column in columns.items()}
            yield table(title, range(len(columns[""])), cells, words=[""], long=found)
        sources = sorted({DRAWS_WORDS[one.source] for one in found.values() if one.source})
        yield said(f"Its intervals are by {'; '.join(sources)}.")


def _farthest(one: FittedSurface) -> str:
    miss = one.largest_miss
    if miss is None:
        return NONE
    return (
        f"{miss.fitted - miss.measured:+.2g} at {count(miss.parameters)} parameters, "
        f"{count(miss.tokens)} tokens"
    )
