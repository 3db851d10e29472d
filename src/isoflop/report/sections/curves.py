"""The result: loss against parameters, one U-curve per variant and budget, and its minima.

After figures 3 and 4 of arXiv 2404.02258.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import altair as alt
import pandas as pd

from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.intervals import WithError
from isoflop.notation import count, exponent, scientific
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.theme import INK, MUTED, PICKED, fading
from isoflop.report.words.answers import ESTIMATOR_WORDS
from isoflop.report.words.prose import caption, told

TITLE = "Loss against parameters"

_BRACKET_GAP, _BRACKET_STEP = 10, 58
_THINNEST, _LABEL_HEIGHT = 0.02, 0.08
"""Shares of the range of losses: the least height of a bracket, the height of its label."""


def section(analysis: Analysis) -> blocks.Section:
    """Return the answer in words, the curves, the minima, and the published claims."""
    parts: list[blocks.Block] = []
    for result in analysis.budgets:
        if len(analysis.budgets) > 1:
            parts.append(blocks.Heading(result.told))
        parts.append(blocks.Sentences(told("study", "results", analysis, result)))
    parts += [
        blocks.Paragraph(caption("hint"), "caption hint"),
        panel(analysis),
        *_minima_table(analysis),
    ]
    parts += [_claims_table(analysis, result) for result in analysis.budgets if result.claims]
    return blocks.Section("Result", parts)


def rows(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of the U-curves: runs, means over seeds, minima and refusals.

    Columns: `row` (run, off_ladder, mean, minimum, refused), `variant`, `budget_flops`,
    `parameters`, `loss`, `seed`, `low` and `high`, the ends of the 95% intervals of means and
    minima. A refused minimum has a row of its own, at the lowest mean, so that it is seen.
    """
    found = [
        {"variant": name, "budget_flops": result.budget_flops, **row}
        for result in analysis.budgets
        for name in analysis.names
        for row in _curve_rows(analysis, result, name)
    ]
    columns = ["row", "variant", "budget_flops", "parameters", "loss", "seed", "low", "high"]
    kinds = {"seed": "Int64", "low": "float64", "high": "float64"}
    return pd.DataFrame(found, columns=columns).astype(kinds)


def _curve_rows(analysis: Analysis, result: BudgetResult, name: str) -> Iterator[dict[str, Any]]:
    budget = result.budget_flops
    for size in analysis.sizes(name, budget):
        of = {"row": "run" if size.on_ladder else "off_ladder", "parameters": size.parameters}
        for seed, loss in zip(size.seeds, size.seed_losses, strict=True):
            yield {**of, "loss": loss, "seed": seed}
    fit = analysis.variant_fits.get(name)
    noise = fit.noise.get(f"{budget:.6g}") if fit else None
    for size in analysis.ladder(name, budget):
        low, high = None, None
        if noise is not None:  # how far all of the curve's runs scatter
            error = math.hypot(noise.run_spread, noise.seed_spread) / math.sqrt(len(size.seeds))
            freedom = noise.run_freedom + noise.seed_freedom
            mean = WithError(value=size.loss, error=error, degrees_of_freedom=freedom)
            low, high = mean.interval().ends
        of = {"row": "mean", "parameters": size.parameters, "loss": size.loss}
        yield {**of, "low": low, "high": high}
    found, lowest = result.headline(name), analysis.best(name, budget)
    if found and found.loss is not None:
        ends = {"low": found.interval.low, "high": found.interval.high} if found.interval else {}
        yield {"row": "minimum", "parameters": found.parameters, "loss": found.loss, **ends}
    elif found and lowest:
        yield {"row": "refused", "parameters": lowest.parameters, "loss": lowest.loss}


def panel(analysis: Analysis) -> draw.Panel:
    """Draw the U-curves, or say that there are none."""
    shown, style = rows(analysis), analysis.style
    if shown.empty:
        return draw.Absent(TITLE, "No run has finished.")
    tips = "variant row budget_flops:~e parameters:,.0f loss:.4f low:.4f high:.4f seed"
    loss_title = f"Test loss, {analysis.loss_unit}"
    base = alt.Chart().encode(
        x=draw.count_axis("parameters", "Parameters", list(shown["parameters"])),
        y=draw.linear_axis(alt.Y, "loss", loss_title, shown["loss"], tickCount=7),
        opacity=fading(),
        tooltip=draw.told(tips),
    )
    coloured, shaped = base.encode(color=style.colour()), base.encode(shape=style.shape())
    points = shaped.encode(color=style.colour())
    ends = {"y": alt.Y("low:Q"), "y2": alt.Y2("high:Q")}
    layers = [
        draw.of_row(coloured, "mean")
        .mark_line(strokeWidth=1.5, strokeOpacity=0.85)
        .encode(detail=alt.Detail("budget_flops:N"), tooltip=alt.TooltipValue(None))
        .add_params(PICKED),
        draw.of_row(points, "run").mark_point(filled=True, size=26, fillOpacity=0.5),
        draw.of_row(points, "off_ladder")
        .mark_point(filled=False, size=30, strokeWidth=1.2)
        .encode(opacity=fading(0.7)),
        draw.of_row(coloured, "mean")
        .transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=1, strokeOpacity=0.55, clip=True)
        .encode(**ends),
        draw.of_row(base, "minimum")
        .transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2.4, color=INK, clip=True)
        .encode(**ends),
        draw.of_row(shaped, "minimum")
        .mark_point(filled=True, size=95, stroke=INK, strokeWidth=1.4)
        .encode(fill=style.fill()),
        draw.of_row(coloured, "refused").mark_text(
            text="\N{MULTIPLICATION SIGN}", fontSize=20, fontWeight="bold"
        ),
        *_brackets(shown, loss_title),
    ]
    named = ("loss-against-parameters", TITLE, caption("curves", analysis, set(shown["row"])))
    return draw.figure(*named, layers, shown, height=400)


def _brackets(shown: pd.DataFrame, title: str) -> list[alt.Chart]:
    """Label each budget with a bracket at the right of the plot, over the ends of its curves.

    One that overlaps the one below it stands further out.
    """
    means = shown[shown["row"] == "mean"].sort_values("parameters")
    height = float(shown["loss"].max() - shown["loss"].min())
    ends = means.groupby(["budget_flops", "variant"])["loss"].last().groupby("budget_flops")
    spans = ends.agg(["min", "max"]).sort_values("min")
    points: list[dict[str, Any]] = []
    place, top = 0, -math.inf
    for budget, low, high in spans.itertuples(name=None):
        middle, room = (low + high) / 2, max(high - low, _LABEL_HEIGHT * height) / 2
        place = 1 - place if middle - room <= top else 0
        top, half = middle + room, max(high - low, _THINNEST * height) / 2
        low, high, at = middle - half, middle + half, _BRACKET_GAP + place * _BRACKET_STEP
        label = f"{exponent(budget)}\nFLOPs"
        path = ((at - 5, low), (at, low), (at, high), (at - 5, high), (at + 6, middle))
        points += [
            {"label": label, "corner": corner, "beyond": x, "loss": y}
            for corner, (x, y) in enumerate(path)
        ]
    base = (
        alt.Chart(draw.inline(pd.DataFrame(points), "brackets"))
        .transform_calculate(x="width + datum.beyond")
        .encode(x=alt.X("x:Q", scale=None), y=alt.Y("loss:Q", title=title))
    )
    return [
        base.transform_filter("datum.corner < 4")
        .mark_line(color=MUTED, strokeWidth=1)
        .encode(detail=alt.Detail("label:N"), order=alt.Order("corner:O")),
        base.transform_filter("datum.corner === 4")
        .mark_text(color=INK, align="left", fontSize=11, lineBreak="\n", dy=-6)
        .encode(text=alt.Text("label:N")),
    ]


def _minima_table(analysis: Analysis) -> list[blocks.Table]:
    """Return a row per budget and variant with the minimum by each estimator."""
    nat = analysis.bits_per_nat
    found = []
    for result in analysis.budgets:
        for name in analysis.names:
            first = result.headline(name)
            if first is None:
                continue
            minima = {
                f"#{ESTIMATOR_WORDS[one]}": _minimum(result.minima[name, one])
                for one in analysis.estimators
            }
            bits = nat and first.loss and first.loss * nat
            flops = blocks.number(first.forward_flops, partial(scientific, digits=3, trim=False))
            found.append(
                {
                    "#Budget": scientific(result.budget_flops),
                    ".Variant": blocks.variant(name),
                    **minima,
                    **({"#Bits per byte": blocks.number(bits)} if nat else {}),
                    "#Forward FLOPs": flops,
                }
            )
    return [blocks.table(caption("minima", nat), found)] if found else []


def _minimum(found: CurveMinimum) -> blocks.Text:
    if found.loss is None or found.parameters is None:
        return (blocks.Styled("hint", f"refused: {found.status.replace('_', ' ')}", found.message),)
    text = f"{found.loss:.4f} at {count(found.parameters)}"
    return blocks.with_ends(text, found.estimates()[1].interval_words())


def _claims_table(analysis: Analysis, result: BudgetResult) -> blocks.Table:
    """Return a row per published claim; where there are doubts numbers have no verdicts."""
    found = claims(analysis)
    here = found[found["budget_flops"] == result.budget_flops]
    looks = {"no verdict": "unresolved", "not held": "not-held"}
    doubted = (here["verdict"] == "no verdict").any()
    return blocks.table(
        caption("claims", result),
        [
            {
                "Claim": one["statement"],
                "Here": (blocks.Styled("badge", said := one["verdict"], looks.get(said, said)),),
                "Numbers": one["numbers"],
            }
            for one in here.to_dict("records")
        ],
        after=caption("no_verdict") if doubted else "",
        csv="claims",
        data=found,
    )


def claims(analysis: Analysis) -> pd.DataFrame:
    """Return a row per budget and published claim: `statement`, `verdict`, `numbers` in words.

    `difference` with its ends is what was judged, below zero on the claimed side: of losses, or of
    log parameters where the claim is about sizes. A study with doubts has no verdicts, and a budget
    that is too small has none.
    """
    doubted = bool(told("study", "doubtful", analysis))
    return pd.DataFrame(
        {
            "budget_flops": result.budget_flops,
            "statement": one.statement[:1].upper() + one.statement[1:],
            "verdict": "no verdict" if doubted or result.is_small else one.verdict,
            **blocks.with_columns("difference", one.interval),
            "numbers": one.numbers[:1].upper() + one.numbers[1:],
        }
        for result in analysis.budgets
        for one in result.claims
    )
