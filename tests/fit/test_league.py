"""All variants in one ranking: its statements hold together as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from known_surfaces import SIZES, SYMMETRIC, optimum
from scipy import stats

from isoflop.estimate import LEVEL
from isoflop.fit.compare.league import League, league
from isoflop.fit.curves.seeds import NoisyMinimum, noisy_curve
from isoflop.fit.intervals import WithError
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.minima.parabola import PARABOLA

FLOPS = 1e18
VARIANTS, SEEDS = 6, 3
OFF = [[-0.001, 0.0, 0.001], [0.001, 0.0, -0.001], [0.0, 0.001, -0.001], [0.0, -0.001, 0.001]]


def ranked(*losses: float, off=OFF, seeds=None, scatter=None) -> League:
    """Rank variants a, b, c of these minima, the first of which is the baseline.

    `off` are how far seeds lie above the others, a row per variant.
    """
    found = []
    for i, loss in enumerate(losses):
        deviations = np.array(off[i])
        deviations = deviations - deviations.mean()
        named = (seeds or [range(len(deviations))] * len(losses))[i]
        found.append(
            NoisyMinimum(
                "abcdefgh"[i],
                minimum(loss),
                loss=WithError(value=loss, error=0.001, degrees_of_freedom=2),
                loss_by_scatter=scatter
                and WithError(value=loss, error=scatter, degrees_of_freedom=9),
                seed_deviations=dict(zip(named, deviations.tolist(), strict=True)),
            )
        )
    return league(found, "a")


def minimum(loss: float | None) -> Minimum:
    status = "too_few" if loss is None else "converged"
    return Minimum(estimator="parabola", status=status, loss=loss, message="2 sizes")


def drawn_study(rng: np.random.Generator, apart: float, own: float) -> list[NoisyMinimum] | None:
    """Draw variants that are all the same: seven sizes, seeds at the three in the middle."""
    n = optimum(SYMMETRIC, FLOPS) * SIZES
    trained = (np.abs(np.arange(len(n)) - len(n) // 2) <= 1)[:, None] | (np.arange(SEEDS) == 0)
    shapes, seeds = np.nonzero(trained)
    shared = 0.004 * rng.standard_normal(SEEDS)
    found = []
    for name in range(VARIANTS):
        of_seed = shared + apart * rng.standard_normal(SEEDS)
        losses = SYMMETRIC.loss(n, FLOPS / 6 / n)[shapes] + of_seed[seeds]
        losses = losses + own * rng.standard_normal(len(shapes))
        best = PARABOLA.find(n[shapes], losses)
        if best.loss is None:
            return None
        found.append(noisy_curve(str(name), best, n[shapes], losses, (shapes, seeds)))
    return found


@pytest.mark.parametrize(
    ("apart", "own"),
    [
        (0.006, 0.001),
        pytest.param(0.004, 0.004, marks=pytest.mark.slow),
        pytest.param(0.0, 0.007, marks=pytest.mark.slow),
    ],
)
def test_all_differences_hold_at_once_as_often_as_they_say(apart, own):
    rng, held, alone = np.random.default_rng(0), [], []
    for _ in range(220):
        found = drawn_study(rng, apart, own)
        if found is not None:
            one = league(found, "0")
            largest = one.places[-1].loss.value - one.places[0].loss.value
            held.append(largest <= one.half_width)
            alone.append(largest <= 0.6 * one.half_width)  # about what a pair alone would have
    assert len(held) > 180
    assert LEVEL - 0.03 <= np.mean(held) <= 0.99
    assert np.mean(alone) < 0.85


def test_without_pairs_the_half_width_is_that_of_scipy_by_the_same_samples():
    losses, rng = (1.20, 1.21, 1.24), np.random.default_rng(1)
    off = 0.004 * rng.standard_normal((3, 4))
    off -= off.mean(axis=1, keepdims=True)
    found = ranked(*losses, off=off, seeds=[range(4), range(1, 5), range(2, 6)])
    ends = stats.tukey_hsd(*(loss + one for loss, one in zip(losses, off, strict=True)))
    wanted = ends.confidence_interval().high[0, 1] - (losses[0] - losses[1])
    assert found.half_width == pytest.approx(wanted, rel=1e-6)


def test_what_seeds_do_to_all_variants_alike_cancels():
    rng = np.random.default_rng(2)
    own, shared = 0.002 * rng.standard_normal((3, 5)), 0.02 * rng.standard_normal(5)
    still, moved = (ranked(1.2, 1.21, 1.22, off=off) for off in (own, own + shared))
    assert moved.half_width == pytest.approx(still.half_width)


def test_runs_that_lie_far_from_their_parabolas_make_it_wider():
    near, far = (ranked(1.2, 1.21, 1.22, scatter=error) for error in (1e-5, 0.003))
    assert near.half_width == pytest.approx(ranked(1.2, 1.21, 1.22).half_width)
    assert far.half_width == pytest.approx(stats.studentized_range.ppf(LEVEL, 3, 27) * 0.003)


def test_ties_are_told_as_places_that_overlap():
    half = ranked(1.2, 1.2, 1.2, 1.2).half_width
    found = ranked(1.2, 1.2 - 0.8 * half, 1.2 + 0.8 * half, 1.2 + 5 * half)
    told = [(one.variant, one.first, one.last) for one in found.places]
    assert told == [("b", 1, 2), ("a", 1, 3), ("c", 2, 3), ("d", 4, 4)]
    # The interval of a loss overlaps a neighbour's just where the two are tied.
    low, high = zip(*(one.loss.ends for one in found.places), strict=True)
    overlap = [below >= above for below, above in zip(high, low[1:], strict=False)]
    assert overlap == [True, True, False]
    assert [one.difference and one.difference.side for one in found.places] == [0, None, 0, 1]


def test_what_has_no_minimum_or_no_noise_is_told_and_spoils_nothing():
    lone = NoisyMinimum("one seed", minimum(1.1), "one seed near the minimum")
    none = NoisyMinimum("refused", minimum(None), "2 sizes measured, 3 needed")
    both = [
        NoisyMinimum(
            name,
            minimum(loss),
            loss=WithError(value=loss, error=0.001, degrees_of_freedom=1),
            seed_deviations={0: off, 1: -off},
        )
        for name, loss, off in (("a", 1.2, 0.001), ("b", 1.3, -0.001))
    ]
    found = league([*both, lone, none], "refused")
    assert [one.variant for one in found.places] == ["one seed", "a", "b"]
    assert found.places[0].loss.low is None
    assert (found.places[0].first, found.places[1].first) == (None, 1)
    assert all(one.difference is None for one in found.places)
    assert found.reasons == {"one seed": lone.reason, "refused": none.reason}
    assert league([lone, none], "one seed").half_width is None
    assert league([], "nobody").places == ()
