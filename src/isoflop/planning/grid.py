"""The adaptive grid of a study: which runs it needs next, given what has finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isoflop.config import Frozen, ModelConfig, RunRecord, Study, Variant
from isoflop.costs import parameters
from isoflop.planning.cell import Cell, PlannedRun
from isoflop.planning.recipe import affordable, resolve
from isoflop.planning.scaling import possible_scaling_runs, scaling_runs

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

    sizes: int
    """Sizes beyond the sides of minima, at most."""
    replicates: int
    """Further seeds, at most: as if every size became the minimum or its neighbour."""
    matched: int
    """Challengers in the shapes of baselines, at most."""
    checks: int
    """Other learning rates and data orders at minima; more when noise moves a minimum meanwhile."""
    flops: float
    """Nominal training FLOPs of all these."""
    usual_runs: int
    """Runs added when the first sizes bracket every minimum and noise moves none."""
    usual_flops: float

    @property
    def runs(self) -> int:
        """Runs added, at most."""
        return self.sizes + self.replicates + self.matched + self.checks


def next_runs(study: Study, records: Sequence[RunRecord]) -> list[PlannedRun]:
    """Return the runs that a study needs now and that have no record yet.

    Runs under way are among them, since they have no record. The study is complete when none is
    returned. Diverged and failed runs count as done and are used for no minimum.

    Args:
        study: What is asked.
        records: Records at hand, of any study; those of other runs are ignored.

    Returns:
        Each run once: the first sizes; when a variant's runs at a budget are done, sizes on the
        short sides of its minimum; then further seeds; then checks of the minimum; and, where
        the baseline is settled, the challenger in its shapes. Of a scaling study, see
        `scaling_runs`.

    Raises:
        ValueError: If a first size cannot be trained within the budget, or the challenger cannot
            be built in the baseline's shapes.
    """
    if study.scaling is not None:
        return scaling_runs(study, records)
    by_id = {record.run_id: record for record in records}
    planned: dict[str, PlannedRun] = {}
    for budget in study.budgets_flops:
        cells = _cells(study, budget, by_id)
        for cell in cells:
            for run in cell.needed():
                planned.setdefault(run.config.run_id, run)
        for run in _matched(study, budget, cells):
            if run.config.run_id not in by_id:
                planned.setdefault(run.config.run_id, run)
    return list(planned.values())


def brackets(study: Study, records: Sequence[RunRecord]) -> list[Bracket]:
    """Return where each minimum stands, by budget and variant; a scaling study has none."""
    by_id = {record.run_id: record for record in records}
    return [
        Bracket(
            variant=cell.variant.name,
            budget_flops=budget,
            minimum_parameters=(
                None if cell.minimum is None else parameters(cell.model(cell.minimum)).total
            ),
            below=cell.below,
            above=cell.above,
            bracketed=cell.bracketed,
            settled=not cell.needed(),
        )
        for budget in study.budgets_flops
        for cell in _cells(study, budget, by_id)
    ]


def bound(study: Study) -> Bound:
    """Return the most runs that `next_runs` may ever add to a study's first ones.

    Raises:
        ValueError: If the bounds of the grid leave a variant fewer than three sizes.
    """
    rate_runs = study.learning_rate_check_added * study.learning_rate_check_seeds
    if study.scaling is not None:
        return _bound_of_sizes(study, rate_runs)
    further_seeds = len(study.seeds) - 1
    everywhere = study.replicate == "all"
    matched = 2 if _challenger(study) is not None else 0
    orders = sum(seed != order for seed in study.seeds for order in study.data_orders)
    beside = len(study.learning_rate_check) * study.learning_rate_check_seeds + orders
    sizes = replicates = checked = usual_runs = 0
    flops = usual_flops = 0.0
    for budget in study.budgets_flops:
        most = usual = matched
        for cell in _cells(study, budget, {}):
            added = study.grid.added_at_most
            reseeded = added if everywhere else len(cell.initial) + added
            sizes += added
            replicates += reseeded * further_seeds
            checked += beside + rate_runs
            most += added + reseeded * further_seeds + beside + rate_runs
            usual += beside + (0 if everywhere else 3 * further_seeds)
        usual_runs += usual
        flops += most * budget
        usual_flops += usual * budget
    return Bound(
        sizes=sizes,
        replicates=replicates,
        matched=matched * len(study.budgets_flops),
        checks=checked,
        flops=flops,
        usual_runs=usual_runs,
        usual_flops=usual_flops,
    )


def _bound_of_sizes(study: Study, rate_runs: int) -> Bound:
    """Return the bound of a scaling study, which only adds learning rates to those asked for."""
    checked = {
        run.variant: run.budget_flops
        for run in possible_scaling_runs(study)
        if run.purpose == "rate"
    }
    return Bound(
        sizes=0,
        replicates=0,
        matched=0,
        checks=rate_runs * len(checked),
        flops=rate_runs * sum(checked.values()),
        usual_runs=0,
        usual_flops=0,
    )


def _cells(study: Study, budget: float, records: Mapping[str, RunRecord]) -> list[Cell]:
    return [Cell(study, variant, budget, records) for variant in study.variants]


def _challenger(study: Study) -> Variant | None:
    """Return the variant to train in the baseline's shapes, if the study asks for it."""
    challenger = study.challenger_variant
    if not study.matched_shapes or challenger == study.baseline_variant:
        return None
    return challenger


def _matched(study: Study, budget: float, cells: list[Cell]) -> list[PlannedRun]:
    """Return the challenger's runs in the baseline's shapes, once the baseline is settled."""
    challenger = _challenger(study)
    if challenger is None:
        return []
    baseline = next(cell for cell in cells if cell.variant == study.baseline_variant)
    _check_fits(study, challenger, baseline)
    if not baseline.bracketed or baseline.needed():
        return []
    planned = []
    for shape in _singled_out(baseline):
        model = shape.with_choices(challenger)
        if model is None or not affordable(study, budget, model):
            continue
        for seed in study.seeds if study.replicate == "all" else study.seeds[:1]:
            config = resolve(study, challenger, budget, model, seed)
            planned.append(
                PlannedRun(
                    variant=challenger.name,
                    budget_flops=budget,
                    config=config,
                    purpose="matched",
                )
            )
    return planned


def _singled_out(baseline: Cell) -> tuple[ModelConfig, ModelConfig]:
    """Return the shapes of the optimal baseline and of the larger one nearest twice its size."""
    assert baseline.minimum is not None
    optimum = baseline.model(baseline.minimum)
    wanted = MATCHED_RATIO * parameters(optimum).total

    def distance(model: ModelConfig) -> float:
        ratio = parameters(model).total / wanted
        return max(ratio, 1 / ratio)

    larger = [baseline.model(rung) for rung in baseline.mean_losses if rung > baseline.minimum]
    return optimum, min(larger, key=distance)


def _check_fits(study: Study, challenger: Variant, baseline: Cell) -> None:
    for rung in baseline.initial:
        shape = baseline.model(rung)
        if shape.with_choices(challenger) is None:
            raise ValueError(
                f"matched_shapes: the baseline's size of {parameters(shape).total:,} parameters "
                f"has {shape.blocks} blocks, too few for the routing of {challenger.name!r}; "
                "raise shape.minimum_blocks or set matched_shapes = false"
            )
