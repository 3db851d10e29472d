"""The adaptive grid of a study: which runs it needs next, given what has finished."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from isoflop.config import Frozen, ModelConfig, RunRecord, Study, Variant
from isoflop.costs import parameters
from isoflop.planning.cell import Cell, PlannedRun, cells
from isoflop.planning.recipe import affordable, resolve
from isoflop.planning.scaling import scaling_runs
from isoflop.planning.search import first_checks

if TYPE_CHECKING:
    from isoflop.fit.compare.verdict import BudgetVerdict

MATCHED_RATIO = 2.0
"""Parameters of the larger baseline whose shape the challenger is trained in, over the optimum's.

Mixture-of-Depths, Figure 3: models 3 and 4 have the shapes of 1, the optimal baseline, and of 2,
a baseline of about twice its size."""


class Bracket(Frozen):
    """Where the minimum of one variant at one budget stands."""

    variant: str
    budget_flops: float
    minimum_parameters: int | None
    """Total parameters of the best size so far; None while nothing has finished."""
    below: int
    """Usable sizes smaller than the best."""
    above: int
    """Usable sizes larger than the best."""
    bracketed: bool
    """Whether both sides have the sizes that the grid asks for."""
    settled: bool
    """Whether the variant needs no further runs of its own at this budget."""


class Bound(Frozen):
    """The runs that a study may add to its first ones."""

    sizes: int = 0
    """Sizes beyond the sides of minima, at most."""
    replicates: int = 0
    """Further seeds, at most: as if every size became the minimum or its neighbour."""
    matched: int = 0
    """Challengers in the shapes of baselines, at most."""
    checks: int
    """Other learning rates and data orders at minima; more when noise moves a minimum meanwhile."""
    flops: float
    """Nominal training FLOPs of all these."""
    usual_runs: int = 0
    """Runs added when the first sizes bracket every minimum and noise moves none."""
    usual_flops: float = 0.0

    @property
    def runs(self) -> int:
        """Runs added, at most."""
        return self.sizes + self.replicates + self.matched + self.checks


def next_runs(study: Study, records: Sequence[RunRecord]) -> list[PlannedRun]:
    """Return the runs that a study needs now and that have no record yet.

    Runs under way are among them, since they have no record. The study is complete when none is
    returned. Diverged and failed runs count as done and are used for no minimum.

    Returns:
        Each run once. Where rates are checked first, the runs for that alone, and nothing more if
        one is stale. Then the first sizes; when a variant's runs at a budget are done, sizes on the
        short sides of its minimum; then further seeds; then checks of the minimum; and, where
        the baseline is settled, the challenger in its shapes; and the next seed of each pair that
        is to be resolved, the pair whose interval is widest first. Of a scaling study, see
        `scaling_runs`.

    Raises:
        ValueError: If a first size cannot be trained within the budget, or the challenger cannot
            be built in the baseline's shapes.
    """
    first = first_checks(study, records)
    missing = {run.config.run_id: run for one in first for run in one.missing}
    if missing or any(one.stale for one in first):
        return list(missing.values())
    done = {record.run_id: record for record in records}
    if study.scaling is not None:
        return [run for run in scaling_runs(study, done) if run.config.run_id not in done]
    everywhere = cells(study, records)
    needed = [run for cell in everywhere for run in cell.needed()]
    matched = [run for cell in everywhere for run in _matched(cell)]
    planned: dict[str, PlannedRun] = {}
    for run in (*needed, *matched, *_resolving(study, everywhere)):
        if run.config.run_id not in done:
            planned.setdefault(run.config.run_id, run)
    return list(planned.values())


def foreseen_runs(study: Study) -> list[PlannedRun]:
    """Return the runs known to be needed before any has a record: rate checks, then first sizes."""
    if not study.checks_first:
        return next_runs(study, [])
    recipe = study.recipe.model_copy(update={"check_first": False})
    runs = [*next_runs(study, []), *next_runs(study.model_copy(update={"recipe": recipe}), [])]
    return list({run.config.run_id: run for run in runs}.values())


def brackets(study: Study, records: Sequence[RunRecord]) -> list[Bracket]:
    """Return where each minimum stands, by budget and variant; a scaling study has none."""
    told = ("budget_flops", "minimum_parameters", "below", "above", "bracketed")
    return [
        Bracket(
            variant=cell.variant.name,
            settled=not cell.needed(),
            **{name: getattr(cell, name) for name in told},
        )
        for cell in cells(study, records)
    ]


def bound(study: Study) -> Bound:
    """Return the most runs that `next_runs` may ever add to a study's `foreseen_runs`.

    Raises:
        ValueError: If the bounds of the grid leave a variant fewer than three sizes.
    """
    rate_runs = study.learning_rate_check_added * study.learning_rate_check_seeds
    if study.scaling is not None:
        # A scaling study only adds learning rates to those asked for.
        runs = [run for run in scaling_runs(study) if run.purpose == "rate"]
        checked = {run.variant: run.budget_flops for run in runs}
        return Bound(checks=rate_runs * len(checked), flops=rate_runs * sum(checked.values()))
    further_seeds, added = len(study.seeds) - 1, study.grid.added_at_most
    everywhere = study.replicate == "all"
    matched = 0 if _challenger(study) is None else 2 * (len(study.seeds) if everywhere else 1)
    orders = sum(seed != order for seed in study.seeds for order in study.data_orders)
    beside = len(study.learning_rate_check) * study.learning_rate_check_seeds + orders
    each = added + beside + rate_runs
    budgets, pairs = len(study.budgets_flops), len(study.budgets_flops) * len(study.variants)
    replicates, flops = 0, matched * sum(study.budgets_flops)
    for cell in cells(study):
        reseeded = (added + (0 if everywhere else len(cell.initial))) * further_seeds
        reseeded += 3 * len(study.added_seeds)
        replicates += reseeded
        flops += (reseeded + each) * cell.budget_flops
    # A grid of fewer sizes cannot have its margin on both sides.
    short = min(added, max(0, 2 * study.grid.margin + 1 - study.grid.sizes))
    reseeded = 0 if everywhere else min(3, study.grid.sizes + added) * further_seeds
    usual = matched + len(study.variants) * (beside + short + reseeded)
    return Bound(
        sizes=pairs * added,
        replicates=replicates,
        matched=budgets * matched,
        checks=pairs * (beside + rate_runs),
        flops=flops,
        usual_runs=budgets * usual,
        usual_flops=usual * sum(study.budgets_flops),
    )


def _resolving(study: Study, everywhere: list[Cell]) -> Iterator[PlannedRun]:
    """Yield the next seed's runs of each pair that the runs so far leave unresolved."""
    if study.until_resolved is None:
        return
    ready = {
        (cell.variant.name, cell.budget_flops): cell
        for cell in everywhere
        if cell.further(study.added_seeds[0]) is not None
    }
    base = study.baseline_variant.name
    if all(name != base for name, _ in ready):
        return
    # Fits take a second to load.
    from isoflop.fit import FitSettings, frame
    from isoflop.fit.compare.verdict import FEW_IN_COMMON, judged

    known = {
        record.run_id: (record, name)
        for (name, _), cell in ready.items()
        for record in cell.finished_of_all()
    }
    table = frame([one for one, _ in known.values()], {i: name for i, (_, name) in known.items()})
    unresolved = [
        one
        for one in judged(table, base, FitSettings().of_study(study))
        if one.outcome == "unresolved"
        and (one.difference or one.reason == FEW_IN_COMMON)
        and {(base, one.budget_flops), (one.variant, one.budget_flops)} <= ready.keys()
    ]
    for one in sorted(unresolved, key=_width, reverse=True):
        pair = [ready[name, one.budget_flops] for name in (base, one.variant)]
        further = (
            [run for cell in pair for run in cell.further(seed) or ()] for seed in study.added_seeds
        )
        yield from next(filter(None, further), ())


def _width(one: BudgetVerdict) -> float:
    """Return that of the interval of a difference, infinite where it has none."""
    low, high = (-math.inf, math.inf) if one.difference is None else one.difference.interval.ends
    return high - low


def _challenger(study: Study) -> Variant | None:
    """Return the variant to train in the baseline's shapes, if the study asks for it."""
    challenger = study.challenger_variant
    wanted = study.matched_shapes and challenger != study.baseline_variant
    return challenger if wanted else None


def _matched(baseline: Cell) -> list[PlannedRun]:
    """Return the challenger's runs in the shapes of a cell, once that is settled.

    None where the study asks for none, and in those of another variant than the baseline.
    """
    study = baseline.study
    challenger = _challenger(study)
    if challenger is None or baseline.variant != study.baseline_variant:
        return []
    for shape in map(baseline.model, baseline.initial):
        if shape.with_choices(challenger) is None:
            raise ValueError(
                f"matched_shapes: the baseline's size of {parameters(shape).total:,} parameters "
                f"has {shape.blocks} blocks, too few for the routing of {challenger.name!r}; "
                "raise shape.minimum_blocks or set matched_shapes = false"
            )
    if not baseline.bracketed or baseline.needed():
        return []
    seeds = study.seeds if study.replicate == "all" else study.seeds[:1]
    budget = baseline.budget_flops
    models = [shape.with_choices(challenger) for shape in _singled_out(baseline)]
    return [
        PlannedRun(challenger.name, resolve(study, challenger, budget, model, seed), "matched")
        for model in models
        if model is not None and affordable(study, challenger, budget, model)
        for seed in seeds
    ]


def _singled_out(baseline: Cell) -> tuple[ModelConfig, ModelConfig]:
    """Return the shapes of the optimal baseline and of the larger one nearest twice its size."""
    assert baseline.minimum is not None
    optimum = baseline.model(baseline.minimum)
    wanted = MATCHED_RATIO * parameters(optimum).total
    larger = [baseline.model(rung) for rung in baseline.mean_losses if rung > baseline.minimum]
    return optimum, min(larger, key=lambda one: abs(math.log(parameters(one).total / wanted)))
