"""What the answers of the checklist count and tell; its templates call these by name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from isoflop.config import RunRecord, Study
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.results import FittedSurface
from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.bootstrap import DRAWS_WORDS
from isoflop.notation import scientific
from isoflop.report.analysis import Analysis, Studied
from isoflop.report.evidence import RecipeSearch
from isoflop.report.render import table_text

T = TypeVar("T", bound=Hashable)

CONVENTIONS = {
    "causal": "exact closed forms; each query is charged for the keys it may attend",
    "full": "exact closed forms; attention is charged for the whole square of T by T",
    "6nd": "6 N D with N the non-embedding parameters",
}


def by_variant(
    study: Study, values: Mapping[str, T], shown: Callable[[T], str] = str
) -> tuple[str, ...]:
    """Return one line per variant, or one for all where they agree."""
    found = [(one.name, values[one.name]) for one in study.variants if one.name in values]
    if len(found) > 1 and len({value for _, value in found}) == 1:
        return (f"Every variant: {shown(found[0][1])}",)
    return tuple(f"{name}: {shown(value)}" for name, value in found)


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


def spanned(values: Collection[float], shown: Callable[[float], str] = str) -> str:
    """Return a range in words: 'X', or 'X to Y'."""
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"


def plural(number: int, noun: str, several: str = "") -> str:
    """Return a number with its noun: '1 run', '2 runs'."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


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
        return ", ".join(f"{tokens:,} at {scientific(budget)} FLOPs" for budget, tokens in found)
    return f"{found[0][1]:,}" if found else ""


def trials(study: Study, search: RecipeSearch) -> tuple[str, ...]:
    """Return how many trials of the recipe finished, by variant."""
    made = {name: (search.finished.get(name, 0), n) for name, n in search.declared.items()}
    return by_variant(study, made, lambda done: f"{done[0]} of {plural(done[1], 'trial')} finished")


def reasons(records: Sequence[RunRecord]) -> str:
    """Return why runs have no result, the commonest reason first."""
    counted = Counter(record.reason or "no reason was recorded" for record in records)
    return "; ".join(f"{reason} ({n})" for reason, n in counted.most_common())


def refused_minima(analysis: Analysis) -> list[tuple[float, Estimator, CurveMinimum]]:
    """Return which minima were refused, with their budgets and by which estimator."""
    return [
        (result.budget_flops, name, one)
        for result in analysis.budgets
        for (_, name), one in result.minima.items()
        if one.loss is None
    ]


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


def fitted_records(analysis: Studied) -> list[RunRecord]:
    """Return the records that figures show, checks left out."""
    fitted = set(analysis.table["run_id"])
    return [one for one in analysis.evidence.records if one.run_id in fitted]


def runs_sha256(analysis: Studied) -> str:
    """Return the SHA-256 of the table of runs that is beside the page."""
    return hashlib.sha256(table_text(analysis.runs_table()).encode()).hexdigest()


def deciders(study: Study) -> dict[str, str]:
    """Return by which causal decision each variant is measured."""
    return {one.name: one.decisions[0].replace("_", " ") for one in study.variants}
