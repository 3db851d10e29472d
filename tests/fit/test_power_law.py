import pytest

from isoflop.fit import fit_power_law


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
