"""What a study is expected to resolve, from noise that is known."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import special

from isoflop.estimate import SeedNoise
from isoflop.fit import run_table
from isoflop.fit.compare import power
from isoflop.fit.compare.power import Design, expected_power, recorded_noise, resolvable

SIZES = 2e5 * 1.6 ** np.arange(-3.0, 4.0)
DESIGN = Design((SIZES, SIZES))


@pytest.fixture(autouse=True)
def _fewer_studies(monkeypatch) -> None:
    monkeypatch.setattr(power, "STUDIES", 60)


def noise(own: float = 0.0, apart: float = 0.0, shared: float = 0.0) -> SeedNoise:
    return SeedNoise(
        spread=math.sqrt(own**2 + apart**2 + shared**2),
        variants={},
        own_spread=own,
        apart_spread=apart,
        shared_spread=shared,
        correlation=None,
        curvature=0.05,
        runs=0,
    )


def recorded(own: float, apart: float, shared: float, seeds: int, names: str) -> pd.DataFrame:
    rng, shape = np.random.default_rng(3), (len(names), len(SIZES), seeds)
    variant, size, seed = (one.ravel() for one in np.indices(shape))
    of_seed = shared * rng.standard_normal(seeds) + apart * rng.standard_normal((len(names), seeds))
    loss = 2 + 0.05 * np.log(SIZES[size] / 2e5) ** 2 + of_seed[variant, seed]
    columns = {"variant": np.array(list(names))[variant], "parameters": SIZES[size], "seed": seed}
    losses = loss + own * rng.standard_normal(len(loss))
    return run_table(pd.DataFrame({**columns, "budget_flops": 1e18, "loss": losses})).table


@pytest.mark.parametrize(
    ("own", "apart", "shared"), [(0.004, 0.006, 0.009), (0.005, 0.0, 0.01), (0.005, 0.01, 0.0)]
)
def test_the_parts_of_the_noise_are_told_apart(own, apart, shared) -> None:
    found = recorded_noise(recorded(own, apart, shared, 60, "ab"), "a")
    assert found is not None
    assert found.own_spread == pytest.approx(own, rel=0.1)
    assert found.apart_spread == pytest.approx(apart, abs=0.0015)
    assert found.shared_spread == pytest.approx(shared, abs=0.003)
    assert found.spread == pytest.approx(math.hypot(own, apart, shared), rel=0.15)
    parts = (shared**2, apart**2, own**2 / 3)
    assert found.correlation == pytest.approx(parts[0] / sum(parts), abs=0.2)
    assert found.curvature == pytest.approx(0.05, rel=0.1)
    assert found.runs == 2 * 60 * 7
    assert set(found.variants) == {"a", "b"}


def test_noise_is_known_from_one_variant_and_not_from_one_seed() -> None:
    alone = recorded_noise(recorded(0.005, 0.01, 0.0, 40, "a"), "a")
    assert alone is not None
    assert alone.correlation is None
    assert alone.apart_spread == pytest.approx(0.01, rel=0.2)
    assert alone.shared_spread == 0
    assert recorded_noise(recorded(0.005, 0.01, 0.0, 1, "ab"), "a") is None


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_difference_told_has_the_power_told_by_the_t_test(seeds, monkeypatch) -> None:
    monkeypatch.setattr(power, "STUDIES", 200)
    # Where runs have no noise of their own, seeds are a paired t-test.
    found = resolvable(noise(apart=0.01, shared=0.1), DESIGN, seeds)
    assert found is not None
    spread, critical = 0.01 * math.sqrt(2), special.stdtrit(seeds - 1, 0.975)
    shift = found[0] / spread * math.sqrt(seeds)
    reached = 1 - sum(special.nctdtr(seeds - 1, shift, [critical, -critical]) * [1, -1])
    assert reached == pytest.approx(power.SHARE, abs=0.07)
    # The median of the sample deviation is below the deviation.
    assert 0.7 < found[1] / (critical * spread / math.sqrt(seeds)) < 1.05


def test_the_seeds_told_resolve_the_margin() -> None:
    told = expected_power(noise(0.009, 0.004), DESIGN, 5, 0.006, "them")
    assert told.resolves is not None
    assert told.margin_seeds is not None
    assert told.resolves > 0.006
    with_these = resolvable(noise(0.009, 0.004), DESIGN, told.margin_seeds)
    assert with_these is not None
    assert with_these[0] == pytest.approx(0.006, rel=0.15)
    assert told.margin_seeds > 5


def test_one_seed_resolves_nothing_and_no_number_what_is_far_too_small() -> None:
    one = expected_power(noise(0.01), DESIGN, 1, None, "them")
    assert (one.resolves, one.half_width, one.margin) == (None, None, power.USUAL_MARGIN)
    assert one.margin_seeds is not None
    assert expected_power(noise(0.1), DESIGN, 5, 1e-4, "them").margin_seeds is None
    short = replace(DESIGN, sizes=(SIZES, SIZES[:2]))
    assert resolvable(noise(0.01), short, 5) is None


def test_seeds_everywhere_resolve_more_and_looks_less() -> None:
    usual, everywhere, looked_at = (
        resolvable(noise(own=0.01), design, 6)
        for design in (DESIGN, replace(DESIGN, everywhere=True), replace(DESIGN, looks_from=3))
    )
    assert everywhere[0] < usual[0] < looked_at[0]
