"""The result in sentences: who wins, by how much, at which size, and what must be doubted."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from isoflop.config import Study
from isoflop.fit import ESTIMATOR_NAMES, sentence
from isoflop.fit.curves.seeds import minimum_difference, noisy_minimum
from isoflop.fit.intervals import difference, mean_estimate, seed_spread, spread_ratio
from isoflop.fit.minima.parabola import PARABOLA_SIZES
from isoflop.fit.words import estimates_sentence
from isoflop.notation import scientific
from isoflop.report.analysis import SMALLEST_BUDGET_FLOPS, Analysis, BudgetResult
from isoflop.report.words.prose import told

ESTIMATOR_WORDS = {name: words[0].upper() + words[1:] for name, words in ESTIMATOR_NAMES.items()}

SEEDS_FOR_A_SPREAD = 3
"""Fewer seeds say next to nothing about a spread."""


def facts(analysis: Analysis) -> list[tuple[str, str]]:
    """Return what stands at the top of the page, with its label."""
    study, evidence = analysis.study, analysis.evidence
    finished = sum(record.state == "finished" for record in evidence.records)
    others = len(evidence.records) - finished + len(evidence.missing)
    return [
        ("Variants", str(len(study.variants))),
        ("Budgets, FLOPs", ", ".join(scientific(budget) for budget in study.budgets_flops)),
        ("Seeds", _seeds(study)),
        ("Runs finished", str(finished)),
        ("Runs left out", str(others) if others else ""),
    ]


def _seeds(study: Study) -> str:
    at_most = "" if study.seeds_at_most is None else f", up to {study.seeds_at_most}"
    return f"{len(study.seeds)}{at_most}"


def headline(analysis: Analysis) -> str:
    """Return the page's first sentence."""
    return told("results", "headline", _CALLED, analysis)[0]


def doubts(analysis: Analysis) -> tuple[str, ...]:
    """Return why no verdict stands on this study; empty when one may."""
    return told("results", "doubtful", _CALLED, analysis)


def results(analysis: Analysis, result: BudgetResult) -> tuple[str, ...]:
    """Return what the runs of one budget show, a sentence or two per variant."""
    return told("results", "results", _CALLED, analysis, result)


def refusals(analysis: Analysis) -> tuple[str, ...]:
    """Return a sentence for each minimum that must not be used."""
    return tuple(
        f"{found.variant} at {scientific(result.budget_flops)} FLOPs: {found.message}."
        for result in analysis.budgets
        for variant in analysis.study.variants
        if (found := result.headline(variant.name)) is not None and found.loss is None
    )


def _too_few_sizes(analysis: Analysis) -> bool:
    return all(
        len(analysis.ladder(name, result.budget_flops)) < PARABOLA_SIZES
        for result in analysis.budgets
        for name in analysis.names
    )


def _near_best(analysis: Analysis, result: BudgetResult) -> list[str]:
    """Return which variants cannot be told from the best one, the baseline left aside."""
    best, *others = (
        noisy_minimum(analysis.declared, one.variant, result.budget_flops)
        for one in result.ranking()
        if one.variant != analysis.baseline
    )
    apart = {other.variant: minimum_difference(other, best) for other in others}
    return [name for name, found in apart.items() if found and found[0].interval().ends[0] <= 0]


def _single_seeded(analysis: Analysis) -> list[str]:
    """Return the curves whose lowest loss is of one seed."""
    return [
        f"{name} at {scientific(result.budget_flops)}"
        for result in analysis.budgets
        for name in analysis.names
        if (ladder := analysis.ladder(name, result.budget_flops))
        and len(min(ladder, key=lambda size: size.loss).seeds) < 2
    ]


def _losses_by_seed(analysis: Analysis, result: BudgetResult) -> Mapping[str, tuple[float, ...]]:
    """Return losses of baseline and challenger at their best sizes; none where seeds are few."""
    losses = {}
    for name in filter(None, (analysis.baseline, analysis.challenger)):
        sizes = analysis.ladder(name, result.budget_flops)
        best = min(sizes, key=lambda size: size.loss, default=None)
        if best is None or len(best.seeds) < SEEDS_FOR_A_SPREAD or len(set(best.seed_losses)) < 2:
            return {}
        losses[name] = best.seed_losses
    return losses if len(losses) == 2 else {}


def _called(analysis: Analysis) -> str:
    """Return the baseline as a sentence names it."""
    return f"the {analysis.baseline}" if analysis.baseline.islower() else analysis.baseline


_CALLED = {
    **{one.__name__: one for one in (difference, doubts, estimates_sentence, mean, mean_estimate)},
    **{one.__name__: one for one in (seed_spread, sentence, spread_ratio)},
    "SMALLEST_BUDGET_FLOPS": SMALLEST_BUDGET_FLOPS,
    "called": _called,
    "losses_by_seed": _losses_by_seed,
    "near_best": _near_best,
    "single_seeded": _single_seeded,
    "too_few_sizes": _too_few_sizes,
}
"""What the templates call by name."""
