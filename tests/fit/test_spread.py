import numpy as np
import pytest
from scipy import stats

from isoflop.fit import WithError, seed_spread, spread_ratio, welch


def test_chi_square_interval_is_the_textbook_one() -> None:
    # Standard deviation 2 from 10 values: 95% interval 1.376 to 3.651.
    values = stats.zscore(np.arange(10.0), ddof=1) * 2
    interval = seed_spread(values)
    assert interval.value == pytest.approx(2)
    assert (interval.low, interval.high) == (
        pytest.approx(1.3756, abs=1e-3),
        pytest.approx(3.6512, abs=1e-3),
    )


def test_ratio_intervals_cover_the_true_ratio() -> None:
    rng = np.random.default_rng(0)
    exact = robust = 0
    for trial in range(200):
        ratio = spread_ratio(rng.normal(0, 5, 8), rng.normal(0, 1, 8), resamples=300, seed=trial)
        exact += ratio.f_test.low <= 5 <= ratio.f_test.high
        robust += ratio.bootstrap.low <= 5 <= ratio.bootstrap.high
        assert ratio.f_test.low < ratio.ratio < ratio.f_test.high
    assert 0.90 <= exact / 200 <= 0.99
    assert 0.80 <= robust / 200 <= 0.99


def test_f_interval_inverts_when_the_sides_are_swapped() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=8), rng.normal(size=6)
    one, two = spread_ratio(a, b).f_test, spread_ratio(b, a).f_test
    assert one.low == pytest.approx(1 / two.high)
    assert one.high == pytest.approx(1 / two.low)


def test_resamples_of_one_repeated_run_are_refused() -> None:
    ratio = spread_ratio([1.0, 2.0], [1.0, 1.5], resamples=1000)
    assert ratio.bootstrap.refused > 500
    assert ratio.bootstrap.high == pytest.approx(2.0)


def test_spread_needs_two_finite_seeds() -> None:
    with pytest.raises(ValueError, match="two or more seeds"):
        seed_spread([1.25])
    with pytest.raises(ValueError, match="two or more seeds"):
        seed_spread([1.25, float("nan")])
    with pytest.raises(ValueError, match="no spread"):
        spread_ratio([1.0, 2.0], [1.0, 1.0])


def test_welch_agrees_with_scipy() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 3, 5), rng.normal(0, 1, 9)

    def estimate(values: np.ndarray) -> WithError:
        return WithError(
            value=values.mean(),
            error=values.std(ddof=1) / np.sqrt(len(values)),
            degrees_of_freedom=len(values) - 1,
        )

    interval = welch(estimate(a), estimate(b), level=0.9)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    assert (interval.low, interval.high) == (
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
