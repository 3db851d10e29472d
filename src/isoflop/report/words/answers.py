"""What the sentences of a report count and tell; its templates call these by name."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from isoflop.config import RunRecord, Study
from isoflop.estimate import Estimate
from isoflop.fit import ESTIMATOR_NAMES
from isoflop.fit.compare.league import league
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.curves.seeds import noisy_minimum
from isoflop.fit.intervals import difference, mean_estimate
from isoflop.fit.minima.parabola import PARABOLA_SIZES
from isoflop.fit.results import FittedSurface
from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.bootstrap import DRAWS_WORDS
from isoflop.notation import scientific
from isoflop.report.analysis import Analysis, BudgetResult, Studied
from isoflop.report.evidence import RecipeSearch
from isoflop.report.render import table_text
from isoflop.report.scaling import ScalingAnalysis, Span

T = TypeVar("T", bound=Hashable)

CONVENTIONS = {
    "causal": "exact closed forms; each query is charged for the keys it may attend",
    "full": "exact closed forms; attention is charged for the whole square of T by T",
    "6nd": "6 N D with N the non-embedding parameters",
}

ESTIMATOR_WORDS = {name: words[0].upper() + words[1:] for name, words in ESTIMATOR_NAMES.items()}

METHOD = (
    "Each line is L = a C^b by least squares on log loss over log compute, through the mean final "
    "test loss of each size; training curves are shown and not fitted. The intervals of a and b "
    "are Student's, from the scatter of the sizes about the line; what other documents would do to "
    "it is not in them."
)
"""How projections are made."""

SEEDS_FOR_A_SPREAD = 3
"""Fewer seeds say next to nothing about a spread."""


# Of words.


def listed(parts: Iterable[str]) -> str:
    """Return several things in words: a, b and c."""
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def ordinal(number: int) -> str:
    """Return a place in words: 1st, 2nd, 12th."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0)
    return f"{number}{ending or 'th'}"


def plural(number: int, noun: str, several: str = "") -> str:
    """Return a number with its noun: '1 run', '2 runs'."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def spanned(values: Collection[float], shown: Callable[[float], str] = str) -> str:
    """Return a range in words: 'X', or 'X to Y'."""
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"


def by_variant(
    study: Study, values: Mapping[str, T], shown: Callable[[T], str] = str
) -> tuple[str, ...]:
    """Return one line per variant, or one for all where they agree."""
    found = [(one.name, values[one.name]) for one in study.variants if one.name in values]
    if len(found) > 1 and len({value for _, value in found}) == 1:
        return (f"Every variant: {shown(found[0][1])}",)
    return tuple(f"{name}: {shown(value)}" for name, value in found)


# Of a study and its runs.


def own_settings(study: Study) -> list[str]:
    """Return one line for each variant with settings of its own, or ones that move with C."""
    lines = []
    for one in study.variants:
        names = ("weight_decay", "warmup_fraction", "tokens_per_step", "router_rate")
        values = {name: getattr(one, name) for name in names}
        told = [f"{name} {value:g}" for name, value in values.items() if value is not None]
        moving = {} if one.exponents is None else one.exponents.model_dump(exclude_defaults=True)
        told += [f"{name} as (C / first budget)^{value:g}" for name, value in moving.items()]
        if told:
            lines.append(f"{one.name} has its own: {', '.join(told).replace('_', ' ')}.")
    return lines


def deciders(study: Study) -> dict[str, str]:
    """Return by which causal decision each variant is measured."""
    return {one.name: one.decisions[0].replace("_", " ") for one in study.variants}


def spent_shares(study: Study, records: Sequence[RunRecord]) -> list[float]:
    """Return how far above its budget each run spent, as a share of it."""
    return [
        one.train_flops[study.convention] / one.config.budget_flops - 1
        for one in records
        if one.config.budget_flops
    ]


def tokens_per_step(records: Sequence[RunRecord]) -> str:
    """Return the batch, budget by budget where it differs."""
    found = sorted(
        {(one.config.budget_flops or 0.0, one.config.tokens_per_step) for one in records}
    )
    if len({tokens for _, tokens in found}) > 1:
        told = (f"{tokens:,} at {scientific(budget)} FLOPs" for budget, tokens in found)
        return f"Tokens per step: {', '.join(told)}"
    return f"{found[0][1]:,} tokens per step" if found else "No run tells tokens per step"


def trials(study: Study, search: RecipeSearch) -> tuple[str, ...]:
    """Return how many trials of the recipe finished, by variant."""
    made = {name: (search.finished.get(name, 0), n) for name, n in search.declared.items()}
    return by_variant(study, made, lambda done: f"{done[0]} of {plural(done[1], 'trial')} finished")


def reasons(records: Sequence[RunRecord]) -> str:
    """Return why runs have no result, the commonest reason first."""
    counted = Counter(record.reason or "no reason was recorded" for record in records)
    return "; ".join(f"{reason} ({n})" for reason, n in counted.most_common())


def fitted_records(analysis: Studied) -> list[RunRecord]:
    """Return the records that figures show, checks left out."""
    fitted = set(analysis.table["run_id"])
    return [one for one in analysis.evidence.records if one.run_id in fitted]


def runs_sha256(analysis: Studied) -> str:
    """Return the SHA-256 of the table of runs that is beside the page."""
    return hashlib.sha256(table_text(analysis.runs_table()).encode()).hexdigest()


# Of the minima and fits of a study of budgets.


def refusals(analysis: Analysis) -> tuple[str, ...]:
    """Return a sentence for each minimum of the headline's estimator that must not be used."""
    return tuple(
        f"{found.variant} at {scientific(result.budget_flops)} FLOPs: {found.message}."
        for result in analysis.budgets
        for variant in analysis.study.variants
        if (found := result.headline(variant.name)) is not None and found.loss is None
    )


def refused_minima(analysis: Analysis) -> list[tuple[float, Estimator, CurveMinimum]]:
    """Return which minima were refused, with their budgets and by which estimator."""
    return [
        (result.budget_flops, name, one)
        for result in analysis.budgets
        for (_, name), one in result.minima.items()
        if one.loss is None
    ]


def too_few_sizes(analysis: Analysis) -> bool:
    """Return whether no curve has as many sizes as a minimum takes."""
    return all(
        len(analysis.ladder(name, result.budget_flops)) < PARABOLA_SIZES
        for result in analysis.budgets
        for name in analysis.names
    )


def near_best(analysis: Analysis, result: BudgetResult) -> list[str]:
    """Return which variants cannot be told from the best one, the baseline left aside.

    By intervals that hold together, as the best one was chosen for its loss.
    """
    table, at = analysis.declared, result.budget_flops
    found = league([noisy_minimum(table, one, at) for one in analysis.names], analysis.baseline)
    names = [one.variant for one in result.ranking() if one.variant != analysis.baseline]
    half = math.inf if found.half_width is None else found.half_width
    known = {one.variant: one.loss.value for one in found.places if one.first is not None}
    # Of a noise that is not known nothing is told apart.
    best = known.get(names[0], math.inf)
    return [name for name in names[1:] if known.get(name, -math.inf) - best <= half]


def single_seeded(analysis: Analysis) -> list[str]:
    """Return the curves whose lowest loss is of one seed."""
    return [
        f"{name} at {scientific(result.budget_flops)}"
        for result in analysis.budgets
        for name in analysis.names
        if (best := analysis.best(name, result.budget_flops)) and len(best.seeds) < 2
    ]


def losses_by_seed(analysis: Analysis, result: BudgetResult) -> Mapping[str, tuple[float, ...]]:
    """Return losses of baseline and challenger at their best sizes; none where seeds are few."""
    losses = {}
    for name in filter(None, (analysis.baseline, analysis.challenger)):
        best = analysis.best(name, result.budget_flops)
        if best is None or len(best.seeds) < SEEDS_FOR_A_SPREAD or len(set(best.seed_losses)) < 2:
            return {}
        losses[name] = best.seed_losses
    return losses if len(losses) == 2 else {}


def apart(analysis: Analysis, result: BudgetResult) -> dict[str, Estimate]:
    """Return what each variant is above the baseline, over seeds, where there is only one size."""
    found = {one: analysis.best(one, result.budget_flops) for one in analysis.names}
    known = {name: one.seed_losses for name, one in found.items() if one and len(one.seeds) > 1}
    base = known.pop(analysis.baseline, None)
    if base is None or analysis.study.start is None:
        return {}
    return {
        name: difference(mean_estimate(losses), mean_estimate(base)).interval()
        for name, losses in known.items()
    }


def fitted_surfaces(analysis: Analysis) -> list[tuple[str, FittedSurface]]:
    """Return the surfaces of each variant, by either method."""
    return [
        (name, surface)
        for name, fit in analysis.variant_fits.items()
        for surface in (fit.surface, fit.variable_projection)
        if surface is not None
    ]


def surface_draws(surfaces: Sequence[tuple[str, FittedSurface]]) -> list[str]:
    """Return what the intervals of the surfaces are by."""
    return sorted({DRAWS_WORDS[fit.source] for _, fit in surfaces if fit.source})


def noise_sources(analysis: Analysis) -> set[str]:
    """Return what the noise that intervals hold was measured from."""
    return {n.source for fit in analysis.variant_fits.values() for n in fit.noise.values()}


# Of a scaling study.


def refused_projections(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return which projections there are not, and why, each reason once."""
    spans: Mapping[tuple[str, str], set[Span]] = defaultdict(set)
    for one in analysis.fit.projections if analysis.fit else ():
        if one.a is None:
            spans[one.variant, one.message].add((one.start, one.stop))
    names = analysis.span_names
    told = []
    for (variant, message), found in spans.items():
        where = [name for span, name in names.items() if span in found]
        at = "every range" if len(found) == len(names) else listed(where)
        told.append(f"{variant} at {at} ({message})")
    return tuple(told)


def outcomes(analysis: ScalingAnalysis, variant: str) -> Mapping[str, list[Span]]:
    """Return the ranges by what is known of a variant there."""
    found: Mapping[str, list[Span]] = defaultdict(list)
    for span in analysis.ranges or analysis.spans:
        one = analysis.gap(variant, span)
        found[one.outcome if one and one.difference else "unresolved"].append(span)
    return found


def within_margin(analysis: ScalingAnalysis, variant: str, side: str) -> list[Span]:
    """Return where a loss that counts as equal is known to be higher, or lower."""
    sign = 1 if side == "higher" else -1
    return [
        span
        for span in analysis.ranges
        if (one := analysis.gap(variant, span))
        and one.outcome == "equivalent"
        and one.difference
        and one.difference.value * sign > 0
        and one.p_different is not None
        and one.p_different <= 1 - analysis.level
    ]


def extent(analysis: ScalingAnalysis, variant: str, spans: Sequence[Span]) -> str:
    """Return how large the gaps of a variant are in some ranges."""
    gaps = [analysis.gap(variant, span) for span in spans]
    sizes = [abs(one.difference.value) for one in gaps if one and one.difference]
    return f"{spanned(sizes, '{:.4f}'.format)} {analysis.loss_unit}"


def places(analysis: ScalingAnalysis, spans: Sequence[Span]) -> str:
    """Return where ranges are, neighbours joined: at positions 0-511 and 1024-2047."""
    if len(spans) == len(analysis.ranges or analysis.spans) > 1:
        return "at every range of positions"
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and joined[-1][1] == start:
            start, _ = joined.pop()
        joined.append((start, stop))
    return "at positions " + listed(f"{start}\N{EN DASH}{stop - 1}" for start, stop in joined)


def largest_gap(analysis: ScalingAnalysis, variant: str) -> Span | None:
    """Return the range in which a variant is farthest from the baseline; None without any."""
    sizes = {
        span: abs(one.difference.value)
        for span in analysis.ranges
        if (one := analysis.gap(variant, span)) and one.difference
    }
    return max(sizes, key=sizes.__getitem__, default=None)


def seeds_of(analysis: ScalingAnalysis) -> list[int]:
    """Return the seeds of each model that has any."""
    models = ((name, record.parameters.non_embedding) for name, record in analysis.finished)
    return list(Counter(models).values())
