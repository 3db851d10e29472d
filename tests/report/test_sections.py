"""The parts of a page: what figures and tables show is what the runs hold."""

from __future__ import annotations

import itertools
import math

import altair as alt
import numpy as np
import pandas as pd
import pytest
import synthetic_study as synthetic
from made_reports import (
    absent_of,
    analysed,
    bench_rows,
    figures_of,
    html_of,
    table_of,
    told,
)
from test_page import Elements

from isoflop.config import CurvePoint, Variant
from isoflop.report import BenchRow, Evidence, sections
from isoflop.report.blocks import Section, Table, columns
from isoflop.report.figure import DATA, figure
from isoflop.report.sections.curves import _Bracket, _columns, rows
from isoflop.report.sections.numbered_models import model_costs, thinned
from isoflop.report.theme import Style

NAMES = [
    "loss-against-parameters",
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
        table = analysis.table[["tokens", "loss"]]
        drawn = alt.Chart().mark_point().encode(x="tokens:Q", y="loss:Q")
        own = figure(
            "own-figure", "Loss against tokens", "How to read it.", [drawn], table, height=90
        )
        beside = Table("Its numbers.", columns("#Runs"), [[str(len(table))]], csv="own", data=table)
        return Section("A new part", [own, beside])

    monkeypatch.setattr(sections, "STUDY", (*sections.STUDY, section))
    assert list(figures_of(analysis)) == [*NAMES, "own-figure"]
    html = html_of(analysis)
    words = Elements(html).words
    assert "A new part" in words
    assert f"Figure {len(NAMES) + 1}. Loss against tokens. How to read it." in words
    assert 'href="figures/own-figure.csv"' in html
    assert 'href="figures/own.csv"' in html
    assert f"Its numbers. CSV Runs {len(analysis.table)} " in words


def test_every_figure_satisfies_the_schema(figures):
    assert list(figures) == NAMES
    for one in figures.values():
        spec = one.spec()
        spec["data"]["values"] = spec["data"]["values"][:2]  # validating rows takes seconds
        alt.LayerChart.validate(spec)  # raises when the specification is not valid


def test_charts_draw_the_rows_of_their_tables(figures):
    for one in figures.values():
        spec = one.spec()
        assert spec["width"] == "container"
        assert spec["data"]["name"] == DATA
        own = {layer["data"]["name"] for layer in spec["layer"] if "data" in layer}
        assert own <= {"reference", "brackets-0"}
        drawn, table = spec["data"]["values"], one.table.to_dict("records")
        assert len(drawn) == len(table) > 0
        for point, row in zip(drawn, table, strict=True):
            assert set(point) == set(row)
            for column, value in row.items():
                missing = not isinstance(value, str) and (pd.isna(value) or math.isinf(value))
                assert point[column] == (None if missing else value)


def test_curves_hold_every_run_and_the_mean_over_seeds_with_intervals(analysis, records):
    table = rows(analysis)
    runs = table[table["row"] == "run"]
    assert sorted(runs["loss"]) == sorted(record.evaluation().loss for record in records)
    assert runs["low"].isna().all()
    means = table[table["row"] == "mean"].set_index(["variant", "parameters"])["loss"]
    for key, mean in runs.groupby(["variant", "parameters"])["loss"].mean().items():
        assert means[key] == pytest.approx(mean)
    assert (table["row"] == "minimum").sum() == 4
    shown = table[table["row"].isin(["mean", "minimum"])]
    assert ((shown["low"] < shown["loss"]) & (shown["loss"] < shown["high"])).all()
    study = synthetic.study(seeds=(0,), variants=synthetic.VARIANTS[:1])
    alone = analysed(study, synthetic.runs(study, widths=(48,)))
    assert rows(alone)["low"].isna().all()


def test_off_ladder_runs_are_drawn_but_not_joined():
    study = synthetic.study(seeds=(0,), variants=synthetic.VARIANTS[:2])
    runs = synthetic.runs(study)
    chosen = next(record for variant, _, record in runs if variant == "MoD 12.5%")
    drawn = figures_of(analysed(study, runs, off_ladder=[chosen.run_id]))["loss-against-parameters"]
    assert (drawn.table["row"] == "off_ladder").sum() >= 1
    assert "Hollow" in drawn.caption


def test_relative_losses_are_one_at_the_optimal_baseline(figures):
    table = figures["relative-loss-5e12"].table
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
    table = figures_of(analysed(study, kept))["relative-loss-5e12"].table
    assert "3, 4" in set(table["numbers"].dropna())


def test_wall_clock_is_steps_over_measured_speed_and_asked_for_where_it_is_not(analysis, figures):
    costs = model_costs(analysis, analysis.budgets[0].figure3).set_index("number")
    for row in figures["training-seconds-5e12"].table.to_dict("records"):
        cost = costs.loc[row["number"]]
        assert row["seconds"] == pytest.approx(row["step"] / cost["steps_per_second"])
        assert row["flops"] == pytest.approx(row["step"] * cost["flops_per_step"])
    absent = absent_of(told(analysis, speeds=[]))
    assert list(absent) == ["Training loss against wall-clock", "Steps per second"]
    assert all("isoflop bench train" in text for text in absent.values())


def test_a_bench_row_counts_only_for_the_same_step():
    row = BenchRow(variant="a", parameters=10, flops_per_step=100, steps_per_second=4, extra=1)
    measured = Evidence(speeds=[row]).steps_per_second
    assert measured("a", 10, 100.5) == 4
    assert measured("a", 10, 200) is measured("b", 10, 100) is measured("a", 11, 100) is None


def test_partly_measured_models_are_named(analysis, runs):
    costs = model_costs(analysis, analysis.budgets[0].figure3).set_index("number")
    first = [row for row in bench_rows(runs) if row.parameters == costs.loc[1, "parameters"]]
    drawn = figures_of(told(analysis, speeds=first))["steps-per-second-5e12"]
    assert "Not measured: model 2, model 4." in drawn.caption


def test_an_unbracketed_baseline_is_provisional(tilted):
    figures = figures_of(tilted)
    assert "estimator-losses" not in figures  # nothing to compare
    relative = figures["relative-loss-5e12"]
    assert "provisional" in relative.caption
    assert relative.table["numbers"].isna().all()
    assert "Four models" in absent_of(tilted)
    curves = figures["loss-against-parameters"]
    assert "refused" in curves.caption
    assert {"refused"} <= set(curves.table["row"])
    assert "minimum" not in set(curves.table["row"])


def test_nothing_finished_gives_no_figures(study):
    failed = synthetic.diverged(study.variants[0], 5e12, 64, "NaN")
    analysis = analysed(study, [("Baseline", 5e12, failed)])
    assert absent_of(analysis) == {"Loss against parameters": "No run has finished."}
    figures = figures_of(analysis)
    assert list(figures) == ["published-minima", "published-models"]
    # The published values stand alone then; they are marked as such by their source.
    sources = set(figures["published-minima"].table["source"])
    assert sources == {"published (digitised, approximate)"}


def test_a_study_without_routing_has_no_published_counterpart():
    study = synthetic.study(seeds=(0,), variants=(Variant(name="Baseline"), Variant(name="Other")))
    alike = synthetic.runs(study.model_copy(update={"variants": study.variants[:1]}))
    names = itertools.cycle(["Baseline", "Other"])
    analysis = analysed(
        study,
        [(name, budget, record) for name, (_, budget, record) in zip(names, alike, strict=False)],
    )
    assert not any(name.startswith("published") for name in figures_of(analysis))
    assert "no routed variant" in absent_of(analysis)["Four models"]


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


def test_claims_come_with_what_was_judged(pair):
    table = table_of(pair, "Published claims")
    data = table.data
    assert data["statement"].tolist() == [row[0] for row in table.rows]
    assert data["verdict"].tolist() == [row[1][0].text for row in table.rows]
    larger = data[data["statement"].str.contains("more parameters")].iloc[0]
    assert larger["verdict"] == "held"
    # The ratio that the words state is the exponential of what was judged.
    assert f" {math.exp(-larger['difference']):.2f} [" in larger["numbers"]
    assert larger["difference_low"] < larger["difference"] < larger["difference_high"] < 0


def test_a_doubted_study_has_no_verdicts():
    study = synthetic.study((1e12,), (0,), synthetic.VARIANTS[:2])
    table = table_of(
        analysed(study, synthetic.runs(study, widths=(32, 64, 96, 128))), "Published claims"
    )
    assert set(table.data["verdict"]) == {"no verdict"}
    assert {row[1][0].text for row in table.rows} == {"no verdict"}
    assert not table.data["numbers"].str.contains("Held|Not held").any()
