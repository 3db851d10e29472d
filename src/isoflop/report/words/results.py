"""The result in sentences: who wins, by how much, at which size, and what must be doubted."""

from __future__ import annotations

from statistics import mean

from isoflop.fit import ESTIMATOR_NAMES, sentence
from isoflop.fit.compare.matching import Comparison
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.curves.seeds import minimum_difference, noisy_minimum
from isoflop.fit.intervals import difference, mean_estimate, seed_spread, spread_ratio
from isoflop.fit.minima.parabola import PARABOLA_SIZES
from isoflop.fit.words import estimates_sentence
from isoflop.notation import count, percent, scientific
from isoflop.report.analysis import SMALLEST_BUDGET_FLOPS, Analysis, BudgetResult

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
        ("Seeds", str(len(study.seeds))),
        ("Runs finished", str(finished)),
        ("Runs left out", str(others) if others else ""),
    ]


def headline(analysis: Analysis) -> str:
    """Return the page's first sentence."""
    if not analysis.budgets:
        return "No run has finished, so there is nothing to compare."
    if doubts(analysis):
        return "No verdict stands on this study; it shows what was measured, and no more."
    largest = analysis.budgets[-1]
    ranking = largest.ranking()
    at = f"At {scientific(largest.budget_flops)} FLOPs"
    if all(
        len(analysis.ladder(variant.name, result.budget_flops)) < PARABOLA_SIZES
        for result in analysis.budgets
        for variant in analysis.study.variants
    ):
        return f"{at}, too few sizes were trained for minima; this study shows the seeds' spread."
    if not ranking or largest.headline(analysis.baseline) not in ranking:
        return f"{at}, the baseline has no minimum that may be used, so nothing is compared."
    best = ranking[0]
    if best.variant == analysis.baseline:
        unresolved = [
            name
            for name, found in largest.verdicts.items()
            if found.difference is not None and found.outcome == "unresolved"
        ]
        if unresolved:
            return (
                f"{at}, {best.variant} has the lowest loss, but the noise between seeds leaves "
                f"open whether {' or '.join(unresolved)} is worse."
            )
        return f"{at}, no variant has a lower minimum than {best.variant}."
    relative = largest.comparisons[best.variant].relative_difference
    assert relative is not None
    gap = f"{percent(-relative)} below {_of(analysis)}"
    verdict = largest.verdicts.get(best.variant)
    if verdict is not None and verdict.outcome == "better":
        return f"{at}, {best.variant} has the lowest loss: {gap}{_near(analysis, largest)}."
    return (
        f"{at}, {best.variant} has the lowest loss, {gap}, but the noise between seeds leaves "
        "open whether it is better."
    )


def _near(analysis: Analysis, result: BudgetResult) -> str:
    """Return which variants cannot be told from the best one, the baseline left aside."""
    measured = [
        noisy_minimum(analysis.table, one.variant, result.budget_flops)
        for one in result.ranking()
        if one.variant != analysis.baseline
    ]
    near = []
    for other in measured[1:]:
        apart = minimum_difference(other, measured[0])
        if apart is not None and apart[0].interval().ends[0] <= 0:
            near.append(other.variant)
    if not near:
        return ""
    return f"; {' and '.join(near)} cannot be told from it"


def doubts(analysis: Analysis) -> tuple[str, ...]:
    """Return why no verdict stands on this study; empty when one may."""
    found = []
    small = [b.budget_flops for b in analysis.budgets if b.budget_flops < SMALLEST_BUDGET_FLOPS]
    if small:
        few = " and ".join(f"{scientific(budget)} FLOPs" for budget in small)
        found.append(
            f"A budget of {few} is too small: below about {scientific(SMALLEST_BUDGET_FLOPS)} "
            "every run is short of steps, and the order of the variants can turn with the recipe."
        )
    single = [
        f"{variant.name} at {scientific(result.budget_flops)}"
        for result in analysis.budgets
        for variant in analysis.study.variants
        if (ladder := analysis.ladder(variant.name, result.budget_flops))
        and len(min(ladder, key=lambda size: size.loss).seeds) < 2
    ]
    if single:
        found.append(
            "One seed only at the lowest loss of "
            + ", ".join(single)
            + ": the seed alone can move a routed model's loss by more than the variants differ."
        )
    return tuple(found)


def results(analysis: Analysis, result: BudgetResult) -> tuple[str, ...]:
    """Return what the runs of one budget show, a sentence or two per variant."""
    sentences = []
    ranking = result.ranking()
    if ranking:
        sentences.append(_winner(analysis, ranking))
    base = result.headline(analysis.baseline)
    if base is not None and base.loss is None:
        sentences.append(
            f"{analysis.baseline} has no usable minimum: {base.message}. "
            "Without it no difference is stated."
        )
    for name, comparison in result.comparisons.items():
        if base is not None and base.loss is not None:
            sentences.append(_against_baseline(analysis, result, name, comparison))
    spread = _seed_spread(analysis, result)
    if spread is not None:
        sentences.append(spread)
    return tuple(sentences)


def refusals(analysis: Analysis) -> tuple[str, ...]:
    """Return a sentence for each minimum that must not be used."""
    return tuple(
        f"{found.variant} at {scientific(result.budget_flops)} FLOPs: {found.message}."
        for result in analysis.budgets
        for variant in analysis.study.variants
        if (found := result.headline(variant.name)) is not None and found.loss is None
    )


def _winner(analysis: Analysis, ranking: list[CurveMinimum]) -> str:
    best = ranking[0]
    assert best.loss is not None
    assert best.parameters is not None
    text = (
        f"{ranking[0].variant} has the lowest minimum, {best.loss:.4f} {analysis.loss_unit} at "
        f"{count(best.parameters)} parameters"
    )
    if len(ranking) == 1:
        return f"{text}; no other variant has a usable minimum."
    second = ranking[1]
    assert second.loss is not None
    return f"{text}; next is {ranking[1].variant}, {second.loss - best.loss:.4f} higher."


def _against_baseline(
    analysis: Analysis, result: BudgetResult, name: str, comparison: Comparison
) -> str:
    if comparison.difference is None or comparison.relative_difference is None:
        return f"{name} is not compared with {_of(analysis)}: {comparison.reason}."
    verdict = result.verdicts.get(name)
    side = "below" if comparison.difference < 0 else "above"
    share = percent(abs(comparison.relative_difference))
    if verdict is not None and verdict.difference is not None:
        text = f"{sentence(verdict, analysis.loss_unit)} That is {share} of the loss"
    else:
        apart = f"{abs(comparison.difference):.4f} {analysis.loss_unit}"
        text = f"{name} is {apart} ({share}) {side} {_of(analysis)}"
    text += f", at {comparison.parameter_ratio:.2f} times the baseline's parameters."
    if verdict is not None and len(verdict.estimates) > 1:
        text += f" {estimates_sentence(verdict)}"
    match = result.matches[name]
    if isinstance(match, str):
        return f"{text} Forward FLOPs that suffice for the baseline's loss: {match}."
    return (
        f"{text} It reaches the baseline's loss with {percent(match.value, 0)} of the optimal "
        "baseline's forward FLOPs."
    )


def _seed_spread(analysis: Analysis, result: BudgetResult) -> str | None:
    """Return how much the seed moves the loss of baseline and challenger at their best sizes."""
    if analysis.challenger is None:
        return None
    losses = {}
    for name in (analysis.baseline, analysis.challenger):
        sizes = analysis.ladder(name, result.budget_flops)
        best = min(sizes, key=lambda size: size.loss, default=None)
        if best is None or len(best.seeds) < SEEDS_FOR_A_SPREAD or len(set(best.seed_losses)) < 2:
            return None
        losses[name] = best.seed_losses
    base, routed = losses[analysis.baseline], losses[analysis.challenger]
    ratio = spread_ratio(routed, base)
    apart = difference(mean_estimate(routed), mean_estimate(base)).interval()
    spreads = ", ".join(
        f"{spread.words()} for {name} ({len(values)} seeds)"
        for name, values in losses.items()
        for spread in (seed_spread(values),)
    )
    return (
        f"Standard deviation of the loss over seeds at the best size: {spreads}; their ratio is "
        f"{ratio.words('.2f')} (95%, normal "
        f"losses). The means of these seeds are {mean(base):.4f} and {mean(routed):.4f}, a "
        f"difference of {apart.words('+.4f')}."
    )


def _of(analysis: Analysis) -> str:
    return f"the {analysis.baseline}" if analysis.baseline.islower() else analysis.baseline
