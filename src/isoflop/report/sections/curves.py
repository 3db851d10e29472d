"""The result: loss against parameters, one U-curve per variant and budget, and its minima.

After figures 3 and 4 of arXiv 2404.02258.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import pandas as pd

from isoflop.fit.intervals import WithError
from isoflop.fit.settings import Estimator
from isoflop.notation import count, exponent, scientific
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.analysis import HEADLINE, Analysis, BudgetResult
from isoflop.report.theme import INK, MUTED, PICKED, fading
from isoflop.report.words.results import ESTIMATOR_WORDS, doubts, refusals, results

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
        parts.append(blocks.Sentences(results(analysis, result)))
    hint = (
        "A click on a variant in the legend fades the others, a second click undoes it. Points "
        "tell their numbers."
    )
    parts += [blocks.Paragraph(hint, "caption hint"), panel(analysis), *_minima_table(analysis)]
    parts += [_claims_table(analysis, result) for result in analysis.budgets if result.claims]
    return blocks.Section("Result", parts)


def rows(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of the U-curves: runs, means over seeds, minima and refusals.

    Columns: `row` (run, off_ladder, mean, minimum, refused), `variant`, `budget_flops`,
    `parameters`, `loss`, `seed`, `low` and `high`, the ends of the 95% intervals of means and
    minima. A refused minimum has a row of its own, at the lowest mean, so that it is seen.
    """
    found = [
        (row, name, result.budget_flops, *numbers)
        for result in analysis.budgets
        for name in analysis.names
        for row, *numbers in _curve_rows(analysis, result, name)
    ]
    columns = ["row", "variant", "budget_flops", "parameters", "loss", "seed", "low", "high"]
    kinds = {"seed": "Int64", "low": "float64", "high": "float64"}
    return pd.DataFrame(found, columns=columns).astype(kinds)


def _curve_rows(
    analysis: Analysis, result: BudgetResult, name: str
) -> Iterator[tuple[str, float, float, int | None, float | None, float | None]]:
    budget = result.budget_flops
    for size in analysis.sizes(name, budget):
        what = "run" if size.on_ladder else "off_ladder"
        for seed, loss in zip(size.seeds, size.seed_losses, strict=True):
            yield what, size.parameters, loss, seed, None, None
    fit = analysis.variant_fits.get(name)
    noise = fit.noise.get(f"{budget:.6g}") if fit else None
    for size in analysis.ladder(name, budget):
        low, high = None, None
        if noise is not None:  # how far all of the curve's runs scatter
            error = math.hypot(noise.run_spread, noise.seed_spread) / math.sqrt(len(size.seeds))
            freedom = noise.run_freedom + noise.seed_freedom
            mean = WithError(value=size.loss, error=error, degrees_of_freedom=freedom)
            low, high = mean.interval().ends
        yield "mean", size.parameters, size.loss, None, low, high
    found, lowest = result.headline(name), analysis.best(name, budget)
    if found and found.parameters is not None and found.loss is not None:
        low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
        yield "minimum", found.parameters, found.loss, None, low, high
    elif found and lowest:
        yield "refused", lowest.parameters, lowest.loss, None, None, None


def panel(analysis: Analysis) -> draw.Panel:
    """Draw the U-curves, or say that there are none."""
    shown, style = rows(analysis), analysis.style
    if shown.empty:
        return draw.Absent(TITLE, "No run has finished.")
    told = "variant row budget_flops:~e parameters:,.0f loss:.4f low:.4f high:.4f seed"
    loss_title = f"Test loss, {analysis.loss_unit}"
    base = alt.Chart().encode(
        x=draw.count_axis("parameters", "Parameters", list(shown["parameters"])),
        y=draw.linear_axis(alt.Y, "loss", loss_title, shown["loss"], tickCount=7),
        opacity=fading(),
        tooltip=draw.told(told),
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
    named = ("loss-against-parameters", TITLE, _caption(analysis, shown))
    return draw.figure(*named, layers, shown, height=400)


def _caption(analysis: Analysis, shown: pd.DataFrame) -> str:
    caption = (
        "Each point is one trained model; lines join the means over seeds at one budget, which "
        f"the bracket at the right names. A large outlined mark is a minimum (by {HEADLINE} in "
        "log parameters). Bars are 95% intervals: thin ones of a mean (from the "
        "spread of its curve's runs), thick ones of a minimum."
    )
    if (shown["row"] == "off_ladder").any():
        caption += " Hollow points are routed models in a baseline's shape; fits leave them out."
    refused = refusals(analysis)
    if refused:
        caption += (
            " A cross (\N{MULTIPLICATION SIGN}) marks the lowest mean of a curve whose minimum is "
            "refused: " + " ".join(refused)
        )
    return caption


def _brackets(shown: pd.DataFrame, title: str) -> list[alt.Chart]:
    """Label each budget with a bracket at the right of the plot, over the ends of its curves."""
    means = shown[shown["row"] == "mean"].sort_values("parameters")
    height = float(shown["loss"].max() - shown["loss"].min())
    ends = means.groupby(["budget_flops", "variant"])["loss"].last().groupby("budget_flops")
    spans = []
    for budget, low, high in ends.agg(["min", "max"]).itertuples(name=None):
        middle, half = (low + high) / 2, max(high - low, _THINNEST * height) / 2
        spans.append((middle - half, middle + half, f"{exponent(budget)}\nFLOPs"))
    points: list[dict[str, Any]] = []
    for place, (low, high, label) in zip(
        places(spans, _LABEL_HEIGHT * height), sorted(spans), strict=True
    ):
        at = _BRACKET_GAP + place * _BRACKET_STEP
        path = ((at - 5, low), (at, low), (at, high), (at - 5, high), (at + 6, (low + high) / 2))
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


def places(spans: Sequence[tuple[float, float, str]], label: float) -> list[int]:
    """Return columns, as few as keep spans and labels in their middle apart, the lowest first.

    Args:
        spans: lower and upper ends; what else a span holds is not read.
        label: height of a label.
    """
    tops: list[float] = []
    found = []
    for low, high, *_ in sorted(spans):
        room = max(high - low, label) / 2
        bottom, top = (low + high) / 2 - room, (low + high) / 2 + room
        place = next((i for i, before in enumerate(tops) if bottom > before), len(tops))
        tops[place : place + 1] = [top]
        found.append(place)
    return found


def _minima_table(analysis: Analysis) -> list[blocks.Table]:
    """Return a row per budget and variant with the minimum by each estimator."""
    nat = analysis.bits_per_nat
    found = [
        {
            "#Budget": scientific(result.budget_flops),
            ".Variant": blocks.variant(name),
            **{
                f"#{ESTIMATOR_WORDS[estimator]}": _minimum(result, name, estimator)
                for estimator in analysis.estimators
            },
            **({"#Bits per byte": _in_bits(first.loss, nat)} if nat else {}),
            "#Forward FLOPs": blocks.NONE
            if first.forward_flops is None
            else scientific(first.forward_flops, 3, trim=False),
        }
        for result in analysis.budgets
        for name in analysis.names
        if (first := result.headline(name)) is not None
    ]
    caption = (
        "Minima of loss over log parameters, by estimator, with 95% intervals: for parabola and "
        "Akima how far runs scatter, where seeds or sizes tell it, and what the estimator gets "
        "wrong without noise; for the surfaces residuals redrawn. With one seed and few sizes the "
        "intervals hold no noise. The words above use the first, the parabola; how far the "
        "estimators disagree is a systematic error. Forward FLOPs are per token."
        + (" Bits per byte are of the first: they compare between tokenizers." if nat else "")
    )
    return [blocks.table(caption, found)] if found else []


def _in_bits(loss: float | None, nat: float) -> str:
    return blocks.NONE if loss is None else f"{loss * nat:.4f}"


def _minimum(result: BudgetResult, name: str, estimator: Estimator) -> blocks.Text:
    found = result.minima[name, estimator]
    if found.loss is None or found.parameters is None:
        return (blocks.Styled("hint", f"refused: {found.status.replace('_', ' ')}", found.message),)
    _, loss = found.estimates()
    text = f"{found.loss:.4f} at {count(found.parameters)}"
    return blocks.with_ends(text, loss.interval_words() or None)


def _claims_table(analysis: Analysis, result: BudgetResult) -> blocks.Table:
    """Return a row per published claim; a study with doubts has no verdicts, only numbers."""
    found = claims(analysis)
    looks = {"no verdict": "unresolved", "not held": "not-held"}
    return blocks.table(
        f"Published claims (arXiv 2404.02258) at {result.told}, each judged on its own at the "
        "noise measured here (95% intervals, not corrected for their number).",
        [
            {
                "Claim": one["statement"],
                "Here": (blocks.Styled("badge", told := one["verdict"], looks.get(told, told)),),
                "Numbers": one["numbers"],
            }
            for one in found[found["budget_flops"] == result.budget_flops].to_dict("records")
        ],
        after=" No verdict stands at this budget and these seeds; the numbers are shown for what "
        "they are."
        if doubts(analysis)
        else "",
        csv="claims",
        data=found,
    )


def claims(analysis: Analysis) -> pd.DataFrame:
    """Return a row per budget and published claim: `statement`, `verdict`, `numbers` in words.

    `difference` with its ends is what was judged, below zero on the claimed side: of losses, or of
    log parameters where the claim is about sizes. A study with doubts has no verdicts.
    """
    doubted = bool(doubts(analysis))
    return pd.DataFrame(
        {
            "budget_flops": result.budget_flops,
            "statement": _capitalised(one.statement),
            "verdict": "no verdict" if doubted else one.verdict,
            **blocks.with_columns("difference", one.interval),
            "numbers": _capitalised(one.sentence.removeprefix(f"{one.verdict.capitalize()}: ")),
        }
        for result in analysis.budgets
        for one in result.claims
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
