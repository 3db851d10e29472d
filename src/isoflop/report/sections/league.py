"""All variants in one ranking: loss with intervals that hold together, and what each one costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from isoflop.config import RunRecord
from isoflop.costs import cache_bytes
from isoflop.estimate import Estimate
from isoflop.fit.compare.league import League, league
from isoflop.fit.curves.seeds import noisy_minimum
from isoflop.memory import estimate_memory
from isoflop.notation import count, duration, scientific, significant
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.words.prose import told

FEWEST = 3
"""Variants that make a league; of two the result tells all."""
_COMPUTE, _FORWARD = "Compute for the baseline's loss", "Forward FLOPs for the baseline's loss"


def section(analysis: Analysis) -> blocks.Section | None:
    """Return the ranking in words, figures and a table; None for two variants or no runs."""
    if len(analysis.names) < FEWEST or analysis.fits is None:
        return None
    # By the seeds declared: intervals are those of one look.
    table, names, at = analysis.declared, analysis.names, analysis.budgets
    minima = [[noisy_minimum(table, name, one.budget_flops) for name in names] for one in at]
    leagues = [league(one, analysis.baseline, level=analysis.fits.level) for one in minima]
    parts: list[blocks.Block] = []
    for result, found in zip(analysis.budgets, leagues, strict=True):
        if len(leagues) > 1:
            parts.append(blocks.Heading(result.told))
        parts.append(blocks.Sentences(_words("ranking", analysis, found)))
    shown = rows(analysis, leagues)
    several = [own for _, own in shown.groupby("budget_flops") if len(own) > 1]
    if several:
        panels = [_losses(analysis, several[-1]), _compute(analysis, several[-1])]
        parts.append(blocks.Pair(panels))
        apart = shown.dropna(subset=["difference"])
        if apart["budget_flops"].nunique() > 1:
            parts.append(_budgets(analysis, apart))
        parts.append(_table(analysis, shown))
    return blocks.Section("League", parts)


def rows(analysis: Analysis, leagues: Sequence[League]) -> pd.DataFrame:
    """Return a row per budget and ranked variant, the lowest loss first.

    Columns: `budget_flops`, `first` and `last` place, `variant`; with ends `loss`, `difference`,
    `multiplier` and `forward_share` (compute and forward FLOPs for the baseline's loss);
    `seed_spread`; at the minimum `parameters`, `active`, `forward_flops` and `cache_bytes` per
    token, `memory_bytes`, `steps_per_second`, `seconds`; `loss_at_equal_time`, the baseline's.
    """
    found = []
    for result, of_budget in zip(analysis.budgets, leagues, strict=True):
        for place in of_budget.places:
            name, verdict = place.variant, result.verdicts.get(place.variant)
            one = Estimate(value=1.0) if name == analysis.baseline else None
            multiplier = verdict.multiplier.interval if verdict and verdict.multiplier else one
            share = verdict.forward_fraction if verdict else one
            found.append(
                {
                    "budget_flops": result.budget_flops,
                    "first": place.first,
                    "last": place.last,
                    "variant": name,
                    **blocks.with_columns("loss", place.loss),
                    **blocks.with_columns("difference", place.difference),
                    **blocks.with_columns("multiplier", multiplier),
                    **blocks.with_columns("forward_share", share),
                    "seed_spread": place.seed_spread,
                    **_at_minimum(analysis, result, name),
                    **_measured(analysis, result, name),
                }
            )
    if not found:
        return pd.DataFrame({"budget_flops": []})
    kinds = dict.fromkeys(("first", "last"), "Int64")
    kinds |= dict.fromkeys(("steps_per_second", "seconds"), "float64")
    table = pd.DataFrame(found).astype(kinds)
    base = table[table["variant"] == analysis.baseline].set_index("budget_flops")["seconds"]
    own = {name: own.sort_values("seconds") for name, own in table.groupby("variant")}
    asked = zip(table["variant"], table["budget_flops"].map(base), strict=True)
    return table.assign(loss_at_equal_time=[_loss_in(own[name], time) for name, time in asked])


def _measured(analysis: Analysis, result: BudgetResult, name: str) -> dict[str, float | None]:
    """Return measured speed and the seconds of a run, of the size with the lowest mean."""
    best, speed, steps = analysis.best(name, result.budget_flops), None, 0
    if best is not None:
        run = analysis.records[best.run_ids[0]]
        steps, flops = run.config.steps, run.train_flops[analysis.study.convention]
        speed = analysis.evidence.steps_per_second(name, best.parameters, flops / steps)
    return {"steps_per_second": speed, "seconds": steps / speed if speed else None}


def _at_minimum(analysis: Analysis, result: BudgetResult, name: str) -> dict[str, float | None]:
    """Return what is at a variant's minimum, between sizes by lines in log-log space."""
    at, ladder = result.headline(name), analysis.ladder(name, result.budget_flops)
    size = math.nan if at is None or at.parameters is None else at.parameters
    sizes = [math.log(one.parameters) for one in ladder]
    costs = pd.DataFrame([_costs(analysis.records[one.run_ids[0]]) for one in ladder])
    logs = np.log(costs.replace(0, math.nan))
    between = [math.exp(np.interp(math.log(size), sizes, logs[one])) for one in logs]
    found = dict(zip(costs.columns, between, strict=True))
    return {"parameters": size, "forward_flops": at.forward_flops if at else None, **found}


def _costs(record: RunRecord) -> dict[str, float]:
    """Return what a model costs; NaN where the file of a variant of one's own is not at hand."""
    config, made = record.config, record.environment
    length, cache, memory = config.data.sequence_length, math.nan, math.nan
    how: dict[str, Any] = {"micro_batch": made.micro_batch, "device": made.device}
    with suppress(ValueError):
        cache = cache_bytes(config.model, length) / length
        memory = estimate_memory(config, recompute=made.recompute, **how).total_bytes
    return {"active": record.parameters.active, "cache_bytes": cache, "memory_bytes": memory}


def _loss_in(own: pd.DataFrame, seconds: float) -> float:
    """Return a variant's loss at a time by its minima, NaN with one budget.

    Log loss is a line in log seconds between and beyond those of two budgets, as of multipliers.
    """
    x, y = np.log(own[["seconds", "loss"]].dropna().to_numpy(dtype=float)).T
    if len(x) < 2 or not math.isfinite(seconds):
        return math.nan
    after = int(np.clip(np.searchsorted(x, math.log(seconds)), 1, len(x) - 1))
    slope = (y[after] - y[after - 1]) / (x[after] - x[after - 1])
    return math.exp(y[after] + slope * (math.log(seconds) - x[after]))


def _losses(analysis: Analysis, table: pd.DataFrame) -> draw.Panel:
    """Draw the minimum of each variant, the lowest at the top."""
    title = f"Ranking at {scientific(table['budget_flops'].iloc[0])} FLOPs"
    of = ("variant", "loss", f"Test loss at the minimum, {analysis.loss_unit}")
    base = table.loc[table["variant"] == analysis.baseline, "loss"]
    line, colour = next(iter(base), None), analysis.style.colour(legend=False)
    named = ("league-losses", title, _words("losses", analysis)[0])
    return draw.intervals(named, table, of, colour, at=line)


def _compute(analysis: Analysis, table: pd.DataFrame) -> draw.Panel:
    """Draw compute for the baseline's loss over the baseline's; with one budget forward FLOPs."""
    others = table[table["variant"] != analysis.baseline]
    known = others["multiplier"].notna().any()
    column, title = ("multiplier", _COMPUTE) if known else ("forward_share", _FORWARD)
    if others[column].isna().all():
        return draw.Absent(title, _words("nowhere", analysis)[0])
    of, colour = ("variant", column, f"{title} / baseline's"), analysis.style.colour(legend=False)
    named = ("league-compute", title, _words(column, analysis)[0])
    return draw.intervals(named, table, of, colour, form=".2f", at=1.0)


def _budgets(analysis: Analysis, table: pd.DataFrame) -> draw.Panel:
    """Draw each variant's difference to the baseline against the budget."""
    axis = f"Loss less that of {analysis.baseline}, {analysis.loss_unit}"
    ends = [0.0, *table[["difference_low", "difference_high"]].melt()["value"]]
    ticks = sorted(set(table["budget_flops"]))
    label = {"labelExpr": draw.POWER_LABEL}
    base = alt.Chart().encode(
        x=draw.log_axis("budget_flops", "Budget, FLOPs", ticks, 1.3, ticks, **label),
        y=draw.linear_axis(alt.Y, "difference", axis, ends),
        color=analysis.style.colour(),
        tooltip=draw.told("variant budget_flops:~e difference:+.4f"),
    )
    layers = [
        draw.rule(0.0, y=axis),
        base.mark_line(strokeWidth=1.2, strokeOpacity=0.7),
        base.mark_rule(strokeWidth=2).encode(
            y=alt.Y("difference_low:Q", title=axis), y2=alt.Y2("difference_high:Q")
        ),
        base.mark_point(filled=True, size=70, opacity=1),
    ]
    named = ("league-budgets", "Difference to the baseline against budget")
    return draw.figure(*named, _words("budgets", analysis)[0], layers, table, height=320)


def _table(analysis: Analysis, shown: pd.DataFrame) -> blocks.Table:
    several = len(analysis.budgets) > 1
    found: list[blocks.Row] = []
    for budget, own in shown.groupby("budget_flops", sort=False):
        cells = [_cells(row, several) for row in own.to_dict("records")]
        if several:
            first, *others = cells[0]
            whole = blocks.Wide(f"{scientific(float(str(budget)))} FLOPs", len(cells[0]))
            found.append({first: whole, **dict.fromkeys(others)})
        found += cells
    caption = _words("table", analysis, shown["seconds"].notna().any(), several)[0]
    return blocks.table(caption, found, csv="league", data=shown)


def _cells(row: Mapping[Any, Any], several: bool) -> dict[str, blocks.Text]:
    def number(column: str, form: str | Callable[[float], str], unit: str = "") -> str:
        told = blocks.number(row[column], form)
        return told if told == blocks.NONE else told + unit

    def estimate(column: str, form: str) -> blocks.Text:
        low, high = (number(f"{column}_{end}", form) for end in ("low", "high"))
        ends = None if blocks.NONE in (low, high) else f"[{low}, {high}]"
        return blocks.with_ends(number(column, form), ends)

    first, last = number("first", "d"), number("last", "d")
    title, column = ("Compute", "multiplier") if several else ("Forward", "forward_share")
    equal = number("loss_at_equal_time", ".4f", " in equal") if several else None
    return {
        "#Place": first if first == last else f"{first} to {last}",
        ".Variant": blocks.variant(str(row["variant"])),
        "#Loss": number("loss", ".4f"),
        "#Difference": estimate("difference", "+.4f"),
        f"#{title}": estimate(column, ".2f"),
        "#Parameters": blocks.with_ends(
            number("active", count, " active"), number("parameters", count, " in all")
        ),
        "#A token": blocks.with_ends(
            number("forward_flops", lambda one: scientific(one, 3, trim=False), " FLOPs"),
            number("cache_bytes", ",.0f", " B of cache"),
        ),
        "#A step": blocks.with_ends(
            number("memory_bytes", lambda one: significant(one / 1e6), " MB"),
            number("steps_per_second", significant, " a second"),
        ),
        "#Time": blocks.with_ends(number("seconds", duration), equal),
    }


def _words(macro: str, analysis: Analysis, *more: object) -> tuple[str, ...]:
    return told("league", macro, analysis, *more)
