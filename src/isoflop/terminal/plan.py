"""What `isoflop plan` prints: every first run, then totals and what may be added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from rich.console import RenderableType
from rich.text import Text

from isoflop.notation import count, exponent
from isoflop.planning import Plan, PlannedRow, Trial, first_of_each_kind
from isoflop.terminal.tables import amount, said, shape, size, table


def plan_tables(plan: Plan, timing: str) -> Iterator[RenderableType]:
    """Yield a table per variant and budget, then the totals and the warnings.

    Args:
        plan: What would be trained.
        timing: Where the expected times come from, or why there are none.
    """
    several_seeds = len({row.seed for row in plan.rows}) > 1
    for title, rows in _groups(plan):
        yield _runs(title, rows, several_seeds)
    yield Text("\n".join(_totals(plan, timing)))
    for warning in _warnings(plan):
        yield said(f"warning: {warning}", "yellow")


def _groups(plan: Plan) -> Iterator[tuple[str, list[PlannedRow]]]:
    """Yield the runs of each table with its title: a variant at a budget, or at its sizes."""
    if plan.scaling:
        for variant in dict.fromkeys(row.variant for row in plan.rows):
            yield variant, [row for row in plan.rows if row.variant == variant]
        return
    for (budget, variant), rows in groupby(plan.rows, lambda row: (row.budget_flops, row.variant)):
        yield f"{variant} at {exponent(budget)} FLOPs", list(rows)


def _runs(title: str, rows: list[PlannedRow], several_seeds: bool) -> RenderableType:
    columns = {
        "run": [row.run_id for row in rows],
        "shape": [f"{row.blocks} x {row.width}" for row in rows],
        "seed": [str(row.seed) for row in rows],
        "rate": [f"{row.learning_rate:g}" for row in rows],
        "params": [count(row.parameters) for row in rows],
        "tokens": [count(row.tokens) for row in rows],
        "steps": [f"{row.steps:,}" for row in rows],
        "epochs": ["?" if row.epochs is None else f"{row.epochs:.2f}" for row in rows],
        "FLOPs": [exponent(row.achieved_flops) for row in rows],
        "memory": [size(row.memory_bytes) for row in rows],
        "time": ["" if row.seconds is None else amount(row.seconds) for row in rows],
    }
    if not several_seeds:
        del columns["seed"]
    if len({row.learning_rate for row in rows}) == 1:
        del columns["rate"]
    if all(row.seconds is None for row in rows):
        del columns["time"]
    return table(title, columns, words=["run"])


def _totals(plan: Plan, timing: str) -> Iterator[str]:
    at_once = f", {plan.workers} at a time" if plan.workers > 1 else ""

    def within(seconds: float | None) -> str:
        return "" if seconds is None else f", {_about(seconds)} in all"

    first = "" if plan.elapsed_seconds is None else f", {_about(plan.elapsed_seconds)}"
    named = "First" if plan.bound.runs else "All"
    yield f"{named}: {len(plan.rows)} runs, {exponent(plan.total_flops)} FLOPs{first}{at_once}"
    if plan.bound.runs:
        yield from _added(plan, within)
    yield f"Counted as {plan.convention!r}. Times: {timing}."


def _about(seconds: float) -> str:
    known = amount(seconds)
    return f"less than {known[2:]}" if known.startswith("<") else f"about {known}"


def _added(plan: Plan, within: Callable[[float | None], str]) -> Iterator[str]:
    bound = plan.bound
    if not plan.scaling:
        yield (
            f"Then usually: {bound.usual_runs} more, {exponent(bound.usual_flops)} FLOPs"
            f"{within(plan.usual_seconds)}"
        )
    yield (
        f"At most: {bound.runs} more ({bound.sizes} sizes, {bound.replicates} further seeds, "
        f"{bound.matched} matched shapes, {bound.checks} checks), {exponent(bound.flops)} FLOPs"
        f"{within(plan.bound_seconds)}"
    )


def _warnings(plan: Plan) -> Iterator[str]:
    """Yield the study's warnings, and of each kind that runs have the first one."""
    yield from plan.warnings
    named = (
        (
            f"{row.variant} at {exponent(row.budget_flops)}, {count(row.parameters)} parameters",
            row.warnings,
        )
        for row in plan.rows
    )
    yield from first_of_each_kind(named, "--json lists them")


def trial_table(made: Sequence[Trial]) -> RenderableType:
    """Return the trials as a table, the best of each variant marked."""
    best: dict[str, float] = {}
    for trial in made:
        if trial.loss is not None:
            best[trial.variant] = min(trial.loss, best.get(trial.variant, trial.loss))
    return table(
        "Trials of the recipe, by loss on the validation split",
        {
            "variant": [trial.variant for trial in made],
            "width / blocks": [f"{trial.width_per_block:g}" for trial in made],
            "learning rate": [f"{trial.learning_rate:g}" for trial in made],
            "blocks x width": [shape(trial.configs[0].model) for trial in made],
            "loss": ["" if trial.loss is None else f"{trial.loss:.4f}" for trial in made],
            "": [
                "best" if trial.loss is not None and trial.loss == best[trial.variant] else ""
                for trial in made
            ],
        },
        names=["variant"],
        words=[""],
    )
