"""Answers about what was made of the runs: fits, uncertainty, comparisons, raw data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from isoflop.config import Study
from isoflop.fit.minima.akima import AKIMA_SIZES
from isoflop.fit.minima.parabola import PARABOLA_SIZES, WINDOW
from isoflop.fit.results import FittedSurface
from isoflop.fit.settings import HUBER_DELTA, Estimator
from isoflop.fit.surfaces.bootstrap import DRAWS_WORDS
from isoflop.fit.surfaces.data import EXPONENTS
from isoflop.fit.surfaces.huber import START_EXPONENTS, START_LEVELS
from isoflop.fit.surfaces.huber import STARTS as HUBER_DESCENTS
from isoflop.fit.surfaces.projection import START_EXPONENTS as PROJECTION_EXPONENTS
from isoflop.fit.surfaces.projection import STARTS
from isoflop.fit.variants import DELTAS
from isoflop.notation import percent
from isoflop.report.analysis import HEADLINE, Analysis
from isoflop.report.disclosure import Disclosure, Evidence, Measured, Topic, plural, spanned
from isoflop.report.fit_tables import RUNS
from isoflop.report.provenance import environment_of, mixed_environments
from isoflop.report.rows import ESTIMATOR_WORDS

HUBER_STARTS = len(START_LEVELS) ** 3 * len(START_EXPONENTS) ** 2
LEAST_SQUARES_STARTS = len(PROJECTION_EXPONENTS) ** 2

FORMS: Mapping[Estimator, str] = {
    "parabola": "loss at one budget a parabola in log N",
    "akima": "log loss at one budget interpolated over log N by Akima's splines",
    "surface": "L = E + A / N^alpha + B / D^beta over all budgets",
    "variable_projection": "the same surface",
}
"""The functional form of each estimator."""

METHODS: Mapping[Estimator, str] = {
    "parabola": (
        f"least squares over runs of sizes within a factor of {WINDOW:g} of the lowest one, at "
        f"least {PARABOLA_SIZES} sizes; solved exactly"
    ),
    "akima": (
        f"through the means over seeds of at least {AKIMA_SIZES} sizes; nothing is optimised"
    ),
    "surface": (
        f"Huber loss with delta {HUBER_DELTA:g} on log fitted less log measured loss; "
        f"{HUBER_STARTS:,} starts compared, the best {HUBER_DESCENTS} and the least-squares "
        "answer descended, the lowest followed to its end by a trust-region Newton method "
        "with exact derivatives, also with E at zero"
    ),
    "variable_projection": (
        "least squares on the loss, with E, A and B solved exactly by non-negative least squares; "
        f"{LEAST_SQUARES_STARTS:,} pairs of exponents compared, the best {STARTS} descended"
    ),
}
"""The objective of each estimator, and how it is brought to its minimum."""


def fits(analysis: Analysis, evidence: Evidence) -> Topic:
    """Return what was fitted, how, and how each fit ended."""
    surfaces = _surfaces(analysis)
    ended = tuple(
        f"{name}, {_lowered(ESTIMATOR_WORDS[fit.estimator])}: {_ended(fit)}"
        for name, fit in surfaces
    )
    exponents = f"alpha and beta lie within {EXPONENTS[0]:g} to {EXPONENTS[1]:g}"
    return Topic(
        "Fits",
        (
            Disclosure(
                "Which functional forms were fitted?", _per_estimator(analysis, FORMS.__getitem__)
            ),
            Disclosure(
                "Which objective, optimiser and starts?",
                _per_estimator(analysis, METHODS.__getitem__),
            ),
            Disclosure(
                "Did fits converge, or end at a bound?",
                ended or ("No surface was fitted.",),
                "disclosed" if ended else "not applicable",
            ),
            Disclosure(
                "Which bounds are there?",
                (f"{exponents}; E, A and B are not negative.",),
                "disclosed" if ended else "not applicable",
            ),
            _delta(surfaces),
            _envelopes(analysis),
        ),
    )


def uncertainty(analysis: Analysis, evidence: Evidence) -> Topic:
    """Return what the intervals are, and what they leave out."""
    if analysis.fits is None:
        return Topic("Uncertainty", (_nothing_fitted("What do the intervals hold?"),))
    fit = analysis.fits
    sources = {noise.source for one in fit.variants.values() for noise in one.noise.values()}
    known = {
        "seeds": "the spread between seeds of one size, apart for what runs of one seed share",
        "scatter": "the scatter about the parabola, where no size has two seeds",
        "surface": "the scatter about the surface, where a curve's own runs do not tell it",
    }
    noise = " and ".join(text for source, text in known.items() if source in sources)
    return Topic(
        "Uncertainty",
        (
            Disclosure(
                "What are the intervals, and at which level?",
                (
                    f"{percent(fit.level, 0)} everywhere, from {fit.resamples:,} copies of the "
                    f"runs (seed {fit.seed}).",
                    "Minima by parabola and Akima: the measured noise added to the curve, which is "
                    f"fitted again. {_surface_draws(analysis)}Means over seeds and differences: "
                    "Student's t, of differences of minima by seeds or by the scatter about the "
                    "parabolas, whichever is wider.",
                ),
            ),
            Disclosure(
                "Which noise do they hold?",
                (f"{noise[:1].upper()}{noise[1:]}.",)
                if noise
                else ("None is known: no size has two seeds, and too few sizes tell a scatter.",),
                "disclosed" if noise else "missing",
            ),
            _disagreement(analysis),
        ),
    )


def comparisons(analysis: Analysis, evidence: Evidence) -> Topic:
    """Return what was compared, and against which margin."""
    study = analysis.study
    made = analysis.fits.verdicts if analysis.fits else ()
    tested = sum(one.difference is not None for one in made)
    level = 1 - analysis.fits.level if analysis.fits else 0.05
    paired = sum(one.difference is not None and one.difference.paired for one in made)
    return Topic(
        "Comparisons",
        (
            Disclosure(
                "How many comparisons were made, with which correction?",
                (
                    f"{plural(tested, 'comparison')} with {analysis.baseline}, {paired} of them "
                    f"paired by seed, at {percent(level, 0)} after Holm's correction for all of "
                    "them.",
                )
                if made
                else ("None.",),
                "disclosed" if made else "not applicable",
            ),
            margin(study),
        ),
    )


def raw_data(analysis: Measured, evidence: Evidence) -> Topic:
    """Return where the numbers are, and on what and by which code they were made."""
    alike = environment_of(evidence.records)
    return Topic(
        "Raw data and code",
        (
            Disclosure(
                "Where are the runs?",
                (
                    f"figures/{RUNS}.csv beside this page: {plural(len(analysis.table), 'run')} "
                    f"with size, tokens, FLOPs and losses, SHA-256 {evidence.runs_sha256}.",
                )
                if evidence.runs_sha256
                else ("They were not written.",),
                "disclosed" if evidence.runs_sha256 else "missing",
            ),
            Disclosure(
                "On which machine, with which software?",
                tuple(f"{what[:1].upper()}{what[1:]} {value}" for what, value in alike)
                or ("No run has a record.",),
                "disclosed" if evidence.records else "missing",
            ),
            _made_alike(analysis, evidence),
        ),
    )


def _per_estimator(analysis: Analysis, said: Callable[[Estimator], str]) -> tuple[str, ...]:
    return tuple(f"{ESTIMATOR_WORDS[one]}: {said(one)}." for one in analysis.estimators)


def _made_alike(analysis: Measured, evidence: Evidence) -> Disclosure:
    question = "Were all runs made alike?"
    if not evidence.records:
        return Disclosure(question, ("No run has a record.",), "not applicable")
    fitted = set(analysis.table["run_id"])
    mixed = mixed_environments([one for one in evidence.records if one.run_id in fitted])
    beside = mixed_environments(evidence.records)
    if not beside:
        return Disclosure(question, ("Yes: one code, one environment, the same data.",))
    lines = [
        f"{one.what}: "
        + ", ".join(f"{value} ({plural(runs, 'run')})" for value, runs in one.values)
        + "."
        for one in mixed or beside
    ]
    first = "No." if mixed else "Those in the figures were. With the checks beside the minima:"
    return Disclosure(question, (first, *(line[:1].upper() + line[1:] for line in lines)))


def _lowered(words: str) -> str:
    return words[:1].lower() + words[1:]


def _surface_draws(analysis: Analysis) -> str:
    """Return what the intervals of the surfaces are by, a sentence and a space."""
    sources = sorted({DRAWS_WORDS[fit.source] for _, fit in _surfaces(analysis) if fit.source})
    return f"Surfaces: {'; '.join(sources)}. " if sources else ""


def _envelopes(analysis: Analysis) -> Disclosure:
    question = "What does the envelope of the training curves say (approach 1)?"
    found = analysis.fits.variants if analysis.fits else {}
    lines = tuple(
        f"{name}: {envelope.message}"
        + ("" if envelope.a is None else f", N ~ C^a with a = {envelope.a.value:.3f}")
        + "."
        for name, fit in found.items()
        if (envelope := fit.envelope) is not None
    )
    if not lines:
        return Disclosure(question, ("No run has a training curve.",), "not applicable")
    biased = "Its points lie before the runs' ends, so it is biased; nothing else rests on it."
    return Disclosure(question, (*lines, biased))


def _surfaces(analysis: Analysis) -> Sequence[tuple[str, FittedSurface]]:
    found = analysis.fits.variants if analysis.fits else {}
    return [
        (variant.name, surface)
        for variant in analysis.study.variants
        if (fit := found.get(variant.name)) is not None
        for surface in (fit.surface, fit.variable_projection)
        if surface is not None
    ]


def _ended(fit: FittedSurface) -> str:
    text = f"{fit.status.replace('_', ' ')} ({fit.message})"
    if fit.residual is not None:
        text += f", residuals of {percent(fit.residual, 2)} of the loss (root mean square)"
    return f"{text}."


def _delta(surfaces: Sequence[tuple[str, FittedSurface]]) -> Disclosure:
    question = "How much hangs on the delta of the Huber loss?"
    lines = tuple(
        f"{name}: alpha {fit.alpha.value:.3g} at {fit.delta:g}, "
        + ", ".join(
            f"{other.alpha:.3g} at {delta}" for delta, other in fit.delta_sensitivity.items()
        )
        + "."
        for name, fit in surfaces
        if fit.alpha is not None and fit.delta is not None and fit.delta_sensitivity
    )
    tried = " and ".join(f"{delta:g}" for delta in DELTAS)
    if not lines:
        return Disclosure(question, (f"No surface was fitted at {tried}.",), "not applicable")
    return Disclosure(question, lines)


def _disagreement(analysis: Analysis) -> Disclosure:
    question = "How far do the estimators disagree?"
    fits = analysis.fits.variants.values() if analysis.fits else ()
    found = [one for fit in fits for one in fit.minimum_disagreements]
    if not found:
        return Disclosure(question, ("No curve has minima by two estimators.",), "not applicable")
    losses = [one.loss for one in found]
    sizes = [one.parameter_ratio for one in found]
    return Disclosure(
        question,
        (
            f"By {spanned(losses, '{:.4f}'.format)} {analysis.loss_unit} in the loss of a minimum "
            f"and by a factor of {spanned(sizes, '{:.2f}'.format)} in its size. No interval holds "
            f"this systematic error; the words use the {_lowered(ESTIMATOR_WORDS[HEADLINE])}.",
        ),
    )


def _nothing_fitted(question: str) -> Disclosure:
    return Disclosure(question, ("No run has finished.",), "not applicable")


def margin(study: Study) -> Disclosure:
    """Return which difference of loss counts as none."""
    declared = study.equivalence_margin
    return Disclosure(
        "Which difference counts as none?",
        ("No margin was declared, so nothing is called equivalent.",)
        if declared is None
        else (
            f"{declared:g} {study.data.loss_unit}, declared in the study; tested from both sides "
            "(TOST).",
        ),
        "not applicable" if declared is None else "disclosed",
    )
