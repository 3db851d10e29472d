import numpy as np
import pytest
from scipy import stats

from isoflop.fit.laws.power_law import fit_power_law, power_law_intervals


def test_exact_law_is_recovered_at_large_scale() -> None:
    budgets = [6e18, 2e19, 1e20, 1e25]
    law = fit_power_law(budgets, [0.09 * c**0.5 for c in budgets])
    assert law.status == "converged"
    assert law.k == pytest.approx(0.09, rel=1e-9)
    assert law.a == pytest.approx(0.5, rel=1e-12)
    assert law.at(4e20) == pytest.approx(0.09 * 4e20**0.5, rel=1e-9)
    assert law.log_residual == pytest.approx(0, abs=1e-12)


def test_two_points_say_that_nothing_checks_them() -> None:
    law = fit_power_law([1.0, 4.0], [3.0, 6.0])
    assert (law.k, law.a) == (pytest.approx(3.0), pytest.approx(0.5))
    assert law.log_residual is None
    assert "nothing to check" in law.message


@pytest.mark.parametrize("x", [[], [5e12], [5e12, 5e12]])
def test_fewer_than_two_budgets_are_refused(x: list[float]) -> None:
    law = fit_power_law(x, [1e5] * len(x))
    assert (law.status, law.k, law.a) == ("too_few", None, None)
    with pytest.raises(ValueError, match="no power law"):
        law.at(1e13)


def test_values_that_have_no_logarithm_are_errors() -> None:
    with pytest.raises(ValueError, match="y is"):
        fit_power_law([1.0, 2.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="shapes"):
        fit_power_law([1.0, 2.0], [1.0])


def test_intervals_are_those_of_a_regression_in_log_space() -> None:
    x = np.array([0.4, 0.7, 1.4, 2.5, 5.1])
    y = 2.6 * x**-0.08 * np.exp([0.004, -0.003, 0.001, -0.004, 0.002])
    law = fit_power_law(x, y)
    k, a = power_law_intervals(law, x, level=0.9)
    peer = stats.linregress(np.log(x), np.log(y))
    t = stats.t.ppf(0.95, 3)
    assert a.value == law.a == pytest.approx(peer.slope)
    assert (a.low, a.high) == pytest.approx(
        (peer.slope - t * peer.stderr, peer.slope + t * peer.stderr)
    )
    assert k.value == law.k
    ends = peer.intercept + np.array([-1, 1]) * t * peer.intercept_stderr
    assert (k.low, k.high) == pytest.approx(tuple(np.exp(ends)))


def test_two_points_have_no_interval() -> None:
    law = fit_power_law([1.0, 4.0], [3.0, 6.0])
    k, a = power_law_intervals(law, [1.0, 4.0])
    assert (k.low, k.high, a.low, a.high) == (None, None, None, None)
    assert k.value == pytest.approx(3.0)


def test_a_refused_law_has_no_intervals() -> None:
    with pytest.raises(ValueError, match="no power law"):
        power_law_intervals(fit_power_law([2.0], [3.0]), [2.0])
