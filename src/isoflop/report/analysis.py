"""A study's records, fitted: everything the figures, tables and words are made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from isoflop.config import RunRecord, Study
from isoflop.fit import ESTIMATORS, FitResult, FitSettings, fit_runs, frame, training_curves
from isoflop.fit.checks import RateCheck, VarianceComponents, rate_checks, variance_components
from isoflop.fit.claims import Claim, Roles, mod_claims
from isoflop.fit.compare.matching import Comparison, LossMatch, compare, loss_matching
from isoflop.fit.compare.verdict import BudgetVerdict
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.minima.noise import RunNoise
from isoflop.fit.numbered import NumberedModel, figure3_models, figure4_models, optimal_size
from isoflop.fit.results import MinimumInterval
from isoflop.fit.settings import Estimator
from isoflop.fit.tables.frame import TrainedSize, trained_sizes
from isoflop.report.published import counterparts

HEADLINE: Estimator = "parabola"
"""Estimator of the minima that the words and the first figure state; fixed beforehand."""

SMALLEST_BUDGET_FLOPS = 5e12
"""Below this every run is short of steps, and the optimum is not a real one."""


@dataclass(frozen=True)
class BudgetResult:
    """What the runs of one budget show."""

    budget_flops: float
    minima: Mapping[tuple[str, Estimator], CurveMinimum]
    """By variant and estimator; refusals included."""
    figure3: tuple[NumberedModel, ...]
    """The four models of the published Figure 3; empty without a challenger."""
    figure4: tuple[NumberedModel, ...]
    comparisons: Mapping[str, Comparison]
    """Each other variant's minimum against the baseline's."""
    matches: Mapping[str, LossMatch]
    """How few forward FLOPs of each other variant reach the baseline's loss."""
    verdicts: Mapping[str, BudgetVerdict]
    """What may be said of each other variant against the baseline."""
    intervals: Mapping[tuple[str, Estimator], MinimumInterval]
    """Of the minima, by variant and estimator, where the runs tell one."""
    claims: tuple[Claim, ...]
    """The published claims, judged; empty where the study has no routed variant."""
    reference: TrainedSize | None
    """The trained baseline with the lowest loss, which figures are relative to."""
    reference_bracketed: bool
    """Whether larger and smaller baselines were trained as well."""

    def headline(self, variant: str) -> CurveMinimum | None:
        """Return a variant's minimum by the headline estimator, or None without finished runs."""
        return self.minima.get((variant, HEADLINE))

    def ranking(self) -> list[CurveMinimum]:
        """Return the usable minima by the headline estimator, the lowest loss first."""
        usable = [
            found
            for (_, estimator), found in self.minima.items()
            if estimator == HEADLINE and found.minimum.loss is not None
        ]
        return sorted(usable, key=lambda found: found.minimum.loss or 0.0)


@dataclass(frozen=True)
class Analysis:
    """A study and what its finished runs show, budget by budget."""

    study: Study
    table: pd.DataFrame
    """As `isoflop.fit.frame` makes it."""
    records: Mapping[str, RunRecord]
    """By run id."""
    estimators: tuple[Estimator, ...]
    """Of the minima, in the order in which they are shown; the headline one comes first."""
    fits: FitResult | None = None
    """Surfaces, laws, noise; None while no run has finished."""
    rates: tuple[RateCheck, ...] = ()
    """Other learning rates tried at minima."""
    components: tuple[VarianceComponents, ...] = ()
    """What seeds and data orders vary the loss by."""
    budgets: tuple[BudgetResult, ...] = ()

    @property
    def baseline(self) -> str:
        """Name of the variant the others are measured against."""
        return self.study.baseline_variant.name

    @property
    def challenger(self) -> str | None:
        """Name of the routed variant singled out, if there is one."""
        variant = self.study.challenger_variant
        return None if variant is None else variant.name

    @property
    def loss_unit(self) -> str:
        """What losses are in."""
        return self.study.data.loss_unit

    def noise(self, variant: str, budget_flops: float) -> RunNoise | None:
        """Return how far a curve's runs scatter, where they tell it."""
        fit = self.fits.variants.get(variant) if self.fits else None
        return fit.noise.get(f"{budget_flops:.6g}") if fit else None

    def sizes(self, variant: str, budget_flops: float) -> tuple[TrainedSize, ...]:
        """Return the trained shapes of a variant at a budget, the smallest first."""
        return trained_sizes(self.table, variant, budget_flops)

    def ladder(self, variant: str, budget_flops: float) -> tuple[TrainedSize, ...]:
        """Return those of them that are on the variant's own ladder."""
        return tuple(size for size in self.sizes(variant, budget_flops) if size.on_ladder)


def analyse(
    study: Study,
    records: Sequence[RunRecord],
    variant_of: Mapping[str, str],
    off_ladder: Collection[str] = (),
    estimators: tuple[Estimator, ...] = ESTIMATORS,
    checks: Mapping[str, str] | None = None,
) -> Analysis:
    """Fit what `records` hold.

    Args:
        study: what was studied; runs of other budgets are left aside.
        records: outcomes of its runs.
        variant_of: name of the variant of each run id.
        off_ladder: run ids of shapes that are not of their variant's own ladder.
        estimators: of the minima, `HEADLINE` among them.
        checks: name of the variant of each run that checks a minimum; no fit uses it.

    Raises:
        ValueError: a record that belongs to no variant, is listed twice, or lacks its loss.
    """
    kept = [record for record in records if record.config.budget_flops in study.budgets_flops]
    beside = checks or {}
    everything = {**variant_of, **beside}
    table = frame(
        [record for record in kept if record.run_id not in beside],
        variant_of,
        off_ladder=off_ladder,
    )
    by_id = {record.run_id: record for record in kept}
    finished = table[table["state"] == "finished"]
    fits = None
    if len(finished):
        fits = fit_runs(
            table,
            FitSettings(estimators=estimators, margin=study.equivalence_margin),
            baseline=study.baseline_variant.name,
            curves=training_curves(kept),
            loss_unit=study.data.loss_unit,
        )
    found = fits.curve_minima() if fits else ()
    analysis = Analysis(
        study,
        table,
        by_id,
        estimators,
        fits,
        rates=rate_checks(kept, everything, study.learning_rates()),
        components=variance_components(kept, everything),
    )
    budgets = sorted(set(finished["budget_flops"].tolist()))
    results = tuple(_budget_result(analysis, budget, found) for budget in budgets)
    return replace(analysis, budgets=results)


def _budget_result(
    analysis: Analysis, budget: float, found: Sequence[CurveMinimum]
) -> BudgetResult:
    baseline, challenger, table = analysis.baseline, analysis.challenger, analysis.table
    here = {
        (one.variant, one.minimum.estimator): one for one in found if one.budget_flops == budget
    }
    others = [
        variant.name
        for variant in analysis.study.variants
        if variant.name != baseline and (variant.name, HEADLINE) in here
    ]
    optimum = here.get((baseline, HEADLINE))
    ladder = analysis.ladder(baseline, budget)
    roles = _roles(analysis.study)
    numbered = challenger is not None and challenger != baseline and bool(ladder)
    return BudgetResult(
        budget_flops=budget,
        minima=here,
        figure3=figure3_models(table, baseline, challenger, budget_flops=budget)
        if numbered and challenger
        else (),
        figure4=figure4_models(table, baseline, challenger, budget_flops=budget)
        if numbered and challenger
        else (),
        comparisons={name: compare(optimum, here[name, HEADLINE]) for name in others}
        if optimum
        else {},
        matches={name: loss_matching(table, optimum, name) for name in others} if optimum else {},
        verdicts={one.variant: one for one in _compared(analysis) if one.budget_flops == budget},
        intervals=_intervals(analysis, budget),
        claims=_claims(table, roles, budget) if roles else (),
        reference=min(ladder, key=lambda size: size.loss, default=None),
        reference_bracketed=optimal_size(table, baseline, budget).model is not None,
    )


def _compared(analysis: Analysis) -> tuple[BudgetVerdict, ...]:
    return analysis.fits.verdicts if analysis.fits else ()


def _intervals(
    analysis: Analysis, budget: float
) -> Mapping[tuple[str, Estimator], MinimumInterval]:
    fits = analysis.fits.variants if analysis.fits else {}
    return {
        (name, one.estimator): one.interval
        for name, fit in fits.items()
        for one in fit.minima
        if one.budget_flops == budget and one.interval is not None
    }


def _roles(study: Study) -> Roles | None:
    """Return which variant plays which part in the published claims."""
    known = counterparts(study)
    challenger = study.challenger_variant
    sparse = known.get("mod") or (challenger.name if challenger else None)
    if sparse is None or sparse == known["baseline"]:
        return None
    return Roles(
        baseline=known["baseline"],
        sparse=sparse,
        dense=known.get("mod_50_every_2"),
        random=known.get("mod_50_random_every_2"),
    )


def _claims(table: pd.DataFrame, roles: Roles, budget: float) -> tuple[Claim, ...]:
    """Judge the claims about variants that the study has."""
    needed = (
        (roles.sparse,),
        (roles.dense,),
        (roles.sparse,),
        (roles.random,),
        (roles.sparse, roles.dense),
        (roles.sparse,),
    )
    judged = mod_claims(table, roles, budget_flops=budget)
    return tuple(claim for claim, names in zip(judged, needed, strict=True) if None not in names)
