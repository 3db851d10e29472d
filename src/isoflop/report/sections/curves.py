"""The result: loss against parameters, one U-curve per variant and budget, and its minima.

After figures 3 and 4 of arXiv 2404.02258.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from isoflop.fit.intervals import WithError
from isoflop.fit.minima.noise import RunNoise
from isoflop.fit.tables.frame import TrainedSize
from isoflop.notation import count, exponent, scientific
from isoflop.papers.claims import Claim
from isoflop.report.analysis import HEADLINE, Analysis, BudgetResult
from isoflop.report.blocks import (
    NONE,
    Block,
    Heading,
    Paragraph,
    Section,
    Sentences,
    Styled,
    Table,
    Text,
    columns,
    variant,
    with_ends,
)
from isoflop.report.figure import (
    Absent,
    Figure,
    Panel,
    count_axis,
    figure,
    inline,
    padded,
    tooltips,
)
from isoflop.report.theme import INK, MUTED, PICKED, Style, fading
from isoflop.report.words.results import ESTIMATOR_WORDS, doubts, refusals, results

NAME, TITLE = "loss-against-parameters", "Loss against parameters"

_Row = tuple[str, str, float, float, float, int | None, float | None, float | None]

_TOOLTIP = (
    ("variant:N", "Variant"),
    ("row:N", "Point"),
    ("budget_flops:Q", "Budget, FLOPs", "~e"),
    ("parameters:Q", "Parameters", ",.0f"),
    ("loss:Q", "Loss", ".4f"),
    ("low:Q", "95% from", ".4f"),
    ("high:Q", "to", ".4f"),
    ("seed:Q", "Seed"),
)

_BRACKET_GAP = 10
_BRACKET_STEP = 58
_THINNEST = 0.02
_LABEL_HEIGHT = 0.08
"""Shares of the range of losses: the least height of a bracket, the height of its label."""


def section(analysis: Analysis) -> Section:
    """Return the answer in words, the curves, the minima, and the published claims."""
    blocks: list[Block] = []
    for result in analysis.budgets:
        if len(analysis.budgets) > 1:
            blocks.append(Heading(f"{scientific(result.budget_flops)} FLOPs"))
        blocks.append(Sentences(results(analysis, result)))
    hint = (
        "A click on a variant in the legend fades the others, a second click undoes it. Points "
        "tell their numbers."
    )
    blocks += [Paragraph(hint, "caption hint"), panel(analysis), minima_table(analysis)]
    judged = [result for result in analysis.budgets if result.claims]
    return Section("Result", [*blocks, *(claims_table(analysis, result) for result in judged)])


def panel(analysis: Analysis) -> Panel:
    """Draw the U-curves, or say that there are none."""
    table = rows(analysis)
    if table.empty:
        return Absent(TITLE, "No run has finished.")
    caption = (
        "Each point is one trained model; lines join the means over seeds at one budget, which "
        f"the bracket at the right names. A large outlined mark is a minimum (by {HEADLINE} in "
        "log parameters). Bars are 95% intervals: thin ones of a mean (from the "
        "spread of its curve's runs), thick ones of a minimum."
    )
    if (table["row"] == "off_ladder").any():
        caption += " Hollow points are routed models in a baseline's shape; fits leave them out."
    refused = refusals(analysis)
    if refused:
        caption += (
            " A cross (\N{MULTIPLICATION SIGN}) marks the lowest mean of a curve whose minimum is "
            "refused: " + " ".join(refused)
        )
    return _drawn(analysis, table, caption)


def rows(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of the U-curves: runs, means over seeds, minima and refusals.

    Columns: `row` (run, off_ladder, mean, minimum, refused), `variant`, `budget_flops`,
    `parameters`, `loss`, `seed`, `low` and `high`, the ends of the 95% intervals of means and
    minima. A refused minimum has a row of its own, at the lowest mean, so that it is seen.
    """
    found: list[_Row] = []
    for result in analysis.budgets:
        for name in analysis.names:
            found += _curve_rows(analysis, result, name)
    names = ["row", "variant", "budget_flops", "parameters", "loss", "seed", "low", "high"]
    kinds = {"seed": "Int64", "low": "float64", "high": "float64"}
    return pd.DataFrame(found, columns=names).astype(kinds)


def _curve_rows(analysis: Analysis, result: BudgetResult, name: str) -> Iterator[_Row]:
    budget = result.budget_flops
    for size in analysis.sizes(name, budget):
        what = "run" if size.on_ladder else "off_ladder"
        for seed, loss in zip(size.seeds, size.seed_losses, strict=True):
            yield what, name, budget, size.parameters, loss, seed, None, None
    ladder, noise = analysis.ladder(name, budget), analysis.noise(name, budget)
    for size in ladder:
        ends = _mean_ends(size, noise)
        yield "mean", name, budget, size.parameters, size.loss, None, *ends
    found = result.headline(name)
    if found is None:
        return
    if found.parameters is not None and found.loss is not None:
        low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
        yield "minimum", name, budget, found.parameters, found.loss, None, low, high
    elif ladder:
        lowest = min(ladder, key=lambda size: size.loss)
        yield "refused", name, budget, lowest.parameters, lowest.loss, None, None, None


def _mean_ends(
    size: TrainedSize, noise: RunNoise | None
) -> tuple[float, float] | tuple[None, None]:
    """Return the 95% interval of a size's mean loss, from the spread of all of its curve's runs."""
    if noise is None:
        return None, None
    error = math.hypot(noise.run_spread, noise.seed_spread) / math.sqrt(len(size.seed_losses))
    freedom = noise.run_freedom + noise.seed_freedom
    return WithError(value=size.loss, error=error, degrees_of_freedom=freedom).interval().ends


def minima_table(analysis: Analysis) -> Table:
    """Return a row per budget and variant with the minimum by each estimator."""
    found: list[list[Text]] = []
    for result in analysis.budgets:
        for name in analysis.names:
            minima = [result.minima.get((name, estimator)) for estimator in analysis.estimators]
            if all(one is None for one in minima):
                continue
            cells: list[Text] = []
            for one in minima:
                if one is None:
                    continue
                if one.loss is None:
                    refused = f"refused: {one.status.replace('_', ' ')}"
                    cells.append((Styled("hint", refused, one.message),))
                    continue
                size, loss = one.estimates()
                text = f"{one.loss:.4f} at {count(size.value)}"
                cells.append(with_ends(text, loss.interval_words() or None))
            first = minima[0]
            flops = first.forward_flops if first else None
            forward = NONE if flops is None else scientific(flops, 3, trim=False)
            found.append([scientific(result.budget_flops), variant(name), *cells, forward])
    return Table(
        "Minima of loss over log parameters, by estimator, with 95% intervals: for parabola and "
        "Akima how far runs scatter, where seeds or sizes tell it, and what the estimator gets "
        "wrong without noise; for the surfaces residuals redrawn. With one seed and few sizes the "
        "intervals hold no noise. The words above use the first, the parabola; how far the "
        "estimators disagree is a systematic error. Forward FLOPs are per token.",
        columns(
            "#Budget",
            ".Variant",
            *(f"#{ESTIMATOR_WORDS[name]}" for name in analysis.estimators),
            "#Forward FLOPs",
        ),
        found,
    )


def claims_table(analysis: Analysis, result: BudgetResult) -> Table:
    """Return a row per published claim; a study with doubts has no verdicts, only numbers."""
    doubted = bool(doubts(analysis))
    badges = [Styled("badge", verdict(one, doubted), _badge(one, doubted)) for one in result.claims]
    return Table(
        f"Published claims (arXiv 2404.02258) at {scientific(result.budget_flops)} FLOPs, each "
        "judged on its own at the noise measured here (95% intervals, not corrected for their "
        "number).",
        columns("Claim", "Here", "Numbers"),
        [
            [_capitalised(one.statement), (badge,), numbers(one)]
            for one, badge in zip(result.claims, badges, strict=True)
        ],
        after=" No verdict stands at this budget and these seeds; the numbers are shown for what "
        "they are."
        if doubted
        else "",
        csv="claims",
        data=claims(analysis),
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
            "statement": _capitalised(claim.statement),
            "verdict": verdict(claim, doubted),
            "difference": claim.interval.value if claim.interval else None,
            "difference_low": claim.interval.low if claim.interval else None,
            "difference_high": claim.interval.high if claim.interval else None,
            "numbers": numbers(claim),
        }
        for result in analysis.budgets
        for claim in result.claims
    )


def verdict(claim: Claim, doubted: bool) -> str:
    """Return what became of a claim."""
    return "no verdict" if doubted else claim.verdict


def numbers(claim: Claim) -> str:
    """Return a claim's numbers in words; the verdict stands in a column of its own."""
    return _capitalised(claim.sentence.removeprefix(f"{claim.verdict.capitalize()}: "))


def _badge(claim: Claim, doubted: bool) -> str:
    return "unresolved" if doubted else claim.verdict.replace(" ", "-")


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _drawn(analysis: Analysis, table: pd.DataFrame, caption: str) -> Figure:
    style, loss_title = analysis.style, f"Test loss, {analysis.loss_unit}"
    x = count_axis("parameters", "Parameters", list(table["parameters"]))
    y = alt.Y(
        "loss:Q",
        title=loss_title,
        scale=alt.Scale(domain=padded(list(table["loss"])), nice=False, zero=False),
        axis=alt.Axis(tickCount=7),
    )
    tooltip = tooltips(*_TOOLTIP)
    base = alt.Chart().encode(x=x, y=y)
    lines = (
        base.transform_filter("datum.row === 'mean'")
        .mark_line(strokeWidth=1.5, strokeOpacity=0.85)
        .encode(color=style.colour(), detail="budget_flops:N", opacity=fading())
    )
    runs = (
        base.transform_filter("datum.row === 'run'")
        .mark_point(filled=True, size=26, fillOpacity=0.5)
        .encode(color=style.colour(), shape=style.shape(), tooltip=tooltip, opacity=fading())
    )
    off_ladder = (
        base.transform_filter("datum.row === 'off_ladder'")
        .mark_point(filled=False, size=30, strokeWidth=1.2)
        .encode(color=style.colour(), shape=style.shape(), tooltip=tooltip, opacity=fading(0.7))
    )
    minima = (
        base.transform_filter("datum.row === 'minimum'")
        .mark_point(filled=True, size=95, stroke=INK, strokeWidth=1.4)
        .encode(fill=style.fill(), shape=style.shape(), tooltip=tooltip, opacity=fading())
    )
    refused = (
        base.transform_filter("datum.row === 'refused'")
        .mark_text(text="\N{MULTIPLICATION SIGN}", fontSize=20, fontWeight="bold")
        .encode(color=style.colour(), tooltip=tooltip, opacity=fading())
    )
    return figure(
        NAME,
        TITLE,
        caption,
        [
            lines.add_params(PICKED),
            runs,
            off_ladder,
            *_bars(base, style),
            minima,
            refused,
            *_brackets(table, loss_title),
        ],
        table,
        height=400,
    )


def _bars(base: alt.Chart, style: Style) -> list[alt.Chart]:
    """Draw the intervals of means and of minima."""
    between = base.transform_filter("isValid(datum.low)").encode(
        y="low:Q", y2="high:Q", opacity=fading()
    )
    mean_bars = between.transform_filter("datum.row === 'mean'").mark_rule(
        strokeWidth=1, strokeOpacity=0.55, clip=True
    )
    minimum_bars = between.transform_filter("datum.row === 'minimum'").mark_rule(
        strokeWidth=2.4, color=INK, clip=True
    )
    return [mean_bars.encode(color=style.colour()), minimum_bars]


@dataclass(frozen=True)
class _Bracket:
    label: str
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


def _brackets(table: pd.DataFrame, title: str) -> list[alt.Chart]:
    """Label each budget with a bracket at the right, over the ends of its curves."""
    means = table[table["row"] == "mean"]
    height = float(table["loss"].max() - table["loss"].min())
    brackets = []
    for budget in means["budget_flops"].unique().tolist():
        of_budget = means[means["budget_flops"] == budget].sort_values("parameters")
        ends = of_budget.groupby("variant")["loss"].last()
        low, high = float(ends.min()), float(ends.max())
        room = max(0.0, (_THINNEST * height - (high - low)) / 2)
        brackets.append(_Bracket(f"{exponent(budget)}\nFLOPs", low - room, high + room))
    layers = []
    for column, members in enumerate(_columns(brackets, _LABEL_HEIGHT * height / 2)):
        data = inline(
            pd.DataFrame(
                {"label": one.label, "loss": one.low, "high": one.high, "middle": one.middle}
                for one in members
            ),
            f"brackets-{column}",
        )
        layers += _column(alt.Chart(data), _BRACKET_GAP + column * _BRACKET_STEP, title)
    return layers


def _column(base: alt.Chart, offset: int, title: str) -> list[alt.Chart]:
    """Draw brackets `offset` pixels to the right of the plot."""
    edge = alt.value("width")
    spine = base.mark_rule(color=MUTED, xOffset=offset).encode(
        x=edge, y=alt.Y("loss:Q", title=title), y2="high:Q"
    )
    ends = [
        base.mark_rule(color=MUTED, xOffset=offset - 5, x2Offset=offset).encode(
            x=edge, x2=edge, y=alt.Y(f"{end}:Q", title=title)
        )
        for end in ("loss", "high")
    ]
    label = base.mark_text(
        color=INK,
        align="left",
        baseline="middle",
        fontSize=11,
        lineBreak="\n",
        xOffset=offset + 6,
        dy=-6,
    ).encode(x=edge, y=alt.Y("middle:Q", title=title), text="label:N")
    return [spine, *ends, label]


def _columns(brackets: Sequence[_Bracket], half_label: float) -> list[list[_Bracket]]:
    """Spread brackets over as few columns as keep them and their labels apart."""
    columns: list[list[_Bracket]] = []
    for one in sorted(brackets, key=lambda one: one.low):
        bottom = min(one.low, one.middle - half_label)
        for column in columns:
            if bottom > max(column[-1].high, column[-1].middle + half_label):
                column.append(one)
                break
        else:
            columns.append([one])
    return columns
