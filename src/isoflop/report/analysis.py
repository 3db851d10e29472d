"""A study's records, fitted: everything the figures, tables and words are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import ClassVar

import pandas as pd

from isoflop.config import RunRecord, Study
from isoflop.estimate import Estimate
from isoflop.fit import (
    ESTIMATORS,
    FitResult,
    FitSettings,
    VariantFit,
    fit_runs,
    frame,
    training_curves,
)
from isoflop.fit.checks import RateCheck, VarianceComponents, rate_checks, variance_components
from isoflop.fit.compare.verdict import BudgetVerdict, loss_matching
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.settings import Estimator
from isoflop.fit.tables.frame import TrainedSize, budgets, trained_sizes
from isoflop.notation import scientific
from isoflop.papers.claims import Claim, mod_claims
from isoflop.papers.mod import roles
from isoflop.papers.numbered import NumberedModel, numbered_models, optimal_size
from isoflop.report.evidence import Evidence
from isoflop.report.theme import Style

HEADLINE: Estimator = "parabola"
"""Estimator of the minima that the words and the first figure state; fixed beforehand."""

SMALLEST_BUDGET_FLOPS = 5e12
"""Below this every run is short of steps, and the optimum is not a real one."""


@dataclass(frozen=True, kw_only=True)
class Studied:
    """What a report of any study is made from."""

    kind: ClassVar[str]
    """Which templates tell of it."""
    study: Study
    evidence: Evidence
    table: pd.DataFrame
    """The runs that figures show, as `isoflop.fit.frame` makes it, checks left out."""
    records: Mapping[str, RunRecord]
    """By run id, checks included."""
    rates: tuple[RateCheck, ...] = ()
    """Other learning rates tried at one of the sizes."""

    @property
    def baseline(self) -> str:
        """Name of the variant the others are measured against."""
        return self.study.baseline_variant.name

    @property
    def loss_unit(self) -> str:
        """What losses are in."""
        return self.study.data.loss_unit

    @cached_property
    def bits_per_nat(self) -> float | None:
        """Bits per byte of the test text that a nat per token is; None where losses are per byte,
        or ids stand for no text that is known."""
        known = (one.bits_per_nat for one in self.records.values())
        return None if self.study.data.tokenizer == "bytes" else next(filter(None, known), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The variants, in the study's order."""
        return tuple(variant.name for variant in self.study.variants)

    @cached_property
    def style(self) -> Style:
        """Colours and shapes of the variants."""
        return Style.of(self.names, self.baseline)

    def runs_table(self) -> pd.DataFrame:
        """Return every run, as it is written beside the page; `parent` where any has one."""
        runs = [self.records[run_id] for run_id in self.table["run_id"]]
        parents, spent = [run.parent or "" for run in runs], [run.spent_flops for run in runs]
        return self.table.assign(parent=parents, spent_flops=spent) if any(parents) else self.table


@dataclass(frozen=True)
class BudgetResult:
    """What the runs of one budget show."""

    budget_flops: float
    minima: Mapping[tuple[str, Estimator], CurveMinimum]
    """By variant and estimator; refusals included."""
    figure3: tuple[NumberedModel, ...]
    """The four models of the published Figure 3; empty without a challenger."""
    figure4: tuple[NumberedModel, ...]
    matches: Mapping[str, Estimate | str]
    """Share of the baseline's forward FLOPs at which each other has its loss, or why none."""
    verdicts: Mapping[str, BudgetVerdict]
    """What may be said of each other variant against the baseline."""
    claims: tuple[Claim, ...]
    """The published claims, judged; empty where the study has no routed variant."""
    reference: TrainedSize | None
    """The trained baseline with the lowest loss, which figures are relative to."""
    reference_bracketed: bool
    """Whether larger and smaller baselines were trained as well."""

    @property
    def told(self) -> str:
        """The budget in words."""
        return f"{scientific(self.budget_flops)} FLOPs"

    @property
    def is_small(self) -> bool:
        """Whether no verdict stands at this budget, whatever the seeds."""
        return self.budget_flops < SMALLEST_BUDGET_FLOPS

    def headline(self, variant: str) -> CurveMinimum | None:
        """Return a variant's minimum by the headline estimator, or None without finished runs."""
        return self.minima.get((variant, HEADLINE))

    def ranking(self) -> list[CurveMinimum]:
        """Return the usable minima by the headline estimator, the lowest loss first."""
        found = [one for (_, estimator), one in self.minima.items() if estimator == HEADLINE]
        usable = [one for one in found if one.loss is not None]
        return sorted(usable, key=lambda one: one.loss or 0.0)


@dataclass(frozen=True, kw_only=True)
class Analysis(Studied):
    """A study and what its finished runs show, budget by budget."""

    kind = "study"
    estimators: tuple[Estimator, ...]
    """Of the minima, in the order in which they are shown; the headline one comes first."""
    fits: FitResult | None = None
    """Surfaces, laws, noise; None while no run has finished."""
    components: tuple[VarianceComponents, ...] = ()
    """What seeds and data orders vary the loss by."""
    budgets: tuple[BudgetResult, ...] = ()

    @property
    def declared(self) -> pd.DataFrame:
        """Runs of the seeds declared, without those added after a look at these."""
        if self.study.until_resolved is None:
            return self.table
        return self.table[self.table["seed"].isin(self.study.seeds)]

    @property
    def challenger(self) -> str | None:
        """Name of the routed variant singled out, if there is one."""
        variant = self.study.challenger_variant
        return None if variant is None else variant.name

    @property
    def variant_fits(self) -> Mapping[str, VariantFit]:
        """What was fitted to each variant, in the study's order; empty while nothing is."""
        found = self.fits.variants if self.fits else {}
        return {name: found[name] for name in self.names if name in found}

    def sizes(self, variant: str, budget_flops: float) -> tuple[TrainedSize, ...]:
        """Return the trained shapes of a variant at a budget, the smallest first."""
        return self._sizes.get((variant, budget_flops), ())

    @cached_property
    def _sizes(self) -> dict[tuple[str, float], tuple[TrainedSize, ...]]:
        each = product(self.names, budgets(self.table))
        return {(name, budget): trained_sizes(self.table, name, budget) for name, budget in each}

    def ladder(self, variant: str, budget_flops: float) -> tuple[TrainedSize, ...]:
        """Return those of them that are on the variant's own ladder."""
        return tuple(size for size in self.sizes(variant, budget_flops) if size.on_ladder)

    def best(self, variant: str, budget_flops: float) -> TrainedSize | None:
        """Return the one with the lowest loss of these; None without any."""
        return min(self.ladder(variant, budget_flops), key=lambda one: one.loss, default=None)


def analyse(
    study: Study, evidence: Evidence, estimators: tuple[Estimator, ...] = ESTIMATORS
) -> Analysis:
    """Fit the records of a study.

    Args:
        study: what was studied; runs of other budgets are left aside.
        evidence: its records, and what else is told of them.
        estimators: of the minima, `HEADLINE` among them.

    Raises:
        ValueError: a record that belongs to no variant, is listed twice, or lacks its loss.
    """
    kept = [one for one in evidence.records if one.config.budget_flops in study.budgets_flops]
    everything = {**evidence.variant_of, **evidence.checks}
    table = frame(
        [record for record in kept if record.run_id not in evidence.checks],
        evidence.variant_of,
        off_ladder=evidence.off_ladder,
    )
    finished = table[table["state"] == "finished"]
    fits = None
    if len(finished):
        fits = fit_runs(
            table,
            FitSettings(estimators=estimators).of_study(study),
            baseline=study.baseline_variant.name,
            curves=training_curves(kept),
            loss_unit=study.data.loss_unit,
        )
    analysis = Analysis(
        study=study,
        evidence=evidence,
        table=table,
        records={record.run_id: record for record in kept},
        estimators=estimators,
        fits=fits,
        rates=rate_checks(kept, everything, study.learning_rate),
        components=variance_components(kept, everything),
    )
    if fits is None:
        return analysis
    return replace(
        analysis, budgets=tuple(_budget_result(analysis, fits, one) for one in budgets(finished))
    )


def _budget_result(analysis: Analysis, fits: FitResult, budget: float) -> BudgetResult:
    baseline, challenger, table = analysis.baseline, analysis.challenger, analysis.table
    found = [one for one in fits.minima if one.budget_flops == budget]
    minima = {(one.variant, one.estimator): one for one in found}
    others = [name for name in analysis.names if name != baseline and (name, HEADLINE) in minima]
    optimum = minima.get((baseline, HEADLINE))
    reference = analysis.best(baseline, budget)
    numbered = challenger if challenger != baseline and reference else None
    played = roles(analysis.study)
    models: tuple[tuple[NumberedModel, ...], ...] = ((), ())
    if numbered:
        models = numbered_models(table, baseline, numbered, budget_flops=budget)
    return BudgetResult(
        budget_flops=budget,
        minima=minima,
        figure3=models[0],
        figure4=models[1],
        matches={name: loss_matching(table, optimum, name) for name in others} if optimum else {},
        verdicts={one.variant: one for one in fits.verdicts if one.budget_flops == budget},
        # Intervals of claims are those of one look.
        claims=mod_claims(analysis.declared, played, budget_flops=budget) if played else (),
        reference=reference,
        reference_bracketed=optimal_size(table, baseline, budget).model is not None,
    )
