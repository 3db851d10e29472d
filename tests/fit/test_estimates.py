import numpy as np
import pytest
from scipy import stats

from isoflop.fit.intervals import (
    WithError,
    difference,
    document_estimate,
    draws_interval,
    most_draws_interval,
    seed_spread,
    spread_ratio,
)


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

    interval = difference(estimate(a), estimate(b)).interval(0.9)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    assert (interval.low, interval.high) == (
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )


def test_an_interval_holds_its_value_where_every_draw_lies_beside_it() -> None:
    draws = np.linspace(2.0, 3.0, 101)
    beside = draws_interval(1.0, draws)
    assert (beside.low, beside.high) == (1.0, pytest.approx(2.975))
    reflected = draws_interval(1.0, draws, reflected=True)
    assert (reflected.low, reflected.high) == (pytest.approx(-0.975), 1.0)


def test_draws_without_a_value_are_counted_and_some_are_needed() -> None:
    found = draws_interval(0.5, [0.0, 1.0, np.nan, 0.5])
    assert (found.resamples, found.refused) == (3, 1)
    with pytest.raises(ValueError, match="no value on any resample"):
        draws_interval(0.5, [np.nan] * 3)
    half = np.where(np.arange(40) < 20, np.linspace(0, 1, 40), np.nan)
    assert most_draws_interval(0.2, half, 0.95).low is not None
    assert most_draws_interval(0.2, np.append(half, np.nan), 0.95).low is None


def test_a_quantile_interval_of_resampled_means_holds_the_truth() -> None:
    """Coverage over 150 samples of 25; nominal 95%, binomial error 2%."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(150):
        sample = rng.normal(2.0, 1.0, 25)
        means = rng.choice(sample, (200, 25)).mean(axis=1)
        found = draws_interval(float(sample.mean()), means)
        hits += found.low <= 2.0 <= found.high
    assert 0.87 <= hits / 150 <= 0.99


def test_equally_long_documents_give_the_error_of_a_mean() -> None:
    means = np.array([1.1, 0.7, 1.4, 0.9, 1.3])
    found = document_estimate(means * 40, [40] * 5)
    assert found is not None
    assert found.value == pytest.approx(means.mean())
    assert found.error == pytest.approx(means.std(ddof=1) / np.sqrt(5))
    assert found.degrees_of_freedom == pytest.approx(4)


def test_unequal_documents_by_leaving_each_out() -> None:
    means = np.array([1.1, 0.7, 1.4, 0.9, 1.3, 1.2])
    tokens = np.array([10, 300, 25, 7, 60, 110])
    found = document_estimate(means * tokens, tokens)
    assert found is not None
    whole = means @ tokens / tokens.sum()
    without = [
        np.delete(means, i) @ np.delete(tokens, i) / np.delete(tokens, i).sum() for i in range(6)
    ]
    assert found.value == pytest.approx(whole)
    assert found.error**2 == pytest.approx(5 / 6 * np.sum((np.array(without) - whole) ** 2))


def test_degrees_of_freedom_fall_where_few_documents_hold_the_text() -> None:
    found = document_estimate(np.arange(6.0), [20, 20, 20, 2, 2, 2])
    assert found is not None
    assert found.degrees_of_freedom == pytest.approx(66**2 / (3 * 400 + 3 * 4) - 1)
    one_long = document_estimate(np.arange(3.0), [1000, 1, 1])
    assert one_long is not None
    assert one_long.degrees_of_freedom == 1


def test_one_document_tells_nothing_of_others() -> None:
    assert document_estimate([3.0], [2]) is None


@pytest.mark.parametrize(("sums", "tokens"), [([1.0, 2.0], [3]), ([1.0, 2.0], [3, 0])])
def test_documents_need_a_total_and_tokens_each(sums: list[float], tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="positive number of tokens"):
        document_estimate(sums, tokens)
