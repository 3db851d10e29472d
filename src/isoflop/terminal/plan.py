"""What `isoflop plan`, `costs` and `search` print: first runs, totals; models; settings found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from isoflop.config import SETTINGS, Study
from isoflop.estimate import NONE, Power
from isoflop.notation import count, exponent, percent, significant
from isoflop.planning import Plan, PlannedRow, Trial, first_of_each_kind
from isoflop.planning.plan import CONVENTIONS, CostRow
from isoflop.terminal.tables import LINES, Cells, amount, said, shape, size, table, told
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.fit.search import SearchResult


def plan_tables(plan: Plan, timing: str, price: float | None = None) -> Iterator[RenderableType]:
    """Yield a table per variant and budget, then the totals and the warnings.

    `timing` is how its times are known, `price` that of an hour of a device.
    """
    several_seeds = len({row.seed for row in plan.rows}) > 1
    for title, rows in _groups(plan):
        yield _runs(title, rows, several_seeds, plan.device == "cuda")
    yield Text("\n".join(_totals(plan, timing, price)))
    if plan.power is not None:
        yield from map(said, power_words(plan.power))
    elif plan.compares:
        yield said(
            "No run tells yet how far seeds move losses, nor what difference this will resolve: "
            "name a study or pilot that was trained with --noise-from."
        )
    for row in plan.rows:
        if row.does_not_fit:
            yield said(f"does not fit: {_named(row)}: {row.does_not_fit}", "yellow")
    named = ((_named(row), row.warnings) for row in plan.rows)
    for warning in (*plan.warnings, *first_of_each_kind(named, "--json lists them")):
        yield said(f"warning: {warning}", "yellow")


def _named(row: PlannedRow) -> str:
    return f"{row.variant} at {exponent(row.budget_flops)}, {count(row.parameters)} parameters"


def _groups(plan: Plan) -> Iterator[tuple[str, list[PlannedRow]]]:
    """Yield the runs of each table with its title: a variant at a budget, or at its sizes."""
    if plan.scaling:
        for variant in dict.fromkeys(row.variant for row in plan.rows):
            yield variant, [row for row in plan.rows if row.variant == variant]
        return
    for (budget, variant), rows in groupby(plan.rows, lambda row: (row.budget_flops, row.variant)):
        yield f"{variant} at {exponent(budget)} FLOPs", list(rows)


def _runs(title: str, rows: list[PlannedRow], several_seeds: bool, on_gpu: bool) -> RenderableType:
    time = "GPU h" if on_gpu else "time"
    cells: Cells[PlannedRow] = {
        "run": lambda row: row.run_id,
        "shape": lambda row: f"{row.blocks} x {row.width}",
        "seed": lambda row: str(row.seed),
        "rate": lambda row: f"{row.learning_rate:g}",
        "params": lambda row: count(row.parameters),
        "tokens": lambda row: count(row.tokens),
        "steps": lambda row: f"{row.steps:,}",
        "epochs": lambda row: "?" if row.epochs is None else f"{row.epochs:.2f}",
        "FLOPs": lambda row: exponent(row.achieved_flops),
        "held": lambda row: "all" if row.micro_batch is None else f"{row.micro_batch} seq.",
        "recompute": lambda row: row.recompute,
        "memory": lambda row: size(row.memory_bytes),
        "steps/s": lambda row: count(row.steps_per_second or 0),
        time: lambda row: _time(row.seconds or 0, on_gpu),
    }
    unknown = all(row.seconds is None for row in rows)
    left_out = {
        "seed": not several_seeds,
        "rate": len({row.learning_rate for row in rows}) == 1,
        "steps/s": unknown,
        time: unknown,
        "FLOPs": all(exponent(row.achieved_flops) in title for row in rows),
        "held": all(row.micro_batch is None for row in rows),
        "recompute": all(row.recompute == "none" for row in rows),
    }
    shown = {name: cell for name, cell in cells.items() if not left_out.get(name)}
    return table(title, rows, shown, words=["run"])


def _time(seconds: float, on_gpu: bool) -> str:
    """Return a time, of a GPU in hours, as they are paid for."""
    if not on_gpu:
        return amount(seconds)
    return significant(seconds / 3600) if seconds >= 36 else "< 0.01"


def _totals(plan: Plan, timing: str, price: float | None) -> Iterator[str]:
    bound = plan.bound
    at_once = f", {plan.workers} at a time" if plan.workers > 1 else ""
    idle = plan.idle_share
    if at_once and idle is not None and idle >= 0.005:
        at_once += f", which are idle for {percent(idle)} of it"

    def about(seconds: float | None, of: str = "") -> str:
        if seconds is None:
            return ""
        known = amount(seconds)
        told = f"less than {known[2:]}" if known.startswith("<") else f"about {known}"
        return f", {told}{of}"

    named = "First" if bound.runs else "All"
    first = about(plan.elapsed_seconds)
    yield f"{named}: {len(plan.rows)} runs, {exponent(plan.total_flops)} FLOPs{first}{at_once}"
    branches = sum(row.parent is not None for row in plan.rows)
    if branches:
        saved = 1 - plan.spent_flops / plan.total_flops
        yield (
            f"Of these FLOPs {exponent(plan.spent_flops)} are spent, {percent(saved)} less: "
            f"{branches} runs share their first steps with shorter ones"
        )
    if bound.runs and not plan.scaling:
        yield (
            f"Then usually: {bound.usual_runs} more, {exponent(bound.usual_flops)} FLOPs"
            f"{about(plan.usual_seconds, ' in all')}"
        )
    if bound.runs:
        yield (
            f"At most: {bound.runs} more ({bound.sizes} sizes, {bound.replicates} further seeds, "
            f"{bound.matched} matched shapes, {bound.checks} checks), {exponent(bound.flops)} FLOPs"
            f"{about(plan.bound_seconds, ' in all')}"
        )
    if plan.gpu_hours and plan.gpu_hours["at_most"] >= 0.01:
        yield _hours(plan, plan.gpu_hours, price)
    if plan.start is not None:
        yield f"Every run starts from {quoted(plan.start)}; FLOPs are counted from there."
    yield f"Counted as {plan.convention!r}. Times: {timing}."


def _hours(plan: Plan, hours: dict[str, float], price: float | None) -> str:
    """Return what the hours of all devices are, and what they cost."""
    told = {"first": " for the first", "usual": " with the usual ones", "at_most": " at most"}
    if not plan.bound.runs:
        told = {"first": ""}
    elif plan.scaling:
        del told["usual"]
    words = ", ".join(f"{significant(hours[name], 4)}{of}" for name, of in told.items())
    costs = ", ".join(significant(hours[name] * (price or 0), 4) for name in told)
    return f"GPU hours: {words}{'' if price is None else f'; at {price:g} an hour {costs}'}"


def power_words(power: Power) -> Iterator[str]:
    """Yield what a study is expected to resolve, and by which noise, in a sentence each."""
    noise, seeds = power.noise, power.seeds
    goal = f"{significant(power.margin, 2)} wants "
    goal += "over 1,000 seeds" if power.margin_seeds is None else f"{power.margin_seeds} seeds"
    if power.looks_from is not None:
        seeds_words = f"up to {seeds} seeds, looked at from {power.looks_from} on,"
        goal += " at one look"
    else:
        seeds_words = "1 seed" if seeds == 1 else f"{seeds} seeds"
    if power.resolves is None:
        yield f"With {seeds_words} no difference will be resolved; {goal}."
    else:
        yield (
            f"With {seeds_words} a difference of {significant(power.resolves, 2)} nats will be "
            f"resolved at 95% in 80% of studies; {goal}."
        )
    paired = ""
    if noise.correlation is not None:
        paired = f" (correlation of paired seeds {noise.correlation:.2f})"
    yield (
        f"Taken to be: losses on a parabola, normal noise of {significant(noise.spread, 2)} as in "
        f"{noise.runs} runs of {power.source}{paired}, one comparison."
    )


def trial_table(made: Sequence[Trial]) -> RenderableType:
    """Return the trials as a table, the best of each variant marked."""
    known = [(trial.loss, trial.variant) for trial in made if trial.loss is not None]
    best = {variant: loss for loss, variant in sorted(known, reverse=True)}
    rates = [trial.learning_rate for trial in made]

    def rank(trial: Trial) -> str:
        end = ", at an end" if trial.learning_rate in (min(rates), max(rates)) else ""
        return f"best{end}" if trial.loss == best.get(trial.variant, math.inf) else ""

    return table(
        "Trials of the recipe, by loss on the validation split",
        made,
        {
            "variant": lambda trial: trial.variant,
            "width / blocks": lambda trial: f"{trial.width_per_block:g}",
            "learning rate": lambda trial: f"{trial.learning_rate:g}",
            "blocks x width": lambda trial: shape(trial.configs[0].model),
            "loss": lambda trial: "" if trial.loss is None else f"{trial.loss:.4f}",
            "": rank,
        },
        names=["variant"],
        words=[""],
    )


def search_tables(study: Study, found: SearchResult) -> Iterator[RenderableType]:
    """Yield a screen of what each setting is best at, what that gains, and the lines to write."""
    done = found.finished
    trials = ", ".join(f"{name}: {done[name]} of {n} finished" for name, n in found.trials.items())
    left = f"; {found.missing} have no record yet" if found.missing else ""
    lines = [f"Trials so far: {trials}{left}."]
    lines += [
        f"{one.variant} at {exponent(one.budget_flops)}: {one.trials} trials, noise "
        f"{'-' if one.spread is None else f'{one.spread:.4f}'}."
        for one in found.recipes
    ]
    toml = toml_lines(study, found)
    best: dict[tuple[str, str, str], str] = {
        (one.variant, setting.setting, exponent(one.budget_flops)): setting.words
        for one in found.recipes
        for setting in one.settings
    }
    laws: dict[tuple[str, str], str] = {
        (one.variant, one.setting): one.exponent.words(".2f") for one in found.laws
    }
    every = list(dict.fromkeys(key[:2] for key in best))
    rows = every[: LINES - 5 - min(len(lines), 7) - min(len(toml) + 1, 16)]
    cells: dict[str, Callable[[tuple[str, str]], str]] = {
        "variant": lambda row: row[0],
        "setting": lambda row: row[1],
    }

    def at(budget: str) -> Callable[[tuple[str, str]], str]:
        return lambda row: best.get((*row, budget), NONE)

    for budget in dict.fromkeys(exponent(one.budget_flops) for one in found.recipes):
        cells[budget] = at(budget)
    if laws:
        cells["exponent"] = lambda row: laws.get(row, NONE)
    if rows:
        yield table("Best values by budget", rows, cells, names=list(cells))
    yield from map(said, lines[:7])
    if toml:
        yield said("To write into the study:", "bold")
        yield from map(said, toml[:15])
    if len(rows) < len(every) or len(lines) > 7 or len(toml) > 15:
        yield said("The rest: --json.")


def toml_lines(study: Study, found: SearchResult) -> list[str]:
    """Return the lines that give each variant what was found."""
    from isoflop.planning.search.contenders import found_variants

    lines = []
    searched = [] if study.search is None else list(study.search.values)
    for variant in found_variants(study, found):
        lines += [f"# {variant.name}"]
        for name in SETTINGS:
            value = getattr(variant, name, None)
            if name in searched and value is not None:
                lines.append(f"{name} = {value:g}" if value < 1e5 else f"{name} = {value}")
        if "width_per_block" in searched and variant.shape is not None:
            fields = variant.shape.model_dump(mode="json", exclude_defaults=True).items()
            lines.append(f"shape = {{ {', '.join(f'{k} = {_toml(v)}' for k, v in fields)} }}")
        if variant.exponents is not None:
            moved = variant.exponents.model_dump(exclude_defaults=True).items()
            lines.append(f"exponents = {{ {', '.join(f'{k} = {v:g}' for k, v in moved)} }}")
    return lines


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.10g}"


PARTS = {
    "attention_projections": "proj.",
    "attention_scores": "scores",
    "block_gate": "gate",
    "feed_forward": "feed-fwd",
    "router": "router",
    "decision_head": "decision",
    "logits": "logits",
    "own": "own",
}
"""Headings of the parts of the forward pass; the embedding is a lookup and costs nothing."""


def cost_tables(rows: Sequence[CostRow]) -> list[Table]:
    """Return sizes, FLOPs by convention and FLOPs by part of the rows' models."""
    first = rows[0]
    forward = [row.forward_parts[row.convention] for row in rows]
    used = [part for part in PARTS if any(one.get(part) for one in forward)]
    model: dict[str, Callable[[CostRow], str]] = {"model": lambda row: row.name}
    if len({row.budget_flops for row in rows}) > 1:
        model["budget"] = lambda row: told(row.budget_flops, exponent)

    def flops(convention: str) -> Callable[[CostRow], str]:
        return lambda row: exponent(row.forward_flops[convention])

    def share(part: str) -> Callable[[CostRow], str]:
        return lambda row: percent(
            row.forward_parts[row.convention].get(part, 0) / row.forward_flops[row.convention]
        )

    sizes: Cells[CostRow] = {
        "shape": lambda row: shape(row.model),
        "total": lambda row: count(row.parameters.total),
        "non-emb.": lambda row: count(row.parameters.non_embedding),
        "active": lambda row: count(row.parameters.active),
        "cache": lambda row: size(row.cache_bytes),
    }
    tables: dict[str, Cells[CostRow]] = {
        "Parameters": sizes,
        f"Forward FLOPs per token at {first.sequence_length} tokens, by convention "
        "(training: three times as many)": {one: flops(one) for one in CONVENTIONS},
        f"Where they go ({first.convention})": {PARTS[part]: share(part) for part in used},
    }
    return [
        table(title, rows, {**model, **cells}, names=["model"]) for title, cells in tables.items()
    ]
