import math

import numpy as np
import pytest

from isoflop.fit.curves.seeds import noisy_minimum
from isoflop.papers.claims import Roles, mod_claims

ROLES = Roles(baseline="Baseline", sparse="MoD 12.5%", dense="MoD 50%", random="Random")
PUBLISHED = {
    "Baseline": {"loss": 1.25},
    "MoD 12.5%": {"loss": 1.22, "at": 3e5, "flops_per_parameter": 1.1},
    "MoD 50%": {"loss": 1.235, "at": 2.5e5, "flops_per_parameter": 1.5},
    "Random": {"loss": 1.29, "flops_per_parameter": 1.5},
}


def changed(**losses: float) -> dict[str, dict[str, float]]:
    names = {"base": "Baseline", "sparse": "MoD 12.5%", "dense": "MoD 50%", "random": "Random"}
    return PUBLISHED | {names[k]: PUBLISHED[names[k]] | {"loss": v} for k, v in losses.items()}


HELD, OPEN = ["held"], ["unresolved"]
REVERSED = changed(dense=1.28, random=1.20) | {"MoD 12.5%": {"loss": 1.30, "at": 1e5}}
LEVEL = {name: {"loss": 1.25 + 1e-4 * i} for i, name in enumerate(PUBLISHED)}
LEVEL["MoD 12.5%"]["flops_per_parameter"] = 1.8


@pytest.mark.parametrize(
    ("variants", "shifts", "verdicts"),
    [
        (PUBLISHED, (-0.001, 0.0, 0.001), HELD * 6),
        (REVERSED, (-0.001, 0.0, 0.001), ["not held"] * 6),
        (LEVEL, (-0.02, 0.0, 0.02), OPEN * 6),
        # One seed decides nothing about losses.
        (PUBLISHED, (), OPEN * 2 + HELD + OPEN * 3),
    ],
)
def test_claims_are_judged_at_the_noise(runs, variants, shifts, verdicts) -> None:
    table = runs(variants, seed_shifts=shifts)
    table["loss"] += np.random.default_rng(0).normal(0, 0.0 if shifts else 5e-4, len(table))
    claims = mod_claims(table, ROLES)
    assert [claim.verdict for claim in claims] == verdicts
    sides = {"held": -1, "unresolved": 0, "not held": 1}
    assert all(one.interval.side == sides[one.verdict] for one in claims if one.interval)
    assert ("one seed near the minimum" in claims[0].numbers) == (not shifts)


def test_a_claim_says_its_numbers(runs) -> None:
    claims = mod_claims(runs(PUBLISHED), ROLES)
    assert [claim.statement for claim in claims] == [
        "MoD 12.5% is below Baseline",
        "MoD 50% is below Baseline",
        "the optimum of MoD 12.5% has more parameters than that of Baseline",
        "Random is the worst",
        "MoD 12.5% is at or below MoD 50%",
        "a MoD 12.5% model reaches the loss of the optimal Baseline with fewer forward FLOPs",
    ]
    first, *_, cheap = claims
    assert first.interval.value == pytest.approx(-0.03)
    assert first.numbers.startswith(
        "MoD 12.5% reaches 1.2200 and Baseline 1.2500, a difference of -0.0300 ["
    )
    assert "3 and 3 seeds" in first.numbers
    # Forward FLOPs 1.1 N below 2 * 2e5: up to step 1, which is also the lowest.
    assert f"at {1.1 * 1.6 / 2:.2f} of the forward FLOPs" in cheap.numbers


def test_refused_minimum_is_unresolved_and_says_why(runs) -> None:
    table = runs(PUBLISHED | {"MoD 12.5%": {"loss": 1.1, "at": 1e7}})
    first, second, third, worst, order, cheaper = mod_claims(table, ROLES)
    for claim in (first, third, worst, order, cheaper):
        assert claim.verdict == "unresolved"
        assert "MoD 12.5%: the lowest loss is at an end" in claim.numbers
    assert second.verdict == "held"


def test_absent_variants_have_no_claims(runs) -> None:
    table = runs({name: PUBLISHED[name] for name in ("Baseline", "MoD 12.5%")})
    claims = mod_claims(table, Roles(baseline="Baseline", sparse="MoD 12.5%"))
    assert [c.verdict for c in claims] == HELD * 3
    # Named in the study, but nothing finished yet.
    assert "no finished runs" in mod_claims(table, ROLES)[1].numbers


def test_one_better_control_refutes_that_random_is_worst(runs) -> None:
    worst = mod_claims(runs(changed(dense=1.32)), ROLES)[3]
    assert worst.verdict == "not held"
    assert "MoD 50% reaches 1.3200 and Random 1.2900" in worst.numbers
    close = mod_claims(runs(changed(base=1.2899)), ROLES)[3]
    assert close.verdict == "unresolved"
    assert "Baseline" in close.numbers


def test_a_seed_that_is_off_at_every_size_is_one_observation(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25}}, seed_shifts=(-0.01, 0.0, 0.01))
    shared = noisy_minimum(table, "Baseline", 5e12)
    assert (len(shared.seed_deviations), shared.loss.degrees_of_freedom) == (3, 2)
    assert shared.loss.error == pytest.approx(0.01 / math.sqrt(3))
    assert shared.run_spread == pytest.approx(0.01)
    # The same shifts, but of another sign at one size: seeds cancel, single runs do not.
    flipped = (table["seed"] > 0) & (table["parameters"] < 1.9e5)
    middle = table["parameters"].between(1.9e5, 2.1e5)
    table.loc[flipped, "loss"] = (
        2 * table["loss"][table["seed"] == 0].loc[table["parameters"] < 1.9e5].iloc[-1]
        - table.loc[flipped, "loss"]
    )
    table = table[~middle | (table["seed"] == 0)]
    cancelled = noisy_minimum(table, "Baseline", 5e12)
    assert cancelled.loss.error == pytest.approx(0, abs=1e-12)
    assert cancelled.run_spread == pytest.approx(0.01)


def test_curvature_lost_in_noise_does_not_resolve_the_size(runs) -> None:
    table = runs({"Baseline": {"loss": 1.25}})
    assert noisy_minimum(table, "Baseline", 5e12).log_parameters is not None
    table["loss"] += np.where(table["blocks"] % 2, -0.03, 0.03)
    found = noisy_minimum(table, "Baseline", 5e12)
    assert found.minimum.status == "converged"
    assert found.log_parameters is None
