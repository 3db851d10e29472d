"""Figures and tables of a scaling study: what they show is what the runs and the fit hold."""

from __future__ import annotations

from dataclasses import replace

import altair as alt
import pytest
import synthetic_scaling as synthetic
from made_reports import absent_of, analysed_scaling, figures_of, table_of

from isoflop.fit.spans.values import PFLOPS_DAY
from isoflop.papers.moba import published_scaling
from isoflop.report.scaling import AXES, sparsity
from isoflop.report.sections.runs import model_rows
from isoflop.report.sections.scaling.compute import BEYOND, losses_against_compute
from isoflop.report.sections.scaling.gaps import gaps
from isoflop.report.sections.scaling.published import POINTS, figure
from isoflop.report.words.prose import told

PANELS = [
    *(f"positions {start}–{start + 255}" for start in range(0, 2048, 256)),
    "all positions",
    "last 128",
]


@pytest.mark.parametrize("axis", AXES)
def test_panels_are_the_spans_and_curves_end_at_their_runs_compute(scaling, axis):
    table = losses_against_compute(scaling, axis)
    assert table["panel"].drop_duplicates().tolist() == PANELS
    keys = ["panel", "variant", "non_embedding", "seed"]
    ends = table[table["row"] == "curve"].groupby(keys)["compute"].max()
    runs = table[table["row"] == "run"].set_index(keys)
    assert len(runs) == len(ends) == len(PANELS) * 2 * 5 * 3
    assert (ends == runs["compute"].reindex(ends.index)).all()
    by_hand = {
        (variant, record.parameters.non_embedding, record.config.seed): record
        for variant, record in scaling.finished
    }
    for (panel, *run), row in list(runs.iterrows())[::17]:
        record = by_hand[tuple(run)]
        span = record.evaluation("test").spans[PANELS.index(panel)]
        assert row["compute"] == pytest.approx(record.train_flops[axis] / PFLOPS_DAY, rel=1e-4)
        assert row["loss"] == pytest.approx(span.loss, abs=1e-5)


def test_projections_reach_beyond_the_largest_compute_on_the_fitted_line(scaling):
    table = losses_against_compute(scaling, "6nd")
    lines = table[table["row"] == "projection"]
    assert len(lines) == 2 * 2 * len(PANELS)
    farthest = BEYOND * table.loc[table["row"] == "run", "compute"].max()
    assert lines["compute"].max() == pytest.approx(farthest, rel=1e-4)
    span = scaling.spans[3]
    for variant in ("Full attention", "Block attention"):
        law = scaling.projection(variant, span, "6nd")
        own = lines[(lines["variant"] == variant) & (lines["panel"] == scaling.span_names[span])]
        for compute, loss in zip(own["compute"], own["loss"], strict=True):
            assert loss == pytest.approx(law.at(compute), abs=1e-5)


def test_gaps_have_the_mean_and_every_size_in_each_span(scaling):
    table = gaps(scaling)
    assert len(table) == len(PANELS) * (1 + 5)
    assert table["span"].drop_duplicates().tolist()[-3:] == ["1792–2047", "all", "last 128"]
    means = table[table["row"] == "mean"]
    for row in means.to_dict("records"):
        gap = scaling.gap("Block attention", (row["start"], row["stop"]))
        assert (row["difference"], row["low"]) == (gap.difference.value, gap.difference.low)
    marks = set(table.loc[table["row"] == "size", "mark"])
    assert marks == {"213K", "416K", "719K", "1.7M", "3.33M"}


@pytest.mark.slow
def test_figures_follow_the_schema(scaling):
    figures = figures_of(scaling)
    assert list(figures) == [
        "gaps-by-position",
        "loss-against-compute-6nd",
        "loss-against-compute-exact",
        "published-losses",
    ]
    for one in figures.values():
        alt.Chart.from_dict(one.spec() | {"data": {"values": []}}, validate=True)
    panels = figures["loss-against-compute-6nd"]
    assert panels.spec(150)["spec"]["width"] == 150
    assert "width" not in panels.spec()


def test_the_published_figure_is_labelled_and_keeps_the_ends_of_curves():
    drawn = figure()
    assert drawn.title.startswith("Published, not trained here")
    assert "2502.13189" in drawn.caption
    assert "1.06% of the loss apart (median), at most 2.04%" in drawn.caption
    order = drawn.spec()["facet"]["sort"]
    assert (len(order), order[0], order[-1]) == (18, "0K–2K", "last 2K of 32K")
    curves = drawn.table[drawn.table["kind"] == "curve"].set_index(["panel", "attention"])
    assert curves.groupby(level=[0, 1]).size().max() <= 5 * POINTS
    points, lines = published_scaling()
    ends = points.groupby(["panel", "attention", "curve"])["compute"].max()
    for panel in lines["panel"].unique():
        kept = curves.loc[panel, "MoBA"].groupby("curve")["compute"].max()
        assert kept.tolist() == ends[panel, "MoBA"].tolist()


def test_models_tell_shape_compute_and_sparsity(scaling):
    rows = model_rows(scaling)
    assert len(rows) == 10
    sparse = next(row for row in rows if _name(row) == "Block attention")
    told = [sparse[title] for title in ("#Shape", "#Seeds", "#Sparsity")]
    assert told == ["4 × 64", "3", "90.6%"]
    assert {row["#Sparsity"] for row in rows if _name(row) == "Full attention"} == {"full"}
    model = synthetic.record(scaling.study, synthetic.VARIANTS[1], 4, 64).config.model
    assert sparsity(model, 128) == 0.0


def _name(row):
    return row[".Variant"][0].text


def test_learning_rate_checks_are_told_and_not_drawn(scaling):
    rates = table_of(scaling, "Learning rates")
    assert [row[0][0].text for row in rates.rows] == ["Full attention", "Block attention"]
    assert all(row[1] == "6 blocks of width 96" and row[-1] == "yes" for row in rates.rows)
    tried = [part.removesuffix(": ") for part in rates.rows[0][3] if ": " in str(part)]
    assert tried == ["0.004", "0.008*", "0.016"]
    assert rates.data["interior"].all()
    assert len(scaling.table) == 30


def test_refused_projections_are_named_and_not_drawn(scaling):
    refused = tuple(
        one.model_copy(update={"status": "too_few", "message": "1 size", "a": None, "b": None})
        if one.variant == "Block attention" and one.start == 256
        else one
        for one in scaling.fit.projections
    )
    without = replace(scaling, fit=scaling.fit.model_copy(update={"projections": refused}))
    table = losses_against_compute(without, "causal")
    lines = table[(table["row"] == "projection") & (table["panel"] == "positions 256–511")]
    assert set(lines["variant"]) == {"Full attention"}
    said = "Block attention at positions 256–511 (1 size)"
    assert said in figures_of(without)["loss-against-compute-exact"].caption
    assert any(said in doubt for doubt in told("scaling", "doubtful", without))


def test_it_is_said_why_there_are_no_gaps(scaling):
    gap = scaling.fit.gaps[0].model_copy(update={"difference": None, "reason": "one document"})
    without = replace(scaling, fit=scaling.fit.model_copy(update={"gaps": (gap,)}))
    assert absent_of(without)["Gaps by position"] == "One document."


def test_one_variant_alone_is_shown_and_not_compared():
    study = synthetic.study(variants=synthetic.VARIANTS[:1], seeds=(0,))
    analysis = analysed_scaling(study, points=8)
    said = "Full attention alone was trained, so there is nothing to compare it with."
    assert told("scaling", "headline", analysis) == (said,)
    assert told("scaling", "results", analysis) == ()
    assert absent_of(analysis)["Gaps by position"].startswith("No two variants have finished")
    assert "loss-against-compute-6nd" in figures_of(analysis)
