import numpy as np
import pytest
from scipy import stats

from isoflop.fit.laws.power_law import fit_power_law


def test_exact_law_is_recovered_at_large_scale() -> None:
    budgets = [6e18, 2e19, 1e20, 1e25]
    law = fit_power_law(budgets, [0.09 * c**0.5 for c in budgets])
    assert law.status == "converged"
    assert law.k.value == pytest.approx(0.09, rel=1e-9)
    assert law.a.value == pytest.approx(0.5, rel=1e-12)
    assert law.log_residual == pytest.approx(0, abs=1e-12)


def test_two_points_say_that_nothing_checks_them() -> None:
    law = fit_power_law([1.0, 4.0], [3.0, 6.0])
    assert (law.k.value, law.a.value) == (pytest.approx(3.0), pytest.approx(0.5))
    assert (law.k.low, law.k.high, law.a.low, law.a.high) == (None, None, None, None)
    assert law.log_residual is None
    assert "nothing to check" in law.message


@pytest.mark.parametrize("x", [[], [5e12], [5e12, 5e12]])
def test_fewer_than_two_budgets_are_refused(x: list[float]) -> None:
    law = fit_power_law(x, [1e5] * len(x))
    assert (law.status, law.k, law.a) == ("too_few", None, None)


def test_intervals_are_those_of_a_regression_in_log_space() -> None:
    x = np.array([0.4, 0.7, 1.4, 2.5, 5.1])
    y = 2.6 * x**-0.08 * np.exp([0.004, -0.003, 0.001, -0.004, 0.002])
    law = fit_power_law(x, y, level=0.9)
    peer = stats.linregress(np.log(x), np.log(y))
    t = stats.t.ppf(0.95, 3) * np.array([-1, 1])
    assert law.a.value == pytest.approx(peer.slope)
    assert law.a.ends == pytest.approx(tuple(peer.slope + t * peer.stderr))
    assert law.k.ends == pytest.approx(tuple(np.exp(peer.intercept + t * peer.intercept_stderr)))
