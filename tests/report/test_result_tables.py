"""What the page tells in tables only is there in full precision as well."""

import math
from pathlib import Path

import pytest
import synthetic_study as synthetic
from made_reports import analysed

from isoflop.estimate import Estimate
from isoflop.fit.checks import RateCheck
from isoflop.fit.predictions.optima import Prediction
from isoflop.report.analysis import Analysis
from isoflop.report.registration import read_registrations, register
from isoflop.report.result_tables import claims, learning_rates, predictions
from isoflop.report.rows import claim_rows
from isoflop.report.words import doubts


def test_claims_come_with_what_was_judged(pair: Analysis):
    assert not doubts(pair)
    (result,) = pair.budgets
    table = claims(pair)
    assert table["statement"].tolist() == [
        row["statement"] for row in claim_rows(result.claims, doubted=False)
    ]
    larger = table[table["statement"].str.contains("more parameters")].iloc[0]
    assert larger["verdict"] == "held"
    # The ratio that the words state is the exponential of what was judged.
    assert f" {math.exp(-larger['difference']):.2f} [" in larger["numbers"]
    assert larger["difference_low"] < larger["difference"] < larger["difference_high"] < 0


def test_a_doubted_study_has_no_verdicts():
    study = synthetic.study((1e12,), (0,), synthetic.VARIANTS[:2])
    analysis = analysed(study, synthetic.runs(study, widths=(32, 64, 96, 128)))
    assert doubts(analysis)
    assert set(claims(analysis)["verdict"]) == {"no verdict"}
    assert not claims(analysis)["numbers"].str.contains("Held|Not held").any()


def test_learning_rates_tell_how_far_each_lies_above_the_best():
    above = Estimate(value=0.02, low=0.01, high=0.03)
    check = RateCheck(
        variant="Baseline",
        budget_flops=5e12,
        parameters=136_000,
        rates=(0.005, 0.008, 0.0128),
        losses=(1.52, 1.5, None),
        used=0.005,
        seeds=3,
        above_best=(above, None, None),
    )
    table = learning_rates([check])
    assert table["learning_rate"].tolist() == [0.005, 0.008, 0.0128]
    assert table["used"].tolist() == [True, False, False]
    assert table["best"].tolist() == [False, True, False]
    assert table["interior"].all()
    assert table["above_best_low"].tolist()[0] == 0.01
    assert table[["above_best", "above_best_high"]].isna().sum().tolist() == [2, 2]
    assert math.isnan(table["validation_loss"].tolist()[2])


def test_predictions_stand_beside_what_was_measured(
    tmp_path: Path,
    two_budgets: Analysis,
    all_budgets: Analysis,
    predicted: tuple[Prediction, ...],
):
    register(tmp_path / "8e13.json", two_budgets.study.name, two_budgets.table, predicted)
    registered = read_registrations(tmp_path)
    assert predictions(two_budgets, registered)["measured_loss"].isna().all()
    table = predictions(all_budgets, registered)
    assert len(table) == 2 * 3
    assert (table["loss"] - table["measured_loss"]).tolist() == pytest.approx(
        table["loss_error"].tolist()
    )
    assert (table["parameters"] / table["measured_parameters"]).tolist() == pytest.approx(
        table["parameter_ratio"].tolist()
    )
    assert set(table["sha256"]) == {registered[0].sha256}
