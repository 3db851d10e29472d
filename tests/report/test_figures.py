from __future__ import annotations

import itertools
import math

import altair as alt
import numpy as np
import pandas as pd
import pytest
import synthetic_study as synthetic
from made_reports import analysed, bench_rows

from isoflop.config import CurvePoint, Variant
from isoflop.report.curves import _Bracket, _columns
from isoflop.report.figure import DATA, Figure
from isoflop.report.figures import Absent, study_figures
from isoflop.report.speeds import BenchRow, steps_per_second
from isoflop.report.tables import curves, thinned
from isoflop.report.theme import Style


def test_every_figure_satisfies_the_schema(figures):
    found = figures.all()
    assert [one.name for one in found] == [
        "loss-against-parameters",
        "relative-loss-5e12",
        "training-flops-5e12",
        "training-seconds-5e12",
        "flops-per-step-5e12",
        "steps-per-second-5e12",
        "estimator-losses",
        "estimator-sizes",
        "published-minima",
        "published-models",
    ]
    for one in found:
        spec = one.spec()
        spec["data"]["values"] = spec["data"]["values"][:2]  # validating rows takes seconds
        alt.LayerChart.validate(spec)  # raises when the specification is not valid


def test_charts_draw_the_rows_of_their_tables(figures):
    for one in figures.all():
        spec = one.spec()
        assert spec["width"] == "container"
        assert spec["data"]["name"] == DATA
        own = {layer["data"]["name"] for layer in spec["layer"] if "data" in layer}
        assert own <= {"reference", "brackets-0"}
        drawn, rows = spec["data"]["values"], one.table.to_dict("records")
        assert len(drawn) == len(rows) > 0
        for point, row in zip(drawn, rows, strict=True):
            assert set(point) == set(row)
            for column, value in row.items():
                missing = not isinstance(value, str) and (pd.isna(value) or math.isinf(value))
                assert point[column] == (None if missing else value)


def test_curves_hold_every_run_and_the_mean_over_seeds(analysis, records):
    table = curves(analysis)
    runs = table[table["row"] == "run"]
    assert sorted(runs["loss"]) == sorted(record.evaluation().loss for record in records)
    means = table[table["row"] == "mean"].set_index(["variant", "parameters"])["loss"]
    for key, mean in runs.groupby(["variant", "parameters"])["loss"].mean().items():
        assert means[key] == pytest.approx(mean)
    assert (table["row"] == "minimum").sum() == 4


def test_off_ladder_runs_are_drawn_but_not_joined():
    study = synthetic.study(seeds=(0,), variants=synthetic.VARIANTS[:2])
    runs = synthetic.runs(study)
    chosen = next(record for variant, _, record in runs if variant == "MoD 12.5%")
    analysis = analysed(study, runs, off_ladder=[chosen.run_id])
    table = curves(analysis)
    assert (table["row"] == "off_ladder").sum() >= 1
    caption = study_figures(analysis, []).curves.caption
    assert "Hollow" in caption


def test_relative_losses_are_one_at_the_optimal_baseline(figures):
    table = figures.budgets[0].relative.table
    first = table[table["numbers"].str.contains("1", na=False)]
    assert len(first) == 1
    assert first[["loss_ratio", "forward_flops_ratio"]].to_numpy().tolist() == [[1.0, 1.0]]
    numbers = [n for text in table["numbers"].dropna() for n in text.split(", ")]
    assert sorted(numbers) == ["1", "2", "3", "4"]
    third = table[table["numbers"].str.contains("3", na=False)].iloc[0]
    assert third["loss_ratio"] <= 1
    assert third["forward_flops_ratio"] < 1


def test_one_size_may_hold_two_numbers():
    # The only routed size below the baseline's loss is also the routed optimum.
    study = synthetic.study(seeds=(0,), variants=synthetic.VARIANTS[:2])
    kept = [
        (variant, budget, synthetic.worse(record, 0.2) if routed and width == 48 else record)
        for variant, budget, record in synthetic.runs(study, noise=0)
        for routed, width in [(variant == "MoD 12.5%", record.config.model.width)]
        if not routed or width in (48, 80, 160)
    ]
    table = study_figures(analysed(study, kept), []).budgets[0].relative.table
    assert "3, 4" in set(table["numbers"].dropna())


def test_wall_clock_is_steps_over_measured_speed(figures):
    table = figures.budgets[0].models[1].table
    costs = figures.budgets[0].costs.set_index("number")
    for row in table.to_dict("records"):
        speed = costs.loc[row["number"], "steps_per_second"]
        assert row["seconds"] == pytest.approx(row["step"] / speed)
        assert row["flops"] == pytest.approx(
            row["step"] * costs.loc[row["number"], "flops_per_step"]
        )


def test_without_bench_rows_panels_say_how_to_get_them(analysis):
    panels = study_figures(analysis, []).budgets[0].models
    absent = [panel for panel in panels if isinstance(panel, Absent)]
    assert [panel.title for panel in absent] == [
        "Training loss against wall-clock",
        "Steps per second",
    ]
    assert all("isoflop bench train" in panel.text for panel in absent)


def test_a_bench_row_counts_only_for_the_same_step():
    row = BenchRow(variant="a", parameters=10, flops_per_step=100, steps_per_second=4, extra=1)
    assert steps_per_second([row], "a", 10, 100.5) == 4
    assert steps_per_second([row], "a", 10, 200) is None
    assert steps_per_second([row], "b", 10, 100) is None
    assert steps_per_second([row], "a", 11, 100) is None


def test_partly_measured_models_are_named(analysis, runs, figures):
    costs = figures.budgets[0].costs.set_index("number")
    first = [row for row in bench_rows(runs) if row.parameters == costs.loc[1, "parameters"]]
    panels = study_figures(analysis, first).budgets[0].models
    assert isinstance(panels[3], Figure)
    assert "Not measured: model 2, model 4." in panels[3].caption


def test_an_unbracketed_baseline_is_provisional(tilted):
    figures = study_figures(tilted, [])
    assert figures.agreement == ()  # nothing to compare
    relative = figures.budgets[0].relative
    assert "provisional" in relative.caption
    assert relative.table["numbers"].isna().all()
    assert isinstance(figures.budgets[0].models[0], Absent)
    assert "refused" in figures.curves.caption
    assert (figures.curves.table["row"] == "refused").any()
    assert not (figures.curves.table["row"] == "minimum").any()


def test_nothing_finished_gives_no_figures(study):
    failed = synthetic.diverged(study.variants[0], 5e12, 64, "NaN")
    figures = study_figures(analysed(study, [("Baseline", 5e12, failed)]), [])
    assert isinstance(figures.curves, Absent)
    assert figures.budgets == ()
    # The published values stand alone then; they are marked as such by their source.
    assert {*figures.published[0].table["source"]} == {"published (digitised, approximate)"}


def test_a_study_without_routing_has_no_published_counterpart():
    study = synthetic.study(seeds=(0,), variants=(Variant(name="Baseline"), Variant(name="Other")))
    runs = [
        ("Other" if index % 2 else "Baseline", budget, record)
        for index, (_, budget, record) in enumerate(
            synthetic.runs(study.model_copy(update={"variants": study.variants[:1]}))
        )
    ]
    figures = study_figures(analysed(study, runs), [])
    assert figures.published == ()
    assert isinstance(figures.budgets[0].models[0], Absent)


def test_overlapping_brackets_stand_side_by_side():
    apart = [_Bracket("a", 0.0, 1.0), _Bracket("b", 1.5, 2.0)]
    assert len(_columns(apart, 0.1)) == 1
    assert len(_columns(apart, 0.7)) == 2
    assert len(_columns([_Bracket("a", 0.0, 1.0), _Bracket("b", 0.9, 2.0)], 0.1)) == 2


def test_thinning_keeps_the_end_and_the_mean():
    generator = np.random.default_rng(0)
    curve = [CurvePoint(step=3 * (i + 1), loss=float(generator.random())) for i in range(401)]
    thin = thinned(curve, 50)
    assert len(thin) <= 50
    assert thin[-1].step == curve[-1].step
    assert sum(
        p.loss * (p.step - before)
        for before, p in zip([0, *(p.step for p in thin)], thin, strict=False)
    ) == pytest.approx(3 * sum(p.loss for p in curve))
    assert thinned(curve[:50], 50) == curve[:50]
    assert thinned([], 50) == []


def test_variants_never_share_a_look():
    names = [f"variant {i}" for i in range(12)]
    style = Style.of(names, names[3])
    assert style.names[0] == names[3]
    looks = list(zip(style.colours, style.shapes, strict=True))
    assert all(one != other for one, other in itertools.combinations(looks[:7], 2))


def test_means_and_minima_come_with_intervals(analysis):
    rows = curves(analysis)
    shown = rows[rows["row"].isin(["mean", "minimum"])]
    assert ((shown["low"] < shown["loss"]) & (shown["loss"] < shown["high"])).all()
    assert rows.loc[rows["row"] == "run", "low"].isna().all()


def test_one_run_without_neighbours_has_no_interval():
    study = synthetic.study(seeds=(0,), variants=synthetic.VARIANTS[:1])
    alone = analysed(study, synthetic.runs(study, widths=(48,)))
    assert curves(alone)["low"].isna().all()
