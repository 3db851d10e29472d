"""What `isoflop search` prints: trials of a grid, or what was found of settings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType

from isoflop.config import SETTINGS, Study
from isoflop.fit.search import FoundRecipe, SearchResult
from isoflop.notation import exponent
from isoflop.planning import Trial
from isoflop.planning.search import found_variants
from isoflop.terminal.tables import LINES, said, shape, table_of


def trial_table(made: Sequence[Trial]) -> RenderableType:
    """Return the trials as a table, the best of each variant marked."""
    best: dict[str, float] = {}
    for trial in made:
        if trial.loss is not None:
            best[trial.variant] = min(trial.loss, best.get(trial.variant, trial.loss))
    return table_of(
        "Trials of the recipe, by loss on the validation split",
        made,
        {
            "variant": lambda trial: trial.variant,
            "width / blocks": lambda trial: f"{trial.width_per_block:g}",
            "learning rate": lambda trial: f"{trial.learning_rate:g}",
            "blocks x width": lambda trial: shape(trial.configs[0].model),
            "loss": lambda trial: "" if trial.loss is None else f"{trial.loss:.4f}",
            "": lambda trial: "best" if trial.loss == best.get(trial.variant, math.inf) else "",
        },
        names=["variant"],
        words=[""],
    )


def search_tables(study: Study, found: SearchResult) -> Iterator[RenderableType]:
    """Yield a screen of what each setting is best at, what that gains, and the lines to write."""
    trials = ", ".join(f"{name}: {number}" for name, number in found.trials.items())
    left = f"; {found.missing} have no record yet" if found.missing else ""
    lines = [f"Trials so far: {trials}{left}.", *map(_gained, found.recipes)]
    toml = toml_lines(study, found)
    budgets = list(dict.fromkeys(one.budget_flops for one in found.recipes))
    told: dict[tuple[str, str], dict[float, str]] = {}
    for one in found.recipes:
        for setting in one.settings:
            row = told.setdefault((one.variant, setting.setting), {})
            row[one.budget_flops] = setting.words
    laws = {(one.variant, one.setting): one.exponent.words(".2f") for one in found.laws}
    room = LINES - 5 - min(len(lines), 7) - min(len(toml) + 1, 16)
    rows = list(told)[:room]
    columns: dict[str, Any] = {"variant": lambda row: row[0], "setting": lambda row: row[1]}
    for budget in budgets:
        columns[exponent(budget)] = lambda row, budget=budget: told[row].get(budget, "-")
    if laws:
        columns["exponent"] = lambda row: laws.get(row, "-")
    if rows:
        yield table_of("Best values by budget", rows, columns, names=list(columns))
    yield from map(said, lines[:7])
    if toml:
        yield said("To write into the study:", "bold")
        yield from map(said, toml[:15])
    if len(rows) < len(told) or len(lines) > 7 or len(toml) > 15:
        yield said("The rest: --json.")


def _gained(one: FoundRecipe) -> str:
    told = "not known yet" if one.gained is None else one.gained.words("+.4f")
    return (
        f"{one.variant} at {exponent(one.budget_flops)}: {told} nats gained over the study's own "
        f"recipe, {one.trials} trials, noise {'-' if one.spread is None else f'{one.spread:.4f}'}."
    )


def toml_lines(study: Study, found: SearchResult) -> list[str]:
    """Return the lines that give each variant what was found."""
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
