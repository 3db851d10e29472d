"""What was tried beside minima is told from the records alone."""

import numpy as np
import pytest

from given import record_of, small_model
from isoflop.config import Recipe, RunConfig
from isoflop.fit.checks import rate_checks, variance_components


def record(loss: float | None, rate: float = 8e-3, seed: int = 0, order: int | None = None):
    config = RunConfig(
        model=small_model(),
        recipe=Recipe(learning_rate=rate),
        steps=10,
        sequences_per_step=2,
        budget_flops=5e12,
        seed=seed,
        data_seed=order,
    )
    return record_of(config, loss, "diverged" if loss is None else "finished")


def USED(variant: str, budget_flops: float) -> float:
    return 8e-3


def named(records):
    return {one.run_id: "Baseline" for one in records}


@pytest.mark.parametrize(
    ("losses", "interior"),
    [((1.2, 1.1, 1.3), True), ((1.0, 1.1, 1.3), False), ((1.2, 1.1, None), True)],
)
def test_a_rate_is_interior_when_both_neighbours_are_worse(losses, interior: bool) -> None:
    records = [record(loss, rate) for loss, rate in zip(losses, (5e-3, 8e-3, 1.3e-2), strict=True)]
    (check,) = rate_checks(records, named(records), USED)
    assert check.rates == (5e-3, 8e-3, 1.3e-2)
    assert check.losses == losses
    assert check.interior is interior
    apart, interval = check.used_above_best
    assert apart == pytest.approx(1.1 - min(loss for loss in losses if loss))
    assert interval is None, "one seed tells none"


def test_seeds_that_have_every_rate_are_averaged_and_paired() -> None:
    rates = (5e-3, 8e-3, 1.3e-2)
    # Seeds move all rates alike; the third is short of a rate and is left out.
    records = [
        record(loss + off, rate, seed=seed)
        for seed, off in ((0, 0.0), (1, 0.1))
        for loss, rate in zip((1.2, 1.1 + 0.02 * seed, 1.3), rates, strict=True)
    ]
    records += [record(9.0, 8e-3, seed=2)]
    # Nor is one that was not trained at the rate used.
    other = [record(1.0, rate) for rate in (5e-3, 6e-3, 7e-3)]
    assert rate_checks(other, named(other), USED) == ()
    (check,) = rate_checks(records, named(records), USED)
    assert check.seeds == 2
    assert check.losses == pytest.approx((1.25, 1.16, 1.35))
    assert check.above_best[1] is None
    lower = check.above_best[0]
    assert lower is not None
    assert lower.value == pytest.approx(0.09)
    # Student's t of two differences, 0.10 and 0.08: 12.7 times 0.01.
    assert lower.high - lower.value == pytest.approx(0.127, abs=1e-3)
    assert check.interior
    # Where a seed of a rate diverges, that rate did.
    records = [one for one in records if one.config.recipe.learning_rate != 1.3e-2]
    records += [record(None if seed else 1.0, 1.3e-2, seed=seed) for seed in (0, 1)]
    (check,) = rate_checks(records, named(records), USED)
    assert (check.losses[2], check.above_best[2], check.interior) == (None, None, True)


def test_components_are_recovered_from_a_crossed_layout() -> None:
    rng = np.random.default_rng(0)
    of_seed, of_order = 0.01 * rng.standard_normal(12), 0.004 * rng.standard_normal(12)
    records = [
        record(1.2 + of_seed[s] + of_order[o] + 0.002 * rng.standard_normal(), seed=s, order=o)
        for s in range(12)
        for o in range(12)
    ]
    (found,) = variance_components(records, named(records))
    assert found.seed == pytest.approx(of_seed.std(ddof=1), rel=0.1)
    assert found.order == pytest.approx(of_order.std(ddof=1), rel=0.1)
    assert found.rest == pytest.approx(0.002, rel=0.2)
    assert (found.seeds, found.orders) == (12, 12)


def test_a_seeds_own_order_counts_and_incomplete_seeds_are_left_out() -> None:
    records = [
        record(1.2, seed=0),
        record(1.3, seed=1),
        record(1.25, seed=0, order=1),
        record(1.27, seed=1, order=0),
        record(1.9, seed=2),
    ]
    (found,) = variance_components(records, named(records))
    assert (found.seeds, found.orders) == (2, 2)
    # Seeds alone tell none.
    records = [record(1.2 + 0.01 * seed, seed=seed) for seed in range(4)]
    assert variance_components(records, named(records)) == ()
