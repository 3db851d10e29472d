"""Scores in tasks against compute, and what they will be at more of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import altair as alt
import pandas as pd

from isoflop.estimate import estimate_words
from isoflop.fit import FitSettings, predict
from isoflop.fit.tasks import FEWEST, RESAMPLES, predict_score
from isoflop.notation import scientific
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis
from isoflop.report.theme import PICKED, fading
from isoflop.report.words.prose import caption
from isoflop.text import visible

MOST = 6
"""Tasks that are shown, each by one metric."""
BEYOND = 4
"""Times the largest budget at which scores are predicted."""
_ENDS, _APART = 1.96, 1.07
_OF_RUN = ["variant", "budget_flops", "loss"]


def section(analysis: Analysis) -> blocks.Section | None:
    """Return a figure of each task, and a table of predictions; None without scores."""
    found = rows(analysis)
    each = {task: found[found["task"] == task] for task in found["task"].unique()[:MOST]}
    parts: list[blocks.Block] = [_panel(analysis, task, own) for task, own in each.items()]
    if predicted := list(_predicted(analysis, each)):
        parts.append(blocks.table(caption("scores", BEYOND), predicted))
    return blocks.Section("Tasks", parts) if parts else None


def rows(analysis: Analysis) -> pd.DataFrame:
    """Return a row per finished run and score from 0 to 1 under its headline decision."""
    runs = analysis.table[analysis.table["state"] == "finished"].set_index("run_id")
    made = [
        (
            visible(f"{one.task}, {one.metric}"),
            *runs.loc[run_id, _OF_RUN],
            one.value,
            one.error or 0.0,
        )
        for run_id, told in analysis.evidence.tasks.items()
        if run_id in runs.index
        for one in told.scores
        if 0 <= one.value <= 1
        and one.limit is None
        and one.decision == analysis.records[run_id].config.model.decisions[0]
    ]
    found = pd.DataFrame(made, columns=["task", *_OF_RUN, "score", "error"])
    half = _ENDS * found["error"]
    return found.assign(low=found["score"] - half, high=found["score"] + half)


def _panel(analysis: Analysis, task: str, shown: pd.DataFrame) -> draw.Panel:
    style, ends = analysis.style, [*shown["low"], *shown["high"]]
    # Variants beside one another, since they are trained for the same budgets.
    beside = _APART ** shown["variant"].map(analysis.names.index)
    shown = shown.assign(drawn_at=shown["budget_flops"] * beside)
    values, ticks = list(shown["drawn_at"]), list(shown["budget_flops"].unique())
    label = draw.POWER_LABEL
    base = alt.Chart().encode(
        x=draw.log_axis("drawn_at", "Training FLOPs", values, 1.3, ticks, labelExpr=label),
        y=draw.linear_axis(alt.Y, "score", task, ends),
        color=style.colour(),
        opacity=fading(),
        tooltip=draw.told("variant budget_flops:~e loss:.4f score:.4f low:.4f high:.4f"),
    )
    bars = (
        base.mark_rule(strokeOpacity=0.5)
        .encode(y=alt.Y("low:Q", title=task), y2="high:Q")
        .add_params(PICKED)
    )
    points = base.encode(shape=style.shape()).mark_point(filled=True, size=32, fillOpacity=0.6)
    told = f"Each point is a run's score in {task}, with its 95% interval over samples."
    named = "task-" + "".join(one if one.isalnum() else "-" for one in task.lower())
    return draw.figure(named, task, told, [bars, points], shown, height=260)


def _predicted(
    analysis: Analysis, each: Mapping[str, pd.DataFrame]
) -> Iterator[dict[str, blocks.Text]]:
    each = {k: v for k, v in each.items() if len(v) >= FEWEST and v["loss"].nunique() > 1}
    at = BEYOND * max(analysis.study.budgets_flops)
    made = predict(analysis.table, at, FitSettings(resamples=RESAMPLES)) if each else ()
    losses = {one.variant: one.loss for one in reversed(made) if one.loss is not None}
    for task, own in each.items():
        for name, loss in losses.items():
            score = predict_score(own["loss"], own["score"], own["error"], loss)
            yield {
                "Task": task,
                ".Variant": blocks.variant(name),
                "#Budget": scientific(at),
                "#Loss": estimate_words(loss),
                "#Score": estimate_words(score),
                "#Runs": str(len(own)),
            }
