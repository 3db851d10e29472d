"""How measured decoding reads in a terminal, and its figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import altair as alt
import pandas as pd

from isoflop.bench.attention_report import LENGTH_LABEL
from isoflop.bench.decode import DEPTH, DecodeReport, DecodeRow
from isoflop.bench.report import Verdict
from isoflop.report.figure import Figure, Panels, panels
from isoflop.report.theme import BASELINE_COLOUR, CHALLENGER_COLOURS, INK, MUTED

BAR_WIDTH, BAR_BATCH = 512, 1
LEAST_SPEED_RATIO = 1.5
MOST_CACHE_RATIO = 0.58

PANEL_WIDTH = 270


def describe_decode(report: DecodeReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table, bars."""
    lines = []
    if report.busy is not None:
        lines.append(f"WARNING: measured on a BUSY machine, do not quote: {report.busy}")
    lines += [f"{_shape(report)}; {_share(report)}", _MEANING]
    head = ["dtype", "threads", "batch", "tokens", "model", "ms/step", "tokens/s", "faster"]
    cells = [[*head, "middle half", "FLOPs", "weights", "bytes", "cache MB", "rounds"]]
    cells += [_cells(row) for row in report.rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    left = (head.index("dtype"), head.index("model"))
    lines += [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    lines.append("")
    lines += [
        f"{'held' if verdict.held else 'NOT HELD'}: {verdict.claim}: {verdict.measured:.3g}, "
        f"expected at least {verdict.expected:.3g}"
        for verdict in decode_verdicts(report)
    ]
    return [*lines, *(f"note: {note}" for note in report.notes)]


def decode_verdicts(report: DecodeReport) -> tuple[Verdict, ...]:
    """Return the bars that decoding is held to, each by the row that does worst."""
    return tuple(_verdicts(report.rows))


def decode_figure(report: DecodeReport) -> Figure:
    """Draw how many times as fast as the dense model the others step, and what bytes promise."""
    shown = [row for row in report.rows if not _is_dense(row)]
    table = pd.DataFrame(
        {
            "panel": _panel(row),
            "model": row.name,
            "batch": _batch(row.batch),
            "context": row.context,
            "speed_ratio": row.speed_ratio,
            "low": row.low,
            "high": row.high,
            "flop_ratio": row.flop_ratio,
            "byte_ratio": row.byte_ratio,
            "step_seconds": row.step_seconds,
            "tokens_per_second": row.tokens_per_second,
        }
        for row in shown
    )
    contexts = sorted(set(table["context"]))
    x = alt.X(
        "context:Q",
        title=None,
        scale=alt.Scale(
            type="log", base=2, domain=[contexts[0] / 1.2, contexts[-1] * 1.2], nice=False
        ),
        axis=alt.Axis(values=contexts, labelExpr=LENGTH_LABEL, grid=False),
    )
    routed = table[table["model"] == _routed_name(shown)]
    lowest = min(1.0, min(table["low"]))
    highest = max(max(table["high"]), max(routed["byte_ratio"], default=1.0))
    y = alt.Y(
        "speed_ratio:Q",
        title=None,
        scale=alt.Scale(type="log", domain=[lowest / 1.08, highest * 1.08], nice=False),
        axis=alt.Axis(values=_ticks(lowest / 1.08, highest * 1.08), format="~g"),
    )
    batches = [_batch(batch) for batch in sorted({row.batch for row in shown})]
    models = list(dict.fromkeys(row.name for row in shown))
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
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("batch:N", title="Sequences"),
        alt.Tooltip("context:Q", title="Tokens of context", format=","),
        alt.Tooltip("speed_ratio:Q", title="Times as fast as dense", format=".2f"),
        alt.Tooltip("low:Q", title="Lower quartile", format=".2f"),
        alt.Tooltip("high:Q", title="Upper quartile", format=".2f"),
        alt.Tooltip("flop_ratio:Q", title="FLOPs promise", format=".2f"),
        alt.Tooltip("byte_ratio:Q", title="Bytes read promise", format=".2f"),
        alt.Tooltip("tokens_per_second:Q", title="Tokens per second", format=",.3~r"),
    ]
    base = alt.Chart().encode(x=x, y=y)
    layers = [
        base.mark_rule(color=MUTED, strokeWidth=1).encode(x=alt.X(), y=alt.datum(1)),
        base.transform_filter(alt.FieldEqualPredicate(_routed_name(shown), "model"))
        .mark_line(strokeWidth=7, strokeOpacity=0.2)
        .encode(y="byte_ratio:Q", color=colour),
        base.mark_line(strokeWidth=1.8).encode(color=colour, strokeDash=dash),
        base.mark_rule(strokeWidth=1.4).encode(y="low:Q", y2="high:Q", color=colour),
        base.mark_point(filled=True, size=40, opacity=1, stroke=INK, strokeWidth=0.4).encode(
            color=colour, tooltip=tooltip
        ),
    ]
    return panels(
        "decode-speed",
        "Steps of generation beside the dense model's",
        f"Time of a dense step over that of another model of equal shape: the median over paired "
        f"rounds with its quartiles. {_shape(report)}; {_share(report)}. Broad bands: the bytes of "
        "weights, keys and values that the dense step reads over those of the routed one, which is "
        "what the ratio of times would be if only reading took time. "
        "Hugging Face's Llama is as the dense model, over its default cache.",
        layers,
        table,
        Panels(
            list(dict.fromkeys(table["panel"])),
            "Times as fast as the dense model, against tokens of context",
            height=230,
            width=PANEL_WIDTH,
            columns=2,
        ),
    )


_MEANING = (
    "faster: dense step time over this one, median of paired rounds, and its middle half; "
    "FLOPs, weights, bytes: what a dense step computes and reads, over this one"
)


def _verdicts(rows: Sequence[DecodeRow]) -> Iterator[Verdict]:
    wide = [row for row in rows if _is_routed(row) and row.width >= BAR_WIDTH]
    yield from _worst(
        [row for row in wide if row.batch == BAR_BATCH],
        "{} over dense in speed at batch 1, at the least",
        lambda row: row.speed_ratio,
        LEAST_SPEED_RATIO,
    )
    yield from _worst(
        [row for row in rows if row.implementation == "transformers"],
        "dense over {} in speed, at the least",
        lambda row: 1 / row.speed_ratio,
        1.0,
    )
    yield from _worst(
        [row for row in rows if _is_routed(row)],
        "dense over {} in bytes of cache, at the least",
        lambda row: 1 / row.cache_ratio,
        1 / MOST_CACHE_RATIO,
    )


def _worst(
    rows: Sequence[DecodeRow], claim: str, measured: Callable[[DecodeRow], float], expected: float
) -> Iterator[Verdict]:
    if rows:
        worst = min(rows, key=measured)
        where = f"{worst.dtype}, {_threads(worst)}, batch {worst.batch}, {worst.context:,} tokens"
        yield Verdict(
            group=0,
            claim=f"{claim.format(worst.name)} ({where})",
            measured=measured(worst),
            expected=expected,
        )


def _is_routed(row: DecodeRow) -> bool:
    return row.realised_share < 1


def _is_dense(row: DecodeRow) -> bool:
    return not _is_routed(row) and row.implementation == "isoflop"


def _routed_name(rows: Sequence[DecodeRow]) -> str:
    return next(row.name for row in rows if _is_routed(row))


def _cells(row: DecodeRow) -> list[str]:
    return [
        row.dtype,
        str(row.threads),
        str(row.batch),
        f"{row.context:,}",
        row.name,
        f"{row.step_seconds * 1e3:.3g}",
        f"{row.tokens_per_second:,.0f}",
        f"{row.speed_ratio:.3g}",
        "" if _is_dense(row) else f"{row.low:.3g} to {row.high:.3g}",
        f"{row.flop_ratio:.3g}",
        f"{row.parameter_ratio:.3g}",
        f"{row.byte_ratio:.3g}",
        f"{row.cache_bytes / 1e6:,.1f}",
        str(row.rounds),
    ]


def _shape(report: DecodeReport) -> str:
    first = report.rows[0]
    return (
        f"Width {first.width}, {first.blocks} blocks, {first.heads} heads of {first.head_width}, "
        f"feed-forward {first.hidden}, vocabulary {first.vocabulary:,}"
    )


def _share(report: DecodeReport) -> str:
    """Say what was forced and what came of it."""
    shares = sorted({row.realised_share for row in report.rows if _is_routed(row)})
    realised = " to ".join(f"{share:.2%}" for share in dict.fromkeys((shares[0], shares[-1])))
    return (
        f"every other block routed, forced to {DEPTH.capacity:.1%} of the tokens "
        f"(realised: {realised})"
    )


def _panel(row: DecodeRow) -> str:
    return f"{row.dtype}, {_threads(row)}"


def _threads(row: DecodeRow) -> str:
    return "1 thread" if row.threads == 1 else f"{row.threads} threads"


def _batch(batch: int) -> str:
    return f"batch {batch}"


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers of a logarithmic axis."""
    steps = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0)
    return [step for step in steps if low <= step <= high]
