"""The parts of a page: what figures and tables show is what the runs hold."""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd
import pytest
import synthetic_study as synthetic
from made_reports import absent_of, analysed, bench_rows, figures_of, html_of, told
from test_page import Elements

from isoflop.config import Variant
from isoflop.fit.settings import HUBER_DELTA
from isoflop.report import BenchRow, Evidence
from isoflop.report.blocks import Section, table
from isoflop.report.figure import DATA, figure, thinned
from isoflop.report.render import write_figure
from isoflop.report.sections import STUDY
from isoflop.report.sections.fit_quality import estimator_minima, residuals, shown_range
from isoflop.report.sections.numbered_models import model_costs
from isoflop.report.sections.relative_loss import areas

NAMES = [
    "loss-against-parameters",
    "league-losses",
    "league-compute",
    "relative-loss-5e12",
    "training-flops-5e12",
    "training-seconds-5e12",
    "flops-per-step-5e12",
    "steps-per-second-5e12",
    "published-minima",
    "published-models",
    "estimator-losses",
    "estimator-sizes",
]


def test_a_new_figure_is_one_function_that_a_page_lists(analysis, monkeypatch):
    def section(analysis):
        shown = analysis.table[["tokens", "loss"]]
        drawn = alt.Chart().mark_point().encode(x="tokens:Q", y="loss:Q")
        named = ("own-figure", "Loss against tokens", "How to read it.")
        own = figure(*named, [drawn], shown, height=90)
        return Section("A new part", [own, table("Its numbers.", [{"#Runs": "7"}], csv="own")])

    monkeypatch.setattr("isoflop.report.sections.STUDY", (*STUDY, section))
    assert list(figures_of(analysis)) == [*NAMES, "own-figure"]
    html = html_of(analysis)
    words = Elements(html).words
    assert "A new part" in words
    assert f"Figure {len(NAMES) + 1}. Loss against tokens. How to read it." in words
    assert 'href="figures/own-figure.csv"' in html
    assert 'href="figures/own.csv"' in html
    assert "Its numbers. CSV Runs 7 " in words


@pytest.mark.parametrize("of", ["analysis", "bumped"])
def test_every_figure_is_valid_and_draws_the_rows_of_its_table(of, request):
    figures = figures_of(request.getfixturevalue(of))
    if of == "analysis":
        assert list(figures) == NAMES
    for one in figures.values():
        spec = one.spec()
        assert spec["width"] == "container"
        assert spec["data"]["name"] == DATA
        drawn, rows = spec["data"]["values"], one.table.to_dict("records")
        assert len(drawn) == len(rows) > 0
        for point, row in zip(drawn, rows, strict=True):
            assert set(point) == set(row)
            for column, value in row.items():
                missing = not isinstance(value, str) and (pd.isna(value) or math.isinf(value))
                assert point[column] == (None if missing else value)
        if of == "analysis" or one.name not in NAMES:
            spec["data"]["values"] = drawn[:2]  # validating rows takes seconds
            alt.LayerChart.validate(spec)  # raises when the specification is not valid


def test_wall_clock_is_steps_over_measured_speed_and_asked_for_where_it_is_not(analysis, runs):
    costs = model_costs(analysis, analysis.budgets[0].figure3).set_index("number")
    for row in figures_of(analysis)["training-seconds-5e12"].table.to_dict("records"):
        cost = costs.loc[row["number"]]
        assert row["seconds"] == pytest.approx(row["step"] / cost["steps_per_second"])
        assert row["flops"] == pytest.approx(row["step"] * cost["flops_per_step"])
    absent = absent_of(told(analysis, speeds=[]))
    assert list(absent) == ["Training loss against wall-clock", "Steps per second"]
    assert all("isoflop bench train" in text for text in absent.values())
    first = [row for row in bench_rows(runs) if row.parameters == costs.loc[1, "parameters"]]
    drawn = figures_of(told(analysis, speeds=first))["steps-per-second-5e12"]
    assert "Not measured: model 2, model 4." in drawn.caption


def test_a_bench_row_counts_only_for_the_same_step():
    row = BenchRow(variant="a", parameters=10, flops_per_step=100, steps_per_second=4, extra=1)
    measured = Evidence(speeds=[row]).steps_per_second
    assert measured("a", 10, 100.5) == 4
    assert measured("a", 10, 200) is measured("b", 10, 100) is measured("a", 11, 100) is None


def test_nothing_finished_gives_no_figures(study):
    failed = synthetic.diverged(study.variants[0], 5e12, 64, "NaN")
    analysis = analysed(study, [("Baseline", 5e12, failed)])
    assert absent_of(analysis) == {"Loss against parameters": "No run has finished."}
    # The published values stand alone then; they are marked as such by their source.
    figures = figures_of(analysis)
    assert list(figures) == ["published-minima", "published-models"]
    sources = set(figures["published-minima"].table["source"])
    assert sources == {"published (digitised, approximate)"}


def test_a_study_without_routing_has_no_published_counterpart():
    variants = (Variant(name="Baseline"), Variant(name="Other"))
    runs = synthetic.runs(synthetic.study(seeds=(0,), variants=variants[:1]))
    named = [(variants[i % 2].name, *run[1:]) for i, run in enumerate(runs)]
    analysis = analysed(synthetic.study(seeds=(0,), variants=variants), named)
    assert not any(name.startswith("published") for name in figures_of(analysis))
    assert "no routed variant" in absent_of(analysis)["Four models"]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_thinning_keeps_the_end_and_the_mean(logarithmic):
    steps, losses = 5.0 * np.arange(1, 402), np.random.default_rng(0).random(401)
    few, means = thinned(steps, losses, 12, logarithmic=logarithmic)
    assert len(few) <= 12
    assert few[-1] == steps[-1]
    assert np.diff(few, prepend=0) @ means == pytest.approx(5 * losses.sum())
    apart = few[6:] / few[5:-1] if logarithmic else np.diff(few[:-1])
    assert max(apart) / min(apart) < 1.3
    for number in (0, 12):  # as they are
        kept = thinned(steps[:number], losses[:number], 12, logarithmic=logarithmic)
        assert np.allclose(kept, [steps[:number], losses[:number]])


def test_the_run_off_the_surface_has_the_residual(bumped):
    both = pd.concat([residuals(bumped, result) for result in bumped.budgets])
    assert both["row"].value_counts().to_dict() == {"run": 4 * 7, "mean": 4 * 7}
    off = both[both["residual"].abs() > HUBER_DELTA]
    assert off["row"].tolist() == ["run", "mean"]
    truth = off["loss"].iloc[0] - synthetic.BUMP
    expected = math.log1p(synthetic.BUMP / truth)
    assert off["residual"].tolist() == pytest.approx([expected] * 2, abs=1e-3)
    assert both.loc[both["variant"] == "MoD 12.5%", "residual"].abs().max() < 1e-8


def test_one_huge_interval_does_not_squeeze_the_others(bumped):
    shown = estimator_minima(bumped)
    before = shown_range(shown, "loss_difference")
    at = shown["loss_difference_low"].first_valid_index()
    shown.loc[at, "loss_difference_low"] = -1.0
    ends = shown_range(shown, "loss_difference")
    marks = shown["loss_difference"]
    assert -0.5 < min(ends) < marks.min() < marks.max() < max(ends)
    assert max(ends) == pytest.approx(max(before), abs=0.1 * (max(ends) - min(ends)))


@pytest.mark.parametrize("sizes", [[40_656.0], [40_656.0, 41_920.0], [8e8], [5_416.0, 139e3]])
def test_bubbles_of_one_size_have_a_round_one_in_their_legend(sizes, tmp_path):
    """Models that go on from a checkpoint have all the one size, mostly between round numbers."""
    shown = pd.DataFrame({"parameters": sizes, "loss": [3.0] * len(sizes)})
    size = areas(shown["parameters"])
    values = size.to_dict()["legend"]["values"]
    assert 1 <= len(values) <= 3
    assert 0.1 * max(sizes) < values[-1] <= max(sizes)
    bubbles = alt.Chart().mark_point().encode(x="loss:Q", y="loss:Q", size=size)
    drawn = figure("bubbles", "Title", "Told.", [bubbles], shown, height=90)
    assert "<svg" in write_figure(drawn, tmp_path)
