"""How measured decoding reads in a terminal, and its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import altair as alt
import pandas as pd

from isoflop.bench.decode import DEPTH, DecodeReport, DecodeRow
from isoflop.bench.measured import Verdict, text_table, thread_words
from isoflop.bench.speed_figure import ratio_axis, speed_layers, token_axis
from isoflop.report.figure import Figure, Panels, panels, tooltips
from isoflop.report.theme import BASELINE_COLOUR, CHALLENGER_COLOURS

BAR_WIDTH, BAR_BATCH = 512, 1
LEAST_SPEED_RATIO = 1.5
MOST_CACHE_RATIO = 0.58

TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0)
COLUMNS: Mapping[str, Callable[[DecodeRow], str]] = {
    "dtype": lambda row: row.dtype,
    "threads": lambda row: str(row.threads),
    "batch": lambda row: str(row.batch),
    "tokens": lambda row: f"{row.context:,}",
    "model": lambda row: row.name,
    "ms/step": lambda row: f"{row.step_seconds * 1e3:.3g}",
    "tokens/s": lambda row: f"{row.tokens_per_second:,.0f}",
    "faster": lambda row: f"{row.speed_ratio:.3g}",
    "middle half": lambda row: "" if row.is_reference else f"{row.low:.3g} to {row.high:.3g}",
    "FLOPs": lambda row: f"{row.flop_ratio:.3g}",
    "weights": lambda row: f"{row.parameter_ratio:.3g}",
    "bytes": lambda row: f"{row.byte_ratio:.3g}",
    "cache MB": lambda row: f"{row.cache_bytes / 1e6:,.1f}",
    "rounds": lambda row: str(row.rounds),
}
TOOLTIP = tooltips(
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
MEANING = (
    "faster: dense step time over this one, median of paired rounds, and its middle half; "
    "FLOPs, weights, bytes: what a dense step computes and reads, over this one"
)


def describe_decode(report: DecodeReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table, bars."""
    return [
        *report.warnings,
        _shape(report),
        MEANING,
        *text_table(COLUMNS, report.rows, ("dtype", "model")),
        "",
        *(verdict.line for verdict in decode_verdicts(report)),
        *(f"note: {note}" for note in report.notes),
    ]


def decode_verdicts(report: DecodeReport) -> tuple[Verdict, ...]:
    """Return the bars that decoding is held to, each by the row that does worst."""
    routed = [row for row in report.rows if row.is_routed]
    alone = [row for row in routed if row.width >= BAR_WIDTH and row.batch == BAR_BATCH]
    peers = [row for row in report.rows if row.implementation == "transformers"]
    speed = "{} over dense in speed at batch 1, at the least"
    bars: list[tuple[str, float, list[tuple[float, DecodeRow]]]] = [
        (speed, LEAST_SPEED_RATIO, [(row.speed_ratio, row) for row in alone]),
        (
            "dense over {} in speed, at the least",
            1.0,
            [(1 / row.speed_ratio, row) for row in peers],
        ),
        (
            "dense over {} in bytes of cache, at the least",
            1 / MOST_CACHE_RATIO,
            [(1 / row.cache_ratio, row) for row in routed],
        ),
    ]
    found = []
    for claim, expected, rows in bars:
        if rows:
            measured, worst = min(rows, key=lambda one: one[0])
            where = f"{_panel(worst)}, batch {worst.batch}, {worst.context:,} tokens"
            said = f"{claim.format(worst.name)} ({where})"
            found.append(Verdict(claim=said, measured=measured, expected=expected))
    return tuple(found)


def decode_figure(report: DecodeReport) -> Figure:
    """Draw how many times as fast as the dense model the others step, and what bytes promise."""
    shown = [row for row in report.rows if not row.is_reference]
    columns = ["panel", "model", "batch", "context", "speed_ratio", "low", "high", "flop_ratio"]
    table = pd.DataFrame(
        {
            **row.model_dump(),
            "panel": _panel(row),
            "model": row.name,
            "batch": f"batch {row.batch}",
        }
        for row in shown
    )[[*columns, "byte_ratio", "step_seconds", "tokens_per_second"]]
    routed = next(row.name for row in shown if row.is_routed)
    promised = table.loc[table["model"] == routed, "byte_ratio"]
    lowest, highest = min(1.0, *table["low"]), max(1.0, *table["high"], *promised)
    base = alt.Chart().encode(
        x=token_axis("context", list(table["context"])),
        y=ratio_axis("speed_ratio", lowest / 1.08, highest * 1.08, TICKS),
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
    promise = ("byte_ratio", alt.FieldEqualPredicate(routed, "model"))
    layers = speed_layers(base, colour, dash, promise, TOOLTIP)
    quartiles = base.mark_rule(strokeWidth=1.4).encode(y="low:Q", y2="high:Q", color=colour)
    return panels(
        "decode-speed",
        "Steps of generation beside the dense model's",
        f"Time of a dense step over that of another model of equal shape: the median over paired "
        f"rounds with its quartiles. {_shape(report)}. Broad bands: the bytes of "
        "weights, keys and values that the dense step reads over those of the routed one, which is "
        "what the ratio of times would be if only reading took time. "
        "Hugging Face's Llama is as the dense model, over its default cache.",
        [*layers[:-1], quartiles, layers[-1]],
        table,
        Panels(
            list(dict.fromkeys(table["panel"])),
            "Times as fast as the dense model, against tokens of context",
            height=230,
            width=270,
            columns=2,
        ),
    )


def _shape(report: DecodeReport) -> str:
    """Say what was decoded, what was forced, and what came of it."""
    first = report.rows[0]
    shares = sorted({row.realised_share for row in report.rows if row.is_routed})
    realised = " to ".join(f"{share:.2%}" for share in dict.fromkeys((shares[0], shares[-1])))
    return (
        f"Width {first.width}, {first.blocks} blocks, {first.heads} heads of {first.head_width}, "
        f"feed-forward {first.hidden}, vocabulary {first.vocabulary:,}; every other block routed, "
        f"forced to {DEPTH.capacity:.1%} of the tokens (realised: {realised})"
    )


def _panel(row: DecodeRow) -> str:
    return f"{row.dtype}, {thread_words(row.threads)}"
