import math

import numpy as np
import pytest

from isoflop.fit.minima import parabola as parabolas
from isoflop.fit.minima.akima import AKIMA
from isoflop.fit.minima.minimum import Minimum, refused_outside, within
from isoflop.fit.minima.parabola import PARABOLA, fit_parabola
from isoflop.fit.minima.sizes import size_groups, size_means

parabola, akima = PARABOLA.find, AKIMA.find

SIZES = 1e5 * 1.6 ** np.arange(-3, 4)


def valley(sizes: np.ndarray, at: float = 1.2e5) -> np.ndarray:
    return 1.25 + 0.03 * np.log(sizes / at) ** 2


def test_parabola_recovers_an_exact_parabola_from_the_sizes_in_its_window(monkeypatch) -> None:
    far = np.append(SIZES, [SIZES[-1] * 10, SIZES[-1] * 20])
    losses = np.append(valley(SIZES), [9.0, 9.5])
    for minimum in (parabola(SIZES, valley(SIZES)), parabola(far, losses)):
        assert minimum.status == "converged"
        assert minimum.parameters == pytest.approx(1.2e5, rel=1e-10)
        assert minimum.loss == pytest.approx(1.25, rel=1e-12)
    assert "7 of 9 sizes" in minimum.message
    monkeypatch.setattr(parabolas, "WINDOW", math.inf)
    assert parabola(far, losses).parameters != pytest.approx(1.2e5, rel=1e-2)
    monkeypatch.undo()
    # Of a coarse grid it takes five sizes at least.
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


@pytest.mark.parametrize(
    ("estimate", "sizes", "losses", "refused"),
    [
        (parabola, SIZES, valley(SIZES, 1e3), ("edge", "smaller")),
        (parabola, SIZES, valley(SIZES, 1e8), ("edge", "larger")),
        (akima, SIZES, valley(SIZES, 1e3), ("edge", "smaller")),
        (akima, SIZES, valley(SIZES, 1e8), ("edge", "larger")),
        # The vertex lies beyond the sizes, though an inner one is the lowest.
        (parabola, [1e5, 2e5, 4e5, 8e5], [1.50, 1.40, 1.05, 1.051], ("edge", "larger")),
        (parabola, SIZES, [1.0, 1.3, 1.3, 0.9, 1.3, 1.3, 1.0], ("concave", None)),
        (parabola, SIZES[:2], valley(SIZES)[:2], ("too_few", None)),
        (akima, SIZES[:4], valley(SIZES)[:4], ("too_few", None)),
        (parabola, [], [], ("too_few", None)),
    ],
)
def test_what_is_no_minimum_is_refused(estimate, sizes, losses, refused) -> None:
    minimum = estimate(sizes, losses)
    assert (minimum.status, minimum.side) == refused
    assert (minimum.parameters, minimum.loss) == (None, None)


def test_akima_finds_the_minimum_between_sizes_of_a_skew_valley() -> None:
    grid = np.linspace(np.log(SIZES[0]), np.log(SIZES[-1]), 15)
    sizes = np.exp(grid)
    losses = 0.8 + 300 / sizes**0.55 + 0.0073 * sizes**0.4
    exact = (300 * 0.55 / (0.0073 * 0.4)) ** (1 / 0.95)
    minimum = akima(sizes, losses)
    assert minimum.status == "converged"
    assert minimum.parameters == pytest.approx(exact, rel=0.01)
    assert minimum.loss < losses.min()


def test_standard_errors_match_simulation() -> None:
    rng = np.random.default_rng(0)
    fits = [fit_parabola(SIZES, valley(SIZES) + rng.normal(0, 0.002, 7)) for _ in range(400)]
    spreads = np.std([(math.log(one.parameters), one.loss, one.curvature) for one in fits], axis=0)
    errors = np.sqrt(np.mean(np.square([one.errors for one in fits]), axis=0))
    assert errors == pytest.approx(spreads, rel=0.15)
    assert fits[0].degrees_of_freedom == 4


def test_sizes_within_a_few_percent_are_one_and_others_keep_their_digits() -> None:
    sizes, of_run = size_groups([2e8, 1e8, 1.04e8, 1.07e8, 2e8])
    assert of_run.tolist() == [2, 0, 0, 1, 2]
    assert sizes.tolist() == [pytest.approx(math.sqrt(1.04) * 1e8), 1.07e8, 2e8]
    losses = [[1.0, 2.0, 6.0, 4.0], [0.0, 0.0, 0.0, 1.0]]
    _, means = size_means([1e8, 1.001e8, 1.002e8, 2e8], losses)
    assert means == pytest.approx(np.array([[3.0, 4.0], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("loss", "status"), [(1.96, "converged"), (1.94, "outside"), (2.11, "outside")]
)
def test_a_minimum_far_outside_the_losses_measured_is_refused(loss: float, status: str) -> None:
    found = Minimum(estimator="akima", status="converged", message="", parameters=1e8, loss=loss)
    judged = refused_outside(found, np.array([2.1, 2.0, 2.05]))
    assert judged.status == status
    assert (judged.loss is None) == (status == "outside")


def test_a_diverged_run_does_not_widen_what_a_minimum_may_have() -> None:
    means = [[2.6, 2.5, 2.4, 2.5, 2.6], [2.6, 2.5, 2.4, 2.5, 11.2]]
    for loss, inside in ((2.29, [0, 0]), (2.31, [1, 1]), (2.59, [1, 1]), (2.61, [0, 1])):
        assert within(loss, means).tolist() == inside
