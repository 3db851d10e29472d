"""Gaps to the baseline by range of positions, and their test against the declared margin."""

from __future__ import annotations

import altair as alt
import pandas as pd

from isoflop.notation import count, percent
from isoflop.report.blocks import (
    NONE,
    Block,
    Section,
    Sentences,
    Styled,
    Table,
    Text,
    columns,
    with_ends,
)
from isoflop.report.blocks import variant as named
from isoflop.report.figure import (
    SIGNED_LABEL,
    Absent,
    Panel,
    figure,
    padded,
    tooltips,
    zero_band,
)
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.words.prose import told
from isoflop.report.words.scaling import results

GAP_COLUMNS = [
    *("row", "span", "start", "stop", "variant", "non_embedding", "mark"),
    *("difference", "low", "high", "outcome"),
]

MEAN = "mean"
"""Name of the mean over sizes among the marks of a gap."""


def section(analysis: ScalingAnalysis) -> Section:
    """Return the answer in words, the figure of the gaps, and their table."""
    blocks: list[Block] = [Sentences(results(analysis)), panel(analysis)]
    rows = gap_rows(analysis)
    if rows:
        blocks.append(_table(analysis, rows))
    return Section("Result", blocks)


def panel(analysis: ScalingAnalysis) -> Panel:
    """Draw the gaps in each span, the mean over sizes and every size, or say why not."""
    table = gaps(analysis)
    if table.empty:
        why = "No two variants have finished runs of the same size and seed."
        return Absent("Gaps by position", why)
    margin = analysis.study.equivalence_margin
    marks = table.sort_values("non_embedding", na_position="first")["mark"].drop_duplicates()
    variants = [name for name in analysis.style.names if name in set(table["variant"])]
    slots = [f"{variant}|{mark}" for variant in variants for mark in marks]
    ends = [*table["low"], *table["high"], 0.0, *([margin, -margin] if margin else [])]
    y_title = f"Loss less that of {analysis.baseline}, {analysis.loss_unit}"
    y = alt.Y(
        "difference:Q",
        title=y_title,
        scale=alt.Scale(domain=padded(ends), nice=False, zero=False),
        axis=alt.Axis(tickCount=6, labelExpr=SIGNED_LABEL),
    )
    colour = alt.Color(
        "variant:N",
        scale=alt.Scale(domain=variants, range=[*map(analysis.style.colour_of, variants)]),
        legend=alt.Legend(symbolOpacity=1, columns=alt.ExprRef("width < 420 ? 2 : 4")),
    )
    offset = alt.XOffset("slot:N", sort=slots, scale=alt.Scale(domain=slots))
    layers = zero_band(margin or None, y_title)
    tooltip = tooltips(
        ("variant:N", "Variant"),
        ("span:N", "Positions"),
        ("mark:N", "N"),
        ("difference:Q", "Gap", "+.4f"),
        ("low:Q", "from", "+.4f"),
        ("high:Q", "to", "+.4f"),
        ("outcome:N", "Outcome"),
    )
    base = (
        alt.Chart()
        .transform_calculate(slot="datum.variant + '|' + datum.mark")
        .encode(
            x=_positions(table["span"].drop_duplicates().tolist()), xOffset=offset, color=colour
        )
    )
    for row, stroke, size in (("size", 1.0, 12), ("mean", 3.0, 60)):
        of = base.transform_filter(f"datum.row === '{row}'")
        faint = 0.65 if row == "size" else 1.0
        layers += [
            of.mark_rule(strokeWidth=stroke, opacity=faint).encode(
                y=alt.Y("low:Q", title=y_title), y2=alt.Y2("high:Q")
            ),
            of.mark_point(filled=True, size=size, opacity=faint).encode(y=y, tooltip=tooltip),
        ]
    return figure(
        "gaps-by-position",
        "Gaps by position",
        told("captions", "gaps", {}, analysis)[0],
        layers,
        table,
        height=300,
    )


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


def gap_rows(analysis: ScalingAnalysis) -> list[list[Text]]:
    """Return each variant's gap in every span, the mean over sizes, with what it rests on."""
    rows: list[list[Text]] = []
    colours = {"equivalent": "held", "better": "held", "worse": "not-held"}
    for variant in analysis.challengers:
        for span, name in analysis.short_names.items():
            one = analysis.gap(variant, span)
            if one is None:
                continue
            gap, p = one.difference, one.p_equivalent
            badge = Styled("badge", one.outcome, colours.get(one.outcome, "unresolved"))
            rows.append(
                [
                    name,
                    named(variant),
                    with_ends(f"{gap.value:+.4f}", gap.interval_words("+.4f")) if gap else "",
                    (badge, Styled("ends", one.reason)) if one.reason else (badge,),
                    NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
                    *(
                        NONE if error is None else f"{error:.4f}"
                        for error in (one.seed_error, one.document_error)
                    ),
                    *(str(number) for number in (one.pairs, one.documents, one.windows)),
                ]
            )
    return rows


def _table(analysis: ScalingAnalysis, rows: list[list[Text]]) -> Table:
    return Table(
        f"Gaps to {analysis.baseline} by position, {analysis.loss_unit}: means over sizes with "
        f"their {percent(analysis.level, 0)} intervals, and what they rest on. Errors are standard "
        "errors: what other seeds, and what other documents would give. p is that of equivalence, "
        "the larger of the two one-sided tests.",
        columns(
            *(".Positions", ".Variant", "#Gap", "Outcome", "#p", "#seeds", "#documents"),
            *("#Pairs", "#documents", "#windows"),
        ),
        rows,
        groups=[*[("", 1)] * 5, ("Error by", 2), ("", 1), ("Tested on", 2)],
    )


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
