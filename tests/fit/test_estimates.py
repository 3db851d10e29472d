import numpy as np
import pytest
import scipy

from isoflop.fit.intervals import (
    difference,
    document_estimate,
    draws_interval,
    mean_estimate,
    most_draws_interval,
    seed_spread,
    spread_ratio,
)


def test_chi_square_interval_is_the_textbook_one() -> None:
    # Standard deviation 2 from 10 values: 95% interval 1.376 to 3.651.
    interval = seed_spread(scipy.stats.zscore(np.arange(10.0), ddof=1) * 2)
    assert (interval.value, *interval.ends) == pytest.approx((2, 1.3756, 3.6512), abs=1e-3)


def test_ratio_intervals_cover_the_true_ratio_and_invert_when_the_sides_are_swapped() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        a, b = rng.normal(0, 5, 8), rng.normal(0, 1, 6)
        one, two = spread_ratio(a, b), spread_ratio(b, a)
        held += one.low <= 5 <= one.high
        assert one.low < one.value < one.high
        assert (one.low, one.high) == pytest.approx((1 / two.high, 1 / two.low))
    assert 0.90 <= held / 200 <= 0.99


def test_welch_agrees_with_scipy() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 3, 5), rng.normal(0, 1, 9)
    interval = difference(mean_estimate(a), mean_estimate(b)).interval(0.9)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    assert interval.ends == pytest.approx((expected.low, expected.high))


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


@pytest.mark.parametrize("tokens", [[40] * 6, [10, 300, 25, 7, 60, 110]])
def test_the_error_of_a_mean_is_by_leaving_out_each_document(tokens: list[int]) -> None:
    means, lengths = np.array([1.1, 0.7, 1.4, 0.9, 1.3, 1.2]), np.array(tokens)
    found = document_estimate(means * lengths, lengths)
    whole = means @ lengths / lengths.sum()
    without = [
        np.delete(means, i) @ np.delete(lengths, i) / np.delete(lengths, i).sum() for i in range(6)
    ]
    assert found.value == pytest.approx(whole)
    assert found.error**2 == pytest.approx(5 / 6 * np.sum((np.array(without) - whole) ** 2))


@pytest.mark.parametrize(
    ("tokens", "freedom"),
    [
        ([40] * 5, 4),
        # Few documents hold the text.
        ([20, 20, 20, 2, 2, 2], 66**2 / (3 * 400 + 3 * 4) - 1),
        ([1000, 1, 1], 1),
    ],
)
def test_degrees_of_freedom_are_those_of_as_many_equal_documents(tokens, freedom) -> None:
    found = document_estimate(np.arange(float(len(tokens))), tokens)
    assert found.degrees_of_freedom == pytest.approx(freedom)
    assert document_estimate([3.0], [2]) is None
