"""All variants in one ranking: loss with intervals that hold together, and what each one costs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from statistics import mean

import altair as alt
import numpy as np
import pandas as pd

from isoflop.config import RunRecord
from isoflop.costs import cache_bytes
from isoflop.estimate import Estimate
from isoflop.fit.compare.league import League, Place, league
from isoflop.fit.curves.seeds import noisy_minimum
from isoflop.memory import estimate_memory
from isoflop.notation import count, duration, exponent, scientific, significant
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.theme import INK, MUTED
from isoflop.report.words.prose import told

FEWEST = 3
"""Variants that make a league; of two the result tells all."""
_ROW = 46
_NAME_WIDTH = 17


def section(analysis: Analysis) -> blocks.Section | None:
    """Return the ranking in words, figures and a table; None for two variants or no runs."""
    if len(analysis.names) < FEWEST or not analysis.budgets:
        return None
    leagues = [ranked(analysis, result) for result in analysis.budgets]
    parts: list[blocks.Block] = []
    for result, found in zip(analysis.budgets, leagues, strict=True):
        if len(leagues) > 1:
            parts.append(blocks.Heading(result.told))
        parts.append(blocks.Sentences(_words("ranking", analysis, found)))
    shown = rows(analysis, leagues)
    if shown.empty:
        return blocks.Section("League", parts)
    largest = shown[shown["budget_flops"] == shown["budget_flops"].max()]
    parts.append(blocks.Pair([_losses(analysis, largest), _multipliers(analysis, largest)]))
    if shown["budget_flops"].nunique() > 1:
        parts.append(_budgets(analysis, shown))
    return blocks.Section("League", [*parts, _table(analysis, shown)])


def ranked(analysis: Analysis, result: BudgetResult) -> League:
    """Return the ranking at a budget, by the seeds declared: its intervals are of one look."""
    table, level = analysis.declared, analysis.fits.level if analysis.fits else 0.95
    found = [noisy_minimum(table, name, result.budget_flops) for name in analysis.names]
    return league(found, analysis.baseline, level=level)


def rows(analysis: Analysis, leagues: Sequence[League]) -> pd.DataFrame:
    """Return a row per budget and ranked variant, the lowest loss first.

    Columns: `budget_flops`, `first` and `last` place that it may have, `variant`; `loss` and
    `difference` with their ends; `multiplier` (compute) and `forward_share` (FLOPs of a forward
    pass) for the baseline's loss, with theirs; and at the minimum `parameters`, `active`,
    `forward_flops` and `cache_bytes` per token, `memory_bytes`, `steps_per_second`, `seconds`, and
    `loss_at_equal_time`, in the baseline's seconds; `seed_spread`. What is not known is missing.
    """
    timed = _one_machine(analysis)
    found = [
        _row(analysis, result, place, timed)
        for result, of_budget in zip(analysis.budgets, leagues, strict=True)
        for place in of_budget.places
    ]
    table = pd.DataFrame(found)
    if not found:
        return table
    table["loss_at_equal_time"] = [
        _loss_in(table, row["variant"], _seconds(table, analysis.baseline, row["budget_flops"]))
        for row in found
    ]
    return table.astype({"first": "Int64", "last": "Int64"})


def _row(
    analysis: Analysis, result: BudgetResult, place: Place, timed: bool
) -> dict[str, object]:
    name = place.variant
    verdict = result.verdicts.get(name)
    multiplier = verdict.multiplier.interval if verdict and verdict.multiplier else None
    share = verdict.forward_fraction if verdict else None
    if name == analysis.baseline:
        share, multiplier = Estimate(value=1.0), Estimate(value=1.0)
    at = result.headline(name)
    size = math.nan if at is None or at.parameters is None else at.parameters

    def between(measure: Callable[[RunRecord], float | None]) -> float:
        return _between(analysis, result, name, size, measure)

    return {
        "budget_flops": result.budget_flops,
        "first": place.first,
        "last": place.last,
        "variant": name,
        **blocks.with_columns("loss", place.interval),
        **blocks.with_columns("difference", place.difference),
        **blocks.with_columns("multiplier", multiplier),
        **blocks.with_columns("forward_share", share),
        "parameters": size,
        "active": between(lambda one: one.parameters.active),
        "forward_flops": at.forward_flops if at else None,
        "cache_bytes": between(_cache),
        "memory_bytes": between(_memory),
        "steps_per_second": between(_speed) if timed else math.nan,
        "seconds": between(_whole_seconds) if timed else math.nan,
        "seed_spread": place.seed_spread,
    }


def _between(
    analysis: Analysis,
    result: BudgetResult,
    name: str,
    parameters: float,
    measure: Callable[[RunRecord], float | None],
) -> float:
    """Return what runs have at a size, by lines in log-log space between the sizes trained."""
    ladder = analysis.ladder(name, result.budget_flops)
    values = [[measure(analysis.records[run_id]) for run_id in one.run_ids] for one in ladder]
    if not ladder or not all(value for own in values for value in own):
        return math.nan
    means = [math.log(mean(value for value in own if value)) for own in values]
    sizes = [math.log(one.parameters) for one in ladder]
    return math.exp(np.interp(np.log(parameters), sizes, means))


def _cache(record: RunRecord) -> float | None:
    """Return bytes of cache per token in bf16, None where a variant's own file is not at hand."""
    length = record.config.data.sequence_length
    try:
        return cache_bytes(record.config.model, length) / length
    except ValueError:
        return None


def _memory(record: RunRecord) -> float | None:
    """Return what a training step was estimated to hold, bytes."""
    made = record.environment
    how = {"micro_batch": made.micro_batch, "device": made.device}
    try:
        return estimate_memory(record.config, recompute=made.recompute, **how).total_bytes
    except ValueError:
        return None


def _speed(record: RunRecord) -> float | None:
    """Return steps over the seconds of these, as the run was trained."""
    return (record.config.steps - record.parent_step) / record.seconds if record.seconds else None


def _whole_seconds(record: RunRecord) -> float | None:
    """Return the seconds of all steps at a run's speed, those of a parent too."""
    speed = _speed(record)
    return record.config.steps / speed if speed else None


def _one_machine(analysis: Analysis) -> bool:
    """Return whether all runs that are shown come from machines that call themselves the same."""
    runs = [analysis.records[run_id] for run_id in analysis.table["run_id"]]
    made = [one for run in runs for one in (run.environment, *run.resumed_under)]
    return len({(e.machine, e.device, e.threads, e.ranks, e.compiled) for e in made}) == 1


def _seconds(table: pd.DataFrame, variant: str, budget: float) -> float:
    own = table[(table["variant"] == variant) & (table["budget_flops"] == budget)]
    return float(own["seconds"].iloc[0]) if len(own) else math.nan


def _loss_in(table: pd.DataFrame, variant: str, seconds: float) -> float:
    """Return the loss of a variant's minima at a time: between and beyond those of two budgets.

    Log loss is a line in log seconds, as compute multipliers have it. NaN with one budget.
    """
    own = table[table["variant"] == variant].dropna(subset=["seconds"]).sort_values("seconds")
    if len(own) < 2 or not math.isfinite(seconds):
        return math.nan
    x, y = np.log(own["seconds"].to_numpy()), np.log(own["loss"].to_numpy())
    after = int(np.clip(np.searchsorted(x, math.log(seconds)), 1, len(x) - 1))
    slope = (y[after] - y[after - 1]) / (x[after] - x[after - 1])
    return math.exp(y[after] + slope * (math.log(seconds) - x[after]))


def _losses(analysis: Analysis, shown: pd.DataFrame) -> draw.Panel:
    """Draw the minimum of each variant, the lowest at the top."""
    table = _named(shown)
    axis = f"Test loss at the minimum, {analysis.loss_unit}"
    ends = table[["loss", "loss_low", "loss_high"]].melt()["value"].dropna()
    x = draw.linear_axis(alt.X, "loss", axis, ends, tickCount=4)
    base = alt.Chart().encode(
        x=x,
        y=draw.names_axis("name", table["name"].tolist()),
        color=analysis.style.colour(legend=False),
    )
    base_loss = table.loc[table["variant"] == analysis.baseline, "loss"].tolist()
    tooltip = draw.told("variant first last loss:.4f loss_low:.4f loss_high:.4f")
    layers = [
        *(draw.rule(one, x=axis) for one in base_loss),
        base.transform_filter("isValid(datum.loss_low)")
        .mark_rule(strokeWidth=2.4, strokeOpacity=0.75)
        .encode(x=alt.X("loss_low:Q", title=axis), x2=alt.X2("loss_high:Q")),
        base.mark_point(filled=True, size=85, opacity=1).encode(tooltip=tooltip),
        *(
            base.mark_text(dy=-12, fontSize=10.5, **look).encode(
                text=alt.Text("loss:Q", format=".4f"), color=alt.ColorValue(INK)
            )
            for look in ({"stroke": "white", "strokeWidth": 4}, {})
        ),
    ]
    named = ("league-losses", f"Ranking at {_at(shown)} FLOPs", _words("losses", analysis)[0])
    height = _ROW * (len(table) + 1)
    return draw.figure(*named, layers, table, height=height, width=draw.HALF_WIDTH)


def _multipliers(analysis: Analysis, shown: pd.DataFrame) -> draw.Panel:
    """Draw compute for the baseline's loss over the baseline's; with one budget forward FLOPs."""
    others = shown[shown["variant"] != analysis.baseline]
    column = "multiplier" if others["multiplier"].notna().any() else "forward_share"
    title = {
        "multiplier": "Compute for the baseline's loss",
        "forward_share": "Forward FLOPs for the baseline's loss",
    }[column]
    if others[column].isna().all():
        return draw.Absent(title, _words("no_multiplier", analysis)[0])
    table, low, high = _named(shown), f"{column}_low", f"{column}_high"
    base_loss = table.loc[table["variant"] == analysis.baseline, "loss"].min()
    table["why"] = np.where(table["loss"] > base_loss, "not reached", "not known")
    axis = f"{title} / baseline's"
    ends = [0.0, *table[[column, low, high]].melt()["value"].dropna()]
    scale = alt.Scale(domain=[0, 1.12 * max(ends)], nice=False)
    x = alt.X(f"{column}:Q", title=axis, scale=scale, axis=alt.Axis(tickCount=5))
    base = alt.Chart().encode(x=x, y=draw.names_axis("name", table["name"].tolist()))
    tooltip = draw.told(f"variant {column}:.3f {low}:.3f {high}:.3f")
    layers = [
        base.mark_bar(height=16, opacity=0.8).encode(
            color=analysis.style.colour(legend=False), tooltip=tooltip
        ),
        draw.rule(1.0, x=axis),
        base.transform_filter(f"isValid(datum.{low})")
        .mark_rule(strokeWidth=1.6, color=INK)
        .encode(x=alt.X(f"{low}:Q", title=axis), x2=alt.X2(f"{high}:Q")),
        base.transform_filter(f"isValid(datum.{column})")
        .mark_text(dy=-15, align="left", fontSize=10.5, color=INK)
        .encode(x=alt.datum(0), text=alt.Text(f"{column}:Q", format=".2f")),
        base.transform_filter(f"!isValid(datum.{column})")
        .mark_text(align="left", fontSize=10.5, color=MUTED)
        .encode(x=alt.datum(0), text=alt.Text("why:N")),
    ]
    named = ("league-compute", f"{title}, {_at(shown)} FLOPs", _words(column, analysis)[0])
    height = _ROW * (len(table) + 1)
    return draw.figure(*named, layers, table, height=height, width=draw.HALF_WIDTH)


def _budgets(analysis: Analysis, shown: pd.DataFrame) -> draw.Panel:
    """Draw each variant's difference to the baseline against the budget."""
    axis = f"Loss less that of {analysis.baseline}, {analysis.loss_unit}"
    table = shown.dropna(subset=["difference"])
    title = "Difference to the baseline against budget"
    if table.empty:
        return draw.Absent(title, _words("no_multiplier", analysis)[0])
    ends = [0.0, *table[["difference_low", "difference_high"]].melt()["value"]]
    ticks = sorted(set(table["budget_flops"]))
    base = alt.Chart().encode(
        x=draw.log_axis(
            "budget_flops", "Budget, FLOPs", ticks, 1.3, ticks, labelExpr=draw.POWER_LABEL
        ),
        y=draw.linear_axis(alt.Y, "difference", axis, ends),
        color=analysis.style.colour(),
        xOffset=alt.XOffset("variant:N"),
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
    named = ("league-budgets", title, _words("budgets", analysis)[0])
    return draw.figure(*named, layers, table, height=320)


def _named(shown: pd.DataFrame) -> pd.DataFrame:
    names = ["\n".join(textwrap.wrap(one, _NAME_WIDTH)) for one in shown["variant"]]
    return shown.assign(name=names)


def _at(shown: pd.DataFrame) -> str:
    return exponent(shown["budget_flops"].iloc[0])


def _table(analysis: Analysis, shown: pd.DataFrame) -> blocks.Table:
    cells = [_cells(row, shown["budget_flops"].nunique() > 1) for row in shown.to_dict("records")]
    caption = _words("table", analysis, _one_machine(analysis), len(analysis.budgets))[0]
    return blocks.table(caption, cells, csv="league", data=shown)


def _cells(row: dict[str, float], several: bool) -> dict[str, blocks.Text]:
    def number(column: str, form: str | Callable[[float], str]) -> str:
        value = row[column]
        if pd.isna(value):
            return blocks.NONE
        return format(value, form) if isinstance(form, str) else form(value)

    def estimate(column: str, form: str) -> blocks.Text:
        low, high = (row[f"{column}_{end}"] for end in ("low", "high"))
        ends = None if pd.isna(low) or pd.isna(high) else f"[{low:{form}}, {high:{form}}]"
        return blocks.with_ends(number(column, form), ends)

    first, last = number("first", "d"), number("last", "d")
    place = first if first == last else f"{first} to {last}"
    times = estimate("multiplier", ".2f"), estimate("forward_share", ".2f")
    return {
        **({"#Budget": scientific(row["budget_flops"])} if several else {}),
        "#Place": place,
        ".Variant": blocks.variant(str(row["variant"])),
        "#Loss": number("loss", ".4f"),
        "#Difference": estimate("difference", "+.4f"),
        **({"#Compute": times[0]} if several else {}),
        "#Forward FLOPs": times[1],
        "#Parameters": blocks.with_ends(
            f"{number('active', count)} active", f"{number('parameters', count)} in all"
        ),
        "#A token": blocks.with_ends(
            f"{number('forward_flops', lambda one: scientific(one, 3, trim=False))} FLOPs",
            f"{number('cache_bytes', ',.0f')} B of cache",
        ),
        "#A step": blocks.with_ends(
            f"{number('memory_bytes', lambda one: significant(one / 1e6))} MB",
            f"{number('steps_per_second', significant)} a second",
        ),
        "#Time": number("seconds", duration),
        **({"#In equal time": number("loss_at_equal_time", ".4f")} if several else {}),
    }


def _words(macro: str, analysis: Analysis, *more: object) -> tuple[str, ...]:
    return told("league", macro, {}, analysis, *more)
