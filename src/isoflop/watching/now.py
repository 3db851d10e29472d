"""What a page tells of a study that is trained: how far it is, what runs, curves, minima."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import altair as alt
import pandas as pd

from isoflop.notation import count, duration, exponent
from isoflop.planning import Bracket
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.theme import PICKED, Style, fading
from isoflop.sweep import Ledger, RunRow, StudyStatus
from isoflop.terminal.status import counted, edge_words, verdict

CURVE_POINTS = 60
"""Points of a training curve at most."""
FIRST_SHARE = 0.08
"""Of a run's steps, whose losses are off the scale."""
MOST_CURVES = 40
"""Of runs that are done, beside those under way."""


def now_section(found: StudyStatus, ledger: Ledger, style: Style) -> blocks.Section:
    """Return what is live: counts and time left, runs under way, their curves, minima so far."""
    going = [row for row in found.rows if row.at is not None]
    parts: list[blocks.Block] = [blocks.Paragraph((blocks.Styled("strong", counted(found)),))]
    if found.complete:
        parts.append(blocks.Paragraph("Every run that the study needs has its record."))
    elif not going:
        parts.append(blocks.Paragraph("Nobody trains it now: isoflop run goes on with it."))
    else:
        parts.append(blocks.table("Under way", list(map(_going, going))))
        table = curves(found.rows, ledger)
        parts += [_figure(table, style, ledger.study.data.loss_unit)] if len(table) else []
    minima = [_minimum(one) for one in found.brackets if one.minimum_parameters is not None]
    if minima and not found.complete:
        parts.append(blocks.table("Minima as they form", minima))
    lines = [edge_words(edge) for edge in found.edges] + list(found.stale)
    lines += [f"{row.run_id} {row.state}: {row.reason}" for row in found.rows if row.reason]
    return blocks.Section("Now", [*parts, blocks.Sentences(lines)] if lines else parts)


def _minimum(one: Bracket) -> dict[str, blocks.Text]:
    return {
        ".Variant": blocks.variant(one.variant),
        "#Budget": exponent(one.budget_flops),
        "#Best size": count(one.minimum_parameters or 0),
        "#Smaller": str(one.below),
        "#Larger": str(one.above),
        "Minimum": verdict(one),
    }


def share_done(found: StudyStatus) -> float:
    """Return which share of the FLOPs that the study is known to need was trained."""
    done = sum(row.budget_flops * min(1.0, row.step / row.steps) for row in found.rows)
    total = sum(row.budget_flops for row in found.rows)
    return 1.0 if found.complete else done / total if total else 0.0


def _going(row: RunRow) -> dict[str, blocks.Text]:
    at = row.at
    assert at is not None, "of a run that somebody trains"
    speed, left = at.tokens_per_second, at.seconds_left
    return {
        ".Variant": blocks.variant(row.variant),
        "#Parameters": count(row.parameters),
        "#Budget": exponent(row.budget_flops),
        "#Seed": str(row.seed),
        "#Step": f"{row.step:,} of {row.steps:,}",
        "#Loss": blocks.NONE if row.train_loss is None else f"{row.train_loss:.4f}",
        "#Tokens/s": blocks.NONE if speed is None else f"{speed:,.0f}",
        "#Left": blocks.NONE if left is None else duration(left),
        "#Last sign": f"{duration(at.silent_seconds)} ago",
    }


def curves(rows: Sequence[RunRow], ledger: Ledger) -> pd.DataFrame:
    """Return training curves of the runs under way, and of those done at the same budgets.

    Columns: `run`, `row` (under way, done), `variant`, `parameters`, `seed`, `flops`, `loss`, nats
    per token, the mean since the point before.
    """
    going = [row for row in rows if row.at is not None]
    budgets = {row.budget_flops for row in going}
    done = [row for row in rows if row.state == "finished" and row.budget_flops in budgets]
    shown = [("done", row) for row in done[-MOST_CURVES:]] + [("under way", row) for row in going]
    points = [
        (row.run_id, what, row.variant, row.parameters, row.seed, flops, loss)
        for what, row in shown
        for flops, loss in _points(row, ledger)
    ]
    columns = ["run", "row", "variant", "parameters", "seed", "flops", "loss"]
    return pd.DataFrame(points, columns=columns)


def _points(row: RunRow, ledger: Ledger) -> Iterator[tuple[float, float]]:
    record = ledger.get(row.run_id)
    found = [(one.step, one.loss) for one in record.curve] if record else []
    if record is None:
        metrics, _ = ledger.store.folder(row.run_id).read_metrics()
        found = [(one["step"], float(one.get("loss") or math.nan)) for one in metrics]
    first = FIRST_SHARE * row.steps
    found = [(step, loss) for step, loss in found if step >= first and math.isfinite(loss)]
    each = -(-len(found) // CURVE_POINTS) or 1
    for begin in range(0, len(found), each):
        some = found[begin : begin + each]
        yield row.budget_flops * some[-1][0] / row.steps, fmean(loss for _, loss in some)


def _figure(table: pd.DataFrame, style: Style, loss_unit: str) -> draw.Figure:
    ends = table[table["row"] == "under way"].groupby("run").tail(1)
    table = pd.concat([table, ends.assign(row="end", size=ends["parameters"].map(count))])
    base = alt.Chart().encode(
        x=alt.X(
            "flops:Q",
            title="Training FLOPs",
            scale=alt.Scale(domain=[0, 1.08 * table["flops"].max()], nice=False),
            axis=alt.Axis(labelExpr=draw.POWER_LABEL, tickCount=6, grid=False),
        ),
        y=draw.linear_axis(alt.Y, "loss", f"Training loss, {loss_unit}", table["loss"]),
        color=style.colour(),
        detail=alt.Detail("run:N"),
        order=alt.Order("flops:Q"),
        tooltip=draw.told("variant parameters:,.0f seed row flops:.3~e loss:.4f"),
    )
    layers = [
        draw.of_row(base, "done")
        .mark_line(strokeWidth=1)
        .encode(opacity=fading(0.35))
        .add_params(PICKED),
        draw.of_row(base, "under way").mark_line(strokeWidth=2.2).encode(opacity=fading()),
        draw.of_row(base, "end")
        .mark_text(align="left", dx=5, fontSize=11)
        .encode(text="size:N", opacity=fading()),
    ]
    caption = (
        "Thick lines are runs under way, with their parameters; thin ones are done at the same "
        "budgets."
    )
    return draw.figure("curves-now", "Training loss", caption, layers, table, height=260)
