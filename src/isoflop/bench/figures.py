"""The figures of paired measurements: times as fast as a reference, against tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from isoflop.bench.attention import AttentionReport
from isoflop.bench.decode import DecodeReport
from isoflop.bench.decode.report import shape_words
from isoflop.report.figure import FULL_WIDTH, Figure, Panels, figure, panels, tooltips
from isoflop.report.theme import BASELINE_COLOUR, CHALLENGER_COLOURS, INK, MUTED

LENGTH_LABEL = "datum.value % 1024 ? format(datum.value, ',') : datum.value / 1024 + 'K'"
"""Vega expression that writes a tick as 8K, of 1,024 tokens each."""

TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0)


def attention_figure(report: AttentionReport) -> Figure:
    """Draw how many times as fast block attention is, beside what its FLOPs promise."""
    columns = ["sequence_length", "block", "direction", "time_ratio", "flop_ratio", "share"]
    table = pd.DataFrame(
        {**row.model_dump(), "block": f"blocks of {row.block_size}", "share": row.share}
        for row in report.rows
    )[[*columns, "full_seconds", "block_seconds"]]
    low, high = 0.8 * min(table["time_ratio"]), 1.2 * max(table["flop_ratio"])
    base = alt.Chart().encode(
        x=_token_axis("sequence_length", table, "Tokens in the sequence"),
        y=_ratio_axis(
            "time_ratio",
            (low, high),
            [2.0**i for i in range(-4, 11)],
            "Times as fast as full attention",
        ),
    )
    order = [f"blocks of {size}" for size in sorted({row.block_size for row in report.rows})]
    layers = _layers(
        base,
        alt.Color(
            "block:N", sort=order, title=None, scale=alt.Scale(scheme="viridis", domain=order)
        ),
        alt.StrokeDash(
            "direction:N",
            title=None,
            scale=alt.Scale(domain=["forward+backward", "forward"], range=[[1, 0], [2, 2]]),
        ),
        ("flop_ratio", "datum.direction === 'forward+backward'"),
        tooltips(
            ("block:N", "Block attention"),
            ("direction:N", "Direction"),
            ("sequence_length:Q", "Tokens", ","),
            ("time_ratio:Q", "Times as fast", ".2f"),
            ("flop_ratio:Q", "FLOPs promise", ".2f"),
            ("share:Q", "Share of it", ".0%"),
        ),
    )
    first = report.rows[0]
    return figure(
        f"attention-{first.dtype}-speed",
        "Block attention beside full attention",
        f"Time of torch's fused causal attention over that of block attention with top_k "
        f"{first.top_k}, {first.batch} x {first.heads} heads of {first.head_width}, {first.dtype}, "
        f"{first.threads} threads. Broad bands: the ratio of their FLOPs, which is what the ratio "
        "of times would be if choosing, gathering and merging took no time.",
        layers,
        table,
        height=360,
        width=FULL_WIDTH,
    )


def decode_figure(report: DecodeReport) -> Figure:
    """Draw how many times as fast as the dense model the others step, and what bytes promise."""
    shown = [row for row in report.rows if not row.is_reference]
    columns = ["panel", "model", "batch", "context", "speed_ratio", "low", "high", "flop_ratio"]
    rows = ({**row.model_dump(), "panel": row.panel, "model": row.name} for row in shown)
    table = pd.DataFrame(rows)[[*columns, "byte_ratio", "step_seconds", "tokens_per_second"]]
    table["batch"] = [f"batch {number}" for number in table["batch"]]
    routed = next(row.name for row in shown if row.is_routed)
    promised = table.loc[table["model"] == routed, "byte_ratio"]
    ends = min(1.0, *table["low"]) / 1.08, max(1.0, *table["high"], *promised) * 1.08
    base = alt.Chart().encode(
        x=_token_axis("context", table), y=_ratio_axis("speed_ratio", ends, TICKS)
    )
    batches = [f"batch {batch}" for batch in sorted({row.batch for row in shown})]
    models = list(dict.fromkeys(table["model"]))
    colour = alt.Color(
        "batch:N",
        sort=batches,
        title=None,
        scale=alt.Scale(domain=batches, range=[*CHALLENGER_COLOURS, BASELINE_COLOUR]),
    )
    dash = alt.StrokeDash(
        "model:N",
        title=None,
        sort=models,
        scale=alt.Scale(domain=models, range=[[1, 0], [3, 3]][: len(models)]),
    )
    tooltip = tooltips(
        ("model:N", "Model"),
        ("batch:N", "Sequences"),
        ("context:Q", "Tokens of context", ","),
        ("speed_ratio:Q", "Times as fast as dense", ".2f"),
        ("low:Q", "Lower quartile", ".2f"),
        ("high:Q", "Upper quartile", ".2f"),
        ("flop_ratio:Q", "FLOPs promise", ".2f"),
        ("byte_ratio:Q", "Bytes read promise", ".2f"),
        ("tokens_per_second:Q", "Tokens per second", ",.3~r"),
    )
    promise = ("byte_ratio", alt.FieldEqualPredicate(routed, "model"))
    *lower, points = _layers(base, colour, dash, promise, tooltip)
    quartiles = base.mark_rule(strokeWidth=1.4).encode(y="low:Q", y2="high:Q", color=colour)
    return panels(
        "decode-speed",
        "Steps of generation beside the dense model's",
        f"Time of a dense step over that of another model of equal shape: the median over paired "
        f"rounds with its quartiles. {shape_words(report)}. Broad bands: the bytes of "
        "weights, keys and values that the dense step reads over those of the routed one, which is "
        "what the ratio of times would be if only reading took time. "
        "Hugging Face's Llama is as the dense model, over its default cache.",
        [*lower, quartiles, points],
        table,
        Panels(
            list(dict.fromkeys(table["panel"])),
            "Times as fast as the dense model, against tokens of context",
            height=230,
            width=270,
            columns=2,
        ),
    )


def _token_axis(column: str, table: pd.DataFrame, title: str | None = None) -> alt.X:
    """Return a logarithmic x axis with a tick for each number of tokens."""
    shown = sorted(set(table[column].tolist()))
    return alt.X(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(type="log", base=2, domain=[shown[0] / 1.1, shown[-1] * 1.1], nice=False),
        axis=alt.Axis(values=shown, labelExpr=LENGTH_LABEL, grid=False),
    )


def _ratio_axis(
    column: str, ends: tuple[float, float], ticks: Sequence[float], title: str | None = None
) -> alt.Y:
    """Return a logarithmic y axis over a ratio, with those of the ticks that lie within it."""
    return alt.Y(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(type="log", domain=list(ends), nice=False),
        axis=alt.Axis(values=[t for t in ticks if ends[0] <= t <= ends[1]], format="~g"),
    )


def _layers(
    base: alt.Chart,
    colour: alt.Color,
    dash: alt.StrokeDash,
    promise: tuple[str, Any],
    tooltip: list[alt.Tooltip],
) -> list[alt.Chart]:
    """Return layers over axes: the reference, broad bands of what is promised, lines and points.

    `promise` is the column of the promised ratio and a filter of the rows that it is shown of.
    """
    promised, of = promise
    return [
        base.mark_rule(color=MUTED, strokeWidth=1).encode(x=alt.X(), y=alt.datum(1)),
        base.transform_filter(of)
        .mark_line(strokeWidth=6, strokeOpacity=0.22)
        .encode(y=f"{promised}:Q", color=colour),
        base.mark_line(strokeWidth=1.8).encode(color=colour, strokeDash=dash),
        base.mark_point(filled=True, size=45, opacity=1, stroke=INK, strokeWidth=0.4).encode(
            color=colour, tooltip=tooltip
        ),
    ]
