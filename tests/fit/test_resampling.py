import numpy as np
import pytest

from isoflop.fit import (
    basic_interval,
    bootstrap,
    bootstrap_document_difference,
    bootstrap_documents,
    percentile_interval,
)


def mean(groups: list[list[float]]) -> float:
    return float(np.mean([value for group in groups for value in group]))


def test_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(150):
        interval = bootstrap([rng.normal(2.0, 1.0, 25).tolist()], mean, resamples=200, seed=trial)
        hits += interval.low <= 2.0 <= interval.high
    assert 0.87 <= hits / 150 <= 0.99


def test_same_seed_same_interval() -> None:
    groups = [[1.0, 2.0, 4.0], [3.0, 5.0]]
    one, two = (bootstrap(groups, mean, resamples=50, seed=s) for s in (7, 7))
    assert one == two
    assert bootstrap(groups, mean, resamples=50, seed=8) != one


def test_runs_stay_in_their_group() -> None:
    seen = []

    def keep(groups: list[list[int]]) -> float:
        seen.append(groups)
        return 0.0

    bootstrap([[1, 2, 3], [10]], keep, resamples=20)
    assert all(set(first) <= {1, 2, 3} and second == [10] for first, second in seen)
    assert len({tuple(first) for first, _ in seen}) > 3


def test_clusters_are_drawn_whole_and_widen_the_interval_of_runs_that_share_something() -> None:
    rng = np.random.default_rng(1)
    groups = [(rng.normal() + rng.normal(0, 0.01, 8)).tolist() for _ in range(12)]
    clustered = bootstrap(groups, mean, clustered=True, resamples=300)
    alone = bootstrap(groups, mean, resamples=300)
    assert clustered.high - clustered.low > 20 * (alone.high - alone.low)


def test_resamples_without_a_value_are_counted() -> None:
    def fussy(groups: list[list[float]]) -> float | None:
        return None if len(set(groups[0])) == 1 else mean(groups)

    interval = bootstrap([[1.0, 2.0]], fussy, resamples=400)
    assert interval.refused + interval.resamples == 400
    assert 150 < interval.refused < 250


def test_what_cannot_be_resampled_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one in each"):
        bootstrap([[1.0], []], mean)
    with pytest.raises(ValueError, match="no value on the runs"):
        bootstrap([[1.0]], lambda _: None)
    with pytest.raises(ValueError, match="resamples is 0"):
        bootstrap([[1.0]], mean, resamples=0)


def test_document_interval_weighs_documents_by_tokens_and_covers() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(150):
        tokens = rng.integers(50, 500, 60)
        losses = tokens * rng.normal(1.25, 0.2, 60)
        interval = bootstrap_documents(losses, tokens, resamples=200, seed=trial)
        assert interval.value == pytest.approx(losses.sum() / tokens.sum())
        hits += interval.low <= 1.25 <= interval.high
    assert 0.87 <= hits / 150 <= 0.99


def test_pairing_removes_what_makes_a_document_hard_for_both() -> None:
    rng = np.random.default_rng(3)
    tokens = rng.integers(50, 500, 40)
    hard = rng.normal(1.2, 0.3, 40)
    first = tokens * (hard - 0.01 + rng.normal(0, 0.002, 40))
    second = tokens * hard
    paired = bootstrap_document_difference(first, second, tokens)
    alone = bootstrap_documents(first, tokens)
    assert paired.value == pytest.approx(-0.01, abs=2e-3)
    assert paired.high < 0
    assert alone.high - alone.low > 20 * (paired.high - paired.low)


def test_documents_must_pair_up() -> None:
    with pytest.raises(ValueError, match="one value per document"):
        bootstrap_documents([1.0, 2.0], [3])
    with pytest.raises(ValueError, match="second"):
        bootstrap_document_difference([1.0, 2.0], [1.0], [3, 4])
    with pytest.raises(ValueError, match="at least one document"):
        bootstrap_documents([], [])


def test_an_interval_holds_its_value_where_every_draw_lies_beside_it() -> None:
    draws = np.linspace(2.0, 3.0, 101)
    beside = percentile_interval(1.0, draws)
    assert (beside.low, beside.high) == (1.0, pytest.approx(2.975))
    reflected = basic_interval(1.0, draws)
    assert (reflected.low, reflected.high) == (pytest.approx(-0.975), 1.0)
