"""Gaps to the baseline by range of positions, and their test against the declared margin."""

from __future__ import annotations

import altair as alt
import pandas as pd

from isoflop.notation import count
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.theme import legend_columns
from isoflop.report.words.prose import caption, told

GAP_COLUMNS = [
    *("row", "span", "start", "stop", "variant", "non_embedding", "mark"),
    *("difference", "low", "high", "outcome"),
]

MEAN = "mean"
"""Name of the mean over sizes among the marks of a gap."""

_BADGES = {"equivalent": "held", "better": "held", "worse": "not-held"}


def section(analysis: ScalingAnalysis) -> blocks.Section:
    """Return the answer in words, the figure of the gaps, and their table."""
    sentences = told("scaling", "results", analysis)
    parts: list[blocks.Block] = [blocks.Sentences(sentences), panel(analysis)]
    if rows := gap_rows(analysis):
        parts.append(blocks.table(caption("gaps_table", analysis), rows))
    return blocks.Section("Result", parts)


def panel(analysis: ScalingAnalysis) -> draw.Panel:
    """Draw the gaps in each span, the mean over sizes and every size, or say why not."""
    table = gaps(analysis)
    if table.empty:
        why = [one.reason for one in (analysis.fit.gaps if analysis.fit else ()) if one.reason]
        why.append("no two variants have finished runs of the same size and seed")
        return draw.Absent("Gaps by position", f"{why[0][:1].upper()}{why[0][1:]}.")
    margin = analysis.study.equivalence_margin
    marks = table.sort_values("non_embedding", na_position="first")["mark"].drop_duplicates()
    variants = [name for name in analysis.style.names if name in set(table["variant"])]
    slots = [f"{variant}|{mark}" for variant in variants for mark in marks]
    ends = [*table["low"], *table["high"], 0.0, *([margin, -margin] if margin else [])]
    y_title = f"Loss less that of {analysis.baseline}, {analysis.loss_unit}"
    y = draw.linear_axis(alt.Y, "difference", y_title, ends, labelExpr=draw.SIGNED_LABEL)
    colour = alt.Color(
        "variant:N",
        scale=alt.Scale(domain=variants, range=[*map(analysis.style.colour_of, variants)]),
        legend=alt.Legend(symbolOpacity=1, columns=legend_columns(longest=max(map(len, variants)))),
    )
    layers = draw.zero_band(margin or None, y_title)
    base = (
        alt.Chart()
        .transform_calculate(slot="datum.variant + '|' + datum.mark")
        .encode(
            x=_positions(table["span"].drop_duplicates().tolist()),
            xOffset=alt.XOffset("slot:N", sort=slots, scale=alt.Scale(domain=slots)),
            color=colour,
        )
    )
    tooltip = draw.told("variant span mark difference:+.4f low:+.4f high:+.4f outcome")
    for row, stroke, size, opacity in (("size", 1.0, 12, 0.65), ("mean", 3.0, 60, 1.0)):
        of = draw.of_row(base, row)
        layers += [
            of.mark_rule(strokeWidth=stroke, opacity=opacity).encode(
                y=alt.Y("low:Q", title=y_title), y2=alt.Y2("high:Q")
            ),
            of.mark_point(filled=True, size=size, opacity=opacity).encode(y=y, tooltip=tooltip),
        ]
    named = ("gaps-by-position", "Gaps by position", caption("gaps", analysis))
    return draw.figure(*named, layers, table, height=300)


def gaps(analysis: ScalingAnalysis) -> pd.DataFrame:
    """Return the rows of the gaps: of each span the mean over sizes, then each size.

    Columns: `GAP_COLUMNS`; differences and their ends are in nats, `mark` is the mean or the size
    in words. Gaps that could not be estimated are absent.
    """
    rows = [
        (
            "size" if one.non_embedding else "mean",
            name,
            one.start,
            one.stop,
            one.variant,
            one.non_embedding,
            count(one.non_embedding) if one.non_embedding else MEAN,
            one.difference.value,
            one.difference.low,
            one.difference.high,
            one.outcome,
        )
        for span, name in analysis.short_names.items()
        for one in (analysis.fit.gaps if analysis.fit else ())
        if (one.start, one.stop) == span and one.difference is not None
    ]
    table = pd.DataFrame(rows, columns=GAP_COLUMNS)
    return table.astype({"non_embedding": "Int64", "low": "float64", "high": "float64"})


def gap_rows(analysis: ScalingAnalysis) -> list[blocks.Row]:
    """Return each variant's gap in every span, the mean over sizes, with what it rests on."""
    rows: list[blocks.Row] = []
    for variant in analysis.challengers:
        for span, name in analysis.short_names.items():
            one = analysis.gap(variant, span)
            if one is None:
                continue
            badge = blocks.Styled("badge", one.outcome, _BADGES.get(one.outcome, "unresolved"))
            small = one.p_equivalent is not None and one.p_equivalent < 0.001
            rows.append(
                {
                    ".Positions": name,
                    ".Variant": blocks.variant(variant),
                    "#Gap": blocks.estimate(one.difference, "+.4f") if one.difference else "",
                    "Outcome": (badge, blocks.Styled("ends", one.reason))
                    if one.reason
                    else (badge,),
                    "#p": "< 0.001" if small else blocks.number(one.p_equivalent, ".3f"),
                    "Error by|#seeds": blocks.number(one.seed_error),
                    "Error by|#documents": blocks.number(one.document_error),
                    "#Pairs": str(one.pairs),
                    "Tested on|#documents": str(one.documents),
                    "Tested on|#windows": str(one.windows),
                }
            )
    return rows


def _positions(spans: list[str]) -> alt.X:
    """Return an x axis over spans, whose labels are turned where the page is narrow."""
    return alt.X(
        "span:N",
        title="Positions",
        sort=spans,
        scale=alt.Scale(paddingInner=0.28, paddingOuter=0.14),
        axis=alt.Axis(
            labelAngle=alt.ExprRef("width < 520 ? -60 : 0"),
            labelAlign=alt.ExprRef("width < 520 ? 'right' : 'center'"),
            labelBaseline=alt.ExprRef("width < 520 ? 'middle' : 'top'"),
            labelOverlap=False,
            ticks=False,
            grid=False,
        ),
    )
