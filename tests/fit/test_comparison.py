import math

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import FitSettings
from isoflop.fit.compare.matching import _crossings, compare, loss_matching
from isoflop.fit.curves.minima import CurveMinimum, minima
from isoflop.fit.minima.draws import CurveDraws

BASE = {"Baseline": {"loss": 1.25}}


def at(table: pd.DataFrame, variant: str, estimator: str = "parabola") -> CurveMinimum:
    (found,) = (one for one in minima(table, (estimator,)) if one.variant == variant)
    return found


def test_every_estimator_reports_on_every_curve(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.24, "at": 3e5}})
    found = {(one.variant, one.minimum.estimator): one for one in minima(table)}
    assert len(found) == 8
    for (variant, estimator), one in found.items():
        assert one.minimum.status == "converged", (variant, estimator, one.minimum.message)
        assert one.minimum.loss == pytest.approx(1.25 if variant == "Baseline" else 1.24, abs=5e-3)
    exact = found["MoD", "parabola"]
    assert exact.minimum.parameters == pytest.approx(3e5, rel=1e-6)
    assert exact.forward_flops == pytest.approx(6e5, rel=1e-6)


def test_diverged_runs_do_not_move_a_minimum(runs) -> None:
    table = runs(BASE)
    poisoned = table.iloc[[9]].assign(state="diverged", run_id="x", seed=9, loss=math.nan)
    assert minima(pd.concat([table, poisoned])) == minima(table)


def test_a_refused_curve_is_listed_without_numbers(runs) -> None:
    one = at(runs({"Baseline": {"loss": 1.25, "at": 1e7}}), "Baseline")
    assert (one.minimum.status, one.minimum.loss, one.forward_flops) == ("edge", None, None)


def test_difference_of_minima(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.20, "at": 3e5}})
    result = compare(at(table, "Baseline"), at(table, "MoD"))
    assert result.difference == pytest.approx(-0.05)
    assert result.relative_difference == pytest.approx(-0.04)
    assert result.parameter_ratio == pytest.approx(1.5)
    assert result.reason is None


def test_comparison_with_a_refused_minimum_says_whose(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.2, "at": 1e7}})
    result = compare(at(table, "Baseline"), at(table, "MoD"))
    assert result.difference is None
    assert result.reason.startswith("MoD: the lowest loss is at an end")
    with pytest.raises(ValueError, match="expected the same of both"):
        compare(at(table, "Baseline"), at(table, "MoD", "akima"))


def test_fraction_of_forward_flops_at_the_crossing(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.24, "flops_per_parameter": 1.2}})
    match = loss_matching(table, at(table, "Baseline"), "MoD")
    # 1.24 + 0.02 x^2 = 1.25 at x = -0.707: between steps -2 and -1 of log 1.6 = 0.47.
    exact = 0.6 * math.exp(-math.sqrt(0.5))
    assert match.fraction == pytest.approx(exact, rel=0.05)
    assert match.fraction > exact
    # The trained one is the size one step below the centre.
    assert match.model.parameters == pytest.approx(2e5 / 1.6)
    assert match.model_fraction == pytest.approx(0.6 / 1.6)


def test_fraction_is_exact_on_a_straight_stretch(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.24}})
    mod = table["variant"] == "MoD"
    step = (table["parameters"] / 2e5).map(math.log) / math.log(1.6)
    table.loc[mod, "loss"] = 1.25 - 0.1 * (step[mod] + 0.5)
    match = loss_matching(table, at(table, "Baseline"), "MoD")
    assert match.fraction == pytest.approx(1.6**-0.5, rel=1e-9)


def test_the_fraction_has_an_interval_by_the_noise_of_both_curves(runs) -> None:
    variants = {"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.23, "flops_per_parameter": 1.2}}
    found = []
    for noise in (0.001, 0.004):
        table = runs(variants, seed_shifts=(-noise, 0.0, noise))
        draws = CurveDraws(table, FitSettings(resamples=400))
        match = loss_matching(table, at(table, "Baseline"), "MoD", draws=draws)
        assert match.interval.value == match.fraction
        assert match.interval.low < match.fraction < match.interval.high
        found.append(match.interval.high / match.interval.low)
    assert 1.005 < found[0] < found[1] < 3
    alone = loss_matching(table, at(table, "Baseline"), "MoD")
    assert (alone.fraction, alone.interval) == (match.fraction, None)


def test_copies_cross_where_each_of_them_would_alone(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.23}})
    draws = CurveDraws(table, FitSettings(resamples=50))
    sizes, losses = draws.size_losses("MoD", 5e12)
    targets = draws.minima("Baseline", 5e12)[1]
    crossed = _crossings(np.log(2 * sizes), losses, targets)
    mod = table[(table["variant"] == "MoD") & (table["seed"] == 100)]
    base = at(table, "Baseline")
    for curve, target, log_flops in zip(losses, targets, crossed, strict=True):
        copy = mod.assign(loss=curve)
        moved = base.model_copy(
            update={"minimum": base.minimum.model_copy(update={"loss": target})}
        )
        alone = loss_matching(copy, moved, "MoD")
        assert np.exp(log_flops) / base.forward_flops == pytest.approx(alone.fraction)


def test_a_fraction_that_noise_often_loses_has_no_interval(runs) -> None:
    # The challenger touches the baseline's loss, so half the copies never reach it.
    table = runs({"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.2499}}, seed_shifts=(-0.01, 0.01))
    match = loss_matching(
        table, at(table, "Baseline"), "MoD", draws=CurveDraws(table, FitSettings())
    )
    assert match.fraction is not None
    assert match.interval is None


@pytest.mark.parametrize(
    ("loss", "reason"), [(1.30, "never reaches 1.2500"), (1.0, "even the cheapest size")]
)
def test_no_crossing_has_a_reason(runs, loss: float, reason: str) -> None:
    table = runs({"Baseline": {"loss": 1.25}, "MoD": {"loss": loss}})
    match = loss_matching(table, at(table, "Baseline"), "MoD")
    assert match.fraction is None
    assert match.fraction_reason.startswith(reason)
    assert (match.model is None) == (loss > 1.25)


def test_no_match_without_a_baseline_minimum_or_runs(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25, "at": 1e7}})
    assert "no minimum" in loss_matching(table, at(table, "Baseline"), "MoD").fraction_reason
    table = runs(BASE)
    assert loss_matching(table, at(table, "Baseline"), "MoD").fraction_reason == "no finished runs"
