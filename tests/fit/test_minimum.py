import math

import numpy as np
import pytest

from isoflop.fit.minima.akima import akima
from isoflop.fit.minima.minimum import Minimum, losses_within, refused_outside
from isoflop.fit.minima.parabola import fit_parabola, parabola
from isoflop.fit.minima.sizes import size_groups, size_means

SIZES = 1e5 * 1.6 ** np.arange(-3, 4)


def valley(sizes: np.ndarray, at: float = 1.2e5) -> np.ndarray:
    return 1.25 + 0.03 * np.log(sizes / at) ** 2


def test_parabola_recovers_an_exact_parabola() -> None:
    minimum = parabola(SIZES, valley(SIZES))
    assert minimum.status == "converged"
    assert minimum.parameters == pytest.approx(1.2e5, rel=1e-10)
    assert minimum.loss == pytest.approx(1.25, rel=1e-12)


def test_parabola_leaves_out_sizes_beyond_the_window() -> None:
    far = np.append(SIZES, [SIZES[-1] * 10, SIZES[-1] * 20])
    losses = np.append(valley(SIZES), [9.0, 9.5])
    assert parabola(far, losses).parameters == pytest.approx(1.2e5, rel=1e-10)
    assert parabola(far, losses, window=math.inf).parameters != pytest.approx(1.2e5, rel=1e-2)
    assert "7 of 9 sizes" in parabola(far, losses).message


def test_parabola_uses_at_least_five_sizes_of_a_coarse_grid() -> None:
    coarse = 1e6 * 10.0 ** np.arange(-3, 4)
    fit = fit_parabola(coarse, valley(coarse, at=2e6))
    assert (fit.smallest, fit.largest) == (pytest.approx(1e4), pytest.approx(1e8))


def test_seeds_of_a_size_count_as_runs_and_their_mean_decides() -> None:
    rng = np.random.default_rng(3)
    sizes = np.repeat(SIZES, 2)
    noise = np.repeat(rng.normal(0, 0.01, len(SIZES)), 2) * np.tile([1, -1], len(SIZES))
    minimum = parabola(sizes, valley(sizes) + noise)
    assert minimum.parameters == pytest.approx(1.2e5, rel=1e-9)
    assert akima(sizes, valley(sizes) + noise).parameters == pytest.approx(1.2e5, rel=0.02)


@pytest.mark.parametrize("estimate", [parabola, akima])
@pytest.mark.parametrize(("at", "side"), [(1e3, "smaller"), (1e8, "larger")])
def test_lowest_size_at_an_end_is_refused(estimate, at: float, side: str) -> None:
    minimum = estimate(SIZES, valley(SIZES, at))
    assert (minimum.status, minimum.side) == ("edge", side)
    assert minimum.parameters is None
    assert minimum.loss is None


def test_vertex_beyond_the_sizes_is_refused_though_an_inner_size_is_lowest() -> None:
    sizes = [1e5, 2e5, 4e5, 8e5]
    assert parabola(sizes, [1.50, 1.30, 1.09, 1.10]).status == "converged"
    minimum = parabola(sizes, [1.50, 1.40, 1.05, 1.051])
    assert (minimum.status, minimum.side) == ("edge", "larger")
    assert minimum.loss is None


def test_concave_is_refused() -> None:
    minimum = parabola(SIZES, [1.0, 1.3, 1.3, 0.9, 1.3, 1.3, 1.0])
    assert minimum.status == "concave"
    assert minimum.parameters is None


@pytest.mark.parametrize(("estimate", "count"), [(parabola, 2), (akima, 4), (parabola, 0)])
def test_too_few_sizes_are_refused(estimate, count: int) -> None:
    minimum = estimate(SIZES[:count], valley(SIZES)[:count])
    assert minimum.status == "too_few"
    assert minimum.loss is None


def test_akima_finds_the_minimum_between_sizes_of_a_skew_valley() -> None:
    grid = np.linspace(np.log(SIZES[0]), np.log(SIZES[-1]), 15)
    sizes = np.exp(grid)
    losses = 0.8 + 300 / sizes**0.55 + 0.0073 * sizes**0.4
    exact = (300 * 0.55 / (0.0073 * 0.4)) ** (1 / 0.95)
    minimum = akima(sizes, losses)
    assert minimum.status == "converged"
    assert minimum.parameters == pytest.approx(exact, rel=0.01)
    assert minimum.loss < losses.min()


def test_diverged_losses_and_wrong_lengths_are_errors() -> None:
    with pytest.raises(ValueError, match="leave diverged runs out"):
        parabola([1.0, 2.0, 3.0], [1.0, math.nan, 2.0])
    with pytest.raises(ValueError, match="shapes"):
        parabola([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="positive losses"):
        akima(SIZES, valley(SIZES) - 2)


def test_standard_error_of_the_size_matches_simulation() -> None:
    rng = np.random.default_rng(0)
    fits = [fit_parabola(SIZES, valley(SIZES) + rng.normal(0, 0.002, 7)) for _ in range(400)]
    spread = np.std([math.log(fit.parameters) for fit in fits])
    errors = [fit.log_parameters_error for fit in fits]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.15)
    assert fits[0].degrees_of_freedom == 4
    assert fit_parabola(SIZES[:3], valley(SIZES)[:3]).log_parameters_error is None


def test_parabola_evaluates_itself() -> None:
    fit = fit_parabola(SIZES, valley(SIZES))
    assert fit.loss_at(SIZES) == pytest.approx(valley(SIZES), rel=1e-12)


def test_sizes_within_a_few_percent_are_one_and_others_keep_their_digits() -> None:
    sizes, of_run = size_groups([2e8, 1e8, 1.04e8, 1.07e8, 2e8])
    assert of_run.tolist() == [2, 0, 0, 1, 2]
    assert sizes.tolist() == [pytest.approx(math.sqrt(1.04) * 1e8), 1.07e8, 2e8]
    _, means = size_means([1e8, 1.001e8, 1.002e8, 2e8], [1.0, 2.0, 6.0, 4.0])
    assert means.tolist() == pytest.approx([3.0, 4.0])


@pytest.mark.parametrize(
    ("loss", "status"), [(1.96, "converged"), (1.94, "outside"), (2.11, "outside")]
)
def test_a_minimum_far_outside_the_losses_measured_is_refused(loss: float, status: str) -> None:
    found = Minimum(estimator="akima", status="converged", message="", parameters=1e8, loss=loss)
    judged = refused_outside(found, np.array([2.1, 2.0, 2.05]))
    assert judged.status == status
    assert (judged.loss is None) == (status == "outside")


def test_a_diverged_run_does_not_widen_what_a_minimum_may_have() -> None:
    low, high = losses_within([[2.6, 2.5, 2.4, 2.5, 2.6], [2.6, 2.5, 2.4, 2.5, 11.2]])
    np.testing.assert_allclose(low, [2.3, 2.3])
    np.testing.assert_allclose(high, [2.6, 11.2])
