"""`isoflop fit --details`: all that was fitted, by every estimator."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.tables import Column, coefficient, table
from isoflop.fit import ESTIMATOR_NAMES, FitResult, RunTable, VariantFit, sentence, surface_sentence
from isoflop.fit.laws.optima import FittedLaw
from isoflop.fit.results import FittedMinimum, FittedSurface
from isoflop.fit.surfaces.bootstrap import DRAWS_WORDS
from isoflop.fit.words import estimates_sentence, fraction_sentence
from isoflop.notation import count, exponent
from isoflop.text import quoted

COEFFICIENTS = ("E", "A", "B", "alpha", "beta", "a", "b")


def fit_details(result: FitResult, runs: RunTable) -> Iterator[RenderableType]:
    """Yield what was fitted: verdicts, minima, surfaces, and what was left out or assumed."""
    if runs.understood:
        yield Text(quoted(runs.understood))
    for warning in fit_warnings(result, runs):
        yield Text(quoted(f"Warning: {warning}"))
    for verdict in result.verdicts:
        yield Text(quoted(sentence(verdict, result.loss_unit)), style="bold")
        if len(verdict.estimates) > 1:
            yield Text(quoted(estimates_sentence(verdict)))
        if verdict.forward_fraction is not None:
            yield Text(quoted(fraction_sentence(verdict)))
    if result.verdicts:
        yield Text(holm_sentence(result))
    for comparison in result.surface_comparisons:
        yield Text(quoted(surface_sentence(comparison, result.loss_unit)))
    yield _minima(result)
    yield from _surfaces(result)
    for name, fit in result.variants.items():
        for surface in fitted_surfaces(fit):
            if surface.status != "converged":
                yield Text(
                    quoted(f"{name}, {ESTIMATOR_NAMES[surface.estimator]}: {surface.message}.")
                )
    for name, fit in result.variants.items():
        words = law_words(fit)
        if words is not None:
            yield Text(quoted(f"{name}: {words}."))
    yield from _envelopes(result)
    for name, fit in result.variants.items():
        words = disagreement_words(fit, result.loss_unit)
        if words is not None:
            yield Text(quoted(f"{name}: estimators differ {words}."))
    for note in (*runs.notes, *fit_notes(result)):
        yield Text(quoted(note))
    for one in runs.left_out:
        yield Text(quoted(f"Left out: {one.rows} rows (first: row {one.first}): {one.reason}."))


def fit_warnings(result: FitResult, runs: RunTable) -> list[str]:
    """Return a sentence for each thing in the runs or the fits that may make the answer wrong."""
    found = list(runs.warnings)
    for name, fit in result.variants.items():
        of = f"{name}, " if len(result.variants) > 1 else ""
        found += [
            f"{of}{ESTIMATOR_NAMES[one.estimator]}: {one.warning}"
            for one in fitted_surfaces(fit)
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
        f"Intervals are {result.level:.0%}; better, worse and equivalent are said after Holm's "
        f"correction for {tests} comparison{'s' * (tests != 1)}."
    )


def law_words(fit: VariantFit) -> str | None:
    """Return how the optimal size grows with compute, by each estimator that tells it."""
    laws = [
        f"{ESTIMATOR_NAMES[law.estimator]} {law.a.words('.3f')}{_noted(law)}"
        for law in fit.laws
        if law.a is not None
    ]
    return f"optimal N ~ C^a with a = {', '.join(laws)}" if laws else None


def _noted(law: FittedLaw) -> str:
    return "" if law.interval_note is None else f" ({law.interval_note})"


def disagreement_words(fit: VariantFit, loss_unit: str | None) -> str | None:
    """Return how far the estimators of a variant are apart; None where too few found anything."""
    unit = f" {loss_unit}" if loss_unit else ""
    parts = []
    if fit.minimum_disagreements:
        widest = max(one.loss for one in fit.minimum_disagreements)
        farthest = max(one.parameter_ratio for one in fit.minimum_disagreements)
        parts.append(f"on a minimum by up to {widest:.4f}{unit} and {farthest:.2f} times in size")
    if fit.surface_disagreement:
        gaps = ", ".join(
            f"{high - low:.2g} in {one}"
            for one, (low, high) in fit.surface_disagreement.ranges.items()
        )
        parts.append(f"on the surface by {gaps}")
    return "; ".join(parts) or None


def _minima(result: FitResult) -> RenderableType:
    if not any(_shown(fit) for fit in result.variants.values()):
        return Text("No budget has sizes enough for a minimum.")
    columns = [
        Column("variant", wraps=True, number=False),
        Column("budget"),
        Column("estimator", number=False),
        Column("parameters"),
        Column("loss"),
        Column("interval of the loss"),
        Column("status", number=False),
    ]
    cells = [
        (
            name,
            exponent(one.budget_flops),
            ESTIMATOR_NAMES[one.estimator],
            "-" if one.parameters is None else count(one.parameters),
            "-" if one.loss is None else f"{one.loss:.4f}",
            _loss_interval(one),
            one.status,
        )
        for name, fit in result.variants.items()
        for one in _shown(fit)
    ]
    unit = f", in {result.loss_unit}" if result.loss_unit else ""
    return table(f"Minima of loss over log parameters{unit}", columns, cells)


def _shown(fit: VariantFit) -> list[FittedMinimum]:
    """Return the minima worth a line: those of budgets with sizes enough for one."""
    return [one for one in fit.minima if one.status != "too_few"]


def _loss_interval(one: FittedMinimum) -> str:
    if one.interval is None:
        return "-"
    noiseless = " without noise" if one.interval.source == "systematic" else ""
    return f"[{one.interval.low:.4f}, {one.interval.high:.4f}]{noiseless}"


def _surfaces(result: FitResult) -> Iterator[RenderableType]:
    """Yield a table per estimator: a line per coefficient, a column per variant."""
    for estimator in ("surface", "variable_projection"):
        found = {
            name: surface
            for name, fit in result.variants.items()
            for surface in fitted_surfaces(fit)
            if surface.estimator == estimator and surface.status == "converged"
        }
        if not found:
            continue
        columns = [Column("", number=False), *(Column(name, wraps=True) for name in found)]
        cells = [
            (one, *(coefficient(getattr(surface, one)) for surface in found.values()))
            for one in COEFFICIENTS
        ]
        cells.append(("r.m.s. of misses", *(_off(surface) for surface in found.values())))
        cells.append(("largest miss", *(_farthest(surface) for surface in found.values())))
        cells.append(("runs", *(str(surface.points) for surface in found.values())))
        title = f"L = E + A / N^alpha + B / D^beta, N ~ C^a, D ~ C^b; {ESTIMATOR_NAMES[estimator]}"
        yield table(title, columns, cells)
        sources = sorted({DRAWS_WORDS[one.source] for one in found.values() if one.source})
        yield Text(f"Its intervals are by {'; '.join(sources)}.")


def _off(one: FittedSurface) -> str:
    return "-" if one.rms_residual is None else f"{one.rms_residual:.2g}"


def _farthest(one: FittedSurface) -> str:
    miss = one.largest_miss
    if miss is None:
        return "-"
    return (
        f"{miss.fitted - miss.measured:+.2g} at {count(miss.parameters)} parameters, "
        f"{count(miss.tokens)} tokens"
    )


def fitted_surfaces(fit: VariantFit) -> list[FittedSurface]:
    """Return the surfaces that a variant was fitted with, the Huber surface first."""
    return [one for one in (fit.surface, fit.variable_projection) if one is not None]


def _envelopes(result: FitResult) -> Iterator[Text]:
    for name, fit in result.variants.items():
        found = fit.envelope
        if found is None:
            continue
        if found.a is None or found.b is None:
            yield Text(quoted(f"{name}, envelope of training curves: {found.message}."))
            continue
        a, b = found.a.words(".3f"), found.b.words(".3f")
        yield Text(
            quoted(
                f"{name}: envelope of training curves N ~ C^a with a = {a}, D ~ C^b with b = {b}, "
                f"{found.sizes} sizes; biased, since no run has ended there."
            )
        )
