import math

import pandas as pd
import pytest

from isoflop.fit import FitSettings
from isoflop.fit.compare.verdict import loss_matching
from isoflop.fit.curves.minima import CurveMinimum, minima, minimum_disagreements
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.surfaces.goodness import surface_disagreement
from isoflop.fit.surfaces.surface import Surface

BASE = {"Baseline": {"loss": 1.25}}
ONE = Surface(E=1.7, A=400, B=1500, alpha=0.3, beta=0.5)


def at(table: pd.DataFrame, variant: str = "Baseline", estimator: str = "parabola") -> CurveMinimum:
    (found,) = (one for one in minima(table, (estimator,)) if one.variant == variant)
    return found


def test_every_estimator_reports_on_every_curve(runs) -> None:
    table = runs(BASE | {"MoD": {"loss": 1.24, "at": 3e5}})
    found = {(one.variant, one.estimator): one for one in minima(table)}
    assert len(found) == 8
    for (variant, _), one in found.items():
        assert one.status == "converged", one
        assert one.loss == pytest.approx(1.25 if variant == "Baseline" else 1.24, abs=5e-3)
    exact = found["MoD", "parabola"]
    assert exact.parameters == pytest.approx(3e5, rel=1e-6)
    assert exact.forward_flops == pytest.approx(6e5, rel=1e-6)
    poisoned = table.iloc[[9]].assign(state="diverged", run_id="x", seed=9, loss=math.nan)
    assert minima(pd.concat([table, poisoned])) == tuple(found.values())


def test_fraction_of_forward_flops_at_the_crossing(runs) -> None:
    table = runs(BASE | {"MoD": {"loss": 1.24, "flops_per_parameter": 1.2}})
    # 1.24 + 0.02 x^2 = 1.25 at x = -0.707: between steps -2 and -1 of log 1.6 = 0.47.
    exact = 0.6 * math.exp(-math.sqrt(0.5))
    assert exact < loss_matching(table, at(table), "MoD").value < 1.05 * exact


def test_the_fraction_has_an_interval_by_the_noise_of_both_curves(runs) -> None:
    variants = BASE | {"MoD": {"loss": 1.23, "flops_per_parameter": 1.2}}
    found = []
    for noise in (0.001, 0.004):
        table = runs(variants, seed_shifts=(-noise, 0.0, noise))
        draws = CurveDraws(table, FitSettings(resamples=400))
        match = loss_matching(table, at(table), "MoD", draws=draws)
        assert match.low < match.value < match.high
        found.append(match.high / match.low)
    assert 1.005 < found[0] < found[1] < 3
    alone = loss_matching(table, at(table), "MoD")
    assert (alone.value, alone.low) == (match.value, None)


def test_a_fraction_that_noise_often_loses_has_no_interval(runs) -> None:
    # The challenger touches the baseline's loss, so half the copies never reach it.
    table = runs(BASE | {"MoD": {"loss": 1.2499}}, seed_shifts=(-0.01, 0.01))
    draws = CurveDraws(table, FitSettings())
    assert loss_matching(table, at(table), "MoD", draws=draws).low is None


@pytest.mark.parametrize(
    ("variants", "reason"),
    [
        (BASE | {"MoD": {"loss": 1.30}}, "never reaches 1.2500"),
        (BASE | {"MoD": {"loss": 1.0}}, "even the cheapest size"),
        ({"Baseline": {"loss": 1.25, "at": 1e7}}, "Baseline has no minimum"),
        (BASE, "no finished runs"),
    ],
)
def test_no_crossing_has_a_reason(runs, variants, reason: str) -> None:
    table = runs(variants)
    assert loss_matching(table, at(table), "MoD").startswith(reason)


def test_estimators_of_a_minimum_are_held_against_each_other(runs) -> None:
    table = runs(BASE, seed_shifts=())
    # A valley in log loss through few points is not the parabola that the losses follow.
    found = one, other = minima(table, ("parabola", "akima"))
    (apart,) = minimum_disagreements(found)
    assert apart.estimators == ("parabola", "akima")
    assert apart.loss == abs(one.loss - other.loss)
    sizes = sorted([one.parameters, other.parameters])
    assert apart.parameter_ratio == pytest.approx(sizes[1] / sizes[0])
    found = minima(table.iloc[1:5], ("parabola", "akima"))
    assert [one.status for one in found] == ["converged", "too_few"]
    assert minimum_disagreements(found) == ()


def test_surfaces_are_as_far_apart_as_their_extremes() -> None:
    others = [ONE.model_copy(update={"alpha": 0.5}), ONE.model_copy(update={"E": 1.5})]
    apart = surface_disagreement(dict(zip("xyz", (ONE, *others), strict=True)))
    assert apart.fits == ("x", "y", "z")
    assert apart.ranges["E"] == (1.5, 1.7)
    assert apart.ranges["alpha"] == (0.3, 0.5)
    assert apart.ranges["beta"] == (0.5, 0.5)
    assert apart.ranges["a"] == pytest.approx((0.5, 0.625))
    assert surface_disagreement({"x": ONE}) is None
