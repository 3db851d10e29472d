"""What the surface leaves and how far estimators agree is drawn as it is."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd
import pytest
import synthetic_study as synthetic
from made_reports import absent_of, analysed, figures_of, html_of
from synthetic_study import BUMP

from isoflop.fit.settings import HUBER_DELTA
from isoflop.report.analysis import Analysis
from isoflop.report.figure import Figure
from isoflop.report.sections.fit_quality import _domain, estimator_minima, residuals

Drawn = dict[str, Figure]


@pytest.fixture(scope="module")
def drawn(bumped: Analysis) -> Drawn:
    return figures_of(bumped)


def test_the_run_off_the_surface_has_the_residual(bumped: Analysis) -> None:
    tables = [residuals(bumped, result) for result in bumped.budgets]
    for table in tables:
        assert (table["row"] == "run").sum() == (table["row"] == "mean").sum() == 2 * 7
        runs = table[table["row"] == "run"]
        expected = [math.log(y / f) for y, f in zip(runs["loss"], runs["fitted"], strict=True)]
        assert runs["residual"].tolist() == pytest.approx(expected)
        untouched = table[table["variant"] == "MoD 12.5%"]
        assert untouched["residual"].abs().max() < 1e-8
    both = pd.concat(tables)
    off = both[both["residual"].abs() > HUBER_DELTA]
    assert off["row"].tolist() == ["run", "mean"]
    truth = off["loss"].iloc[0] - BUMP
    assert off["residual"].tolist() == pytest.approx([math.log1p(BUMP / truth)] * 2, abs=1e-3)


def test_residuals_are_drawn_per_budget_on_one_axis(drawn: Drawn) -> None:
    left = [one for name, one in drawn.items() if name.startswith("surface-residuals")]
    assert [one.name for one in left] == ["surface-residuals-5e12", "surface-residuals-4e13"]
    axes = set()
    for one in left:
        spec = one.spec()
        alt.LayerChart.validate(spec)
        scales = [layer["encoding"]["y"].get("scale") for layer in spec["layer"]]
        axes |= {tuple(scale["domain"]) for scale in scales if scale}
    ((low, high),) = axes
    assert low < -0.002
    assert high > BUMP / 2
    assert "converged" in left[0].caption
    assert "delta, 0.001" in left[0].caption


def test_every_estimator_of_every_curve_is_relative_to_their_median(bumped: Analysis) -> None:
    table = estimator_minima(bumped)
    assert len(table) == 2 * 2 * 3
    assert set(table["curve"]) == {
        f"{variant}\n{budget} FLOPs"
        for variant in ("Baseline", "MoD 12.5%")
        for budget in ("5e12", "4e13")
    }
    for _, curve in table.groupby("curve"):
        assert curve["parameters_ratio"].median() == pytest.approx(1)
        assert curve["loss_difference"].median() == pytest.approx(0, abs=1e-12)
        middle = curve["parameters"].median()
        assert (curve["parameters_ratio"] * middle).tolist() == pytest.approx(
            curve["parameters"].tolist()
        )
        known = curve.dropna(subset=["loss_low"])
        assert len(known)
        assert (known["loss_low"] <= known["loss_high"]).all()
        for end in ("_low", "_high"):
            shift = known[f"loss{end}"] - known[f"loss_difference{end}"]
            assert shift.tolist() == pytest.approx([curve["loss"].median()] * len(known))


def test_agreement_is_two_figures_with_all_estimators(drawn: Drawn) -> None:
    for one in (drawn["estimator-losses"], drawn["estimator-sizes"]):
        alt.LayerChart.validate(one.spec())
        assert set(one.table["estimator"]) == {"Parabola", "Akima", "Huber surface"}
        assert "Refused" not in one.caption


def test_one_huge_interval_does_not_squeeze_the_others(bumped: Analysis) -> None:
    table = estimator_minima(bumped)
    before = _domain(table, "loss_difference", logarithmic=False)
    at = table["loss_difference_low"].first_valid_index()
    table.loc[at, "loss_difference_low"] = -1.0
    low, high = _domain(table, "loss_difference", logarithmic=False)
    marks = table["loss_difference"]
    assert -0.5 < low < marks.min() < marks.max() < high
    assert high == pytest.approx(before[1], abs=0.1 * (high - low))
    low, high = _domain(table, "parameters_ratio", logarithmic=True)
    assert 0 < low < table["parameters_ratio"].min() <= table["parameters_ratio"].max() < high


def test_refused_minima_are_marked_and_said() -> None:
    half = synthetic.study(variants=synthetic.VARIANTS[:2])
    runs = [
        run
        for variant, slope in (("Baseline", 0.0), ("MoD 12.5%", 0.5))
        for run in synthetic.runs(half, slope=slope, noise=0)
        if run[0] == variant
    ]
    agreement = figures_of(analysed(half, runs))["estimator-losses"]
    assert agreement.table["loss"].isna().sum() == 2
    assert "Refused minima have no mark" in agreement.caption


def test_too_few_sizes_for_a_surface_are_said() -> None:
    study = synthetic.study((5e12,), (0, 1), synthetic.VARIANTS[:1])
    runs = synthetic.runs(study, widths=(48, 64, 96))
    analysis = analysed(study, runs, estimators=("parabola", "surface"))
    absent = absent_of(analysis)["Residuals of the loss surface"]
    assert "3 distinct pairs of size and tokens, 6 needed" in absent
    assert "No variant has a surface" in html_of(analysis)
