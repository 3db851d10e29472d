"""Seeds that are added until the variants of a study are resolved, up to a limit."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from driven_grid import drive, make_study, total

from isoflop.config import RandomK, RunRecord, Study, TopK, Variant
from isoflop.fit import FitSettings, frame
from isoflop.fit.compare.verdict import FEW_IN_COMMON, BudgetVerdict, judged
from isoflop.planning import PlannedRun, bound, brackets, expected_optimum, next_runs
from isoflop.planning.assignment import assign

VARIANTS = (
    Variant(name="Baseline"),
    Variant(name="MoD", depth=TopK(capacity=0.125)),
    Variant(name="Random", depth=RandomK(capacity=0.5)),
)


def watched(margin: float = 0.01, most: int = 12, **changes: Any) -> Study:
    values: dict[str, Any] = {"seeds": (0, 1, 2), "variants": VARIANTS, "matched_shapes": False}
    if margin:
        values |= {"until_resolved": margin, "seeds_at_most": most}
    return make_study(**{**values, **changes})


def shifted(study: Study, shifts: Mapping[str, float], noise: float):
    """A valley per variant, as high as `shifts` says; what a seed adds is each variant's own."""

    def loss(run: PlannedRun) -> float:
        variant = next(one for one in study.variants if one.name == run.variant)
        centre = expected_optimum(study, variant, run.budget_flops)
        draw = random.Random(f"{run.variant} {run.budget_flops} {run.config.seed}").gauss(0, noise)
        own = random.Random(run.config.run_id).gauss(0, noise / 10)
        valley = 0.03 * math.log(total(run.config) / centre) ** 2
        return 2 + shifts.get(run.variant, 0.0) + valley + draw + own

    return loss


def verdicts_of(study: Study, records: list[RunRecord]) -> dict[str, BudgetVerdict]:
    found = assign(study, records)
    assert not found.foreign
    table = frame([r for r in records if r.run_id in found.variant_of], found.variant_of)
    return {one.variant: one for one in judged(table, "Baseline", FitSettings().of_study(study))}


def seeds_of(runs: list[PlannedRun], name: str) -> set[int]:
    return {run.config.seed for run in runs if run.variant == name}


@pytest.mark.parametrize("at_a_time", [7, 10**6])
def test_seeds_are_added_to_what_is_unresolved_alone(at_a_time: int) -> None:
    study = watched()
    runs, records = drive(study, shifted(study, {"Random": 0.3, "MoD": -0.02}, 0.008), at_a_time)
    found = verdicts_of(study, records)
    assert found["Random"].outcome == "worse"
    assert found["MoD"].outcome in ("better", "equivalent")
    assert seeds_of(runs, "Random") == {0, 1, 2}
    used = seeds_of(runs, "MoD")
    assert 3 < len(used) < 12
    assert used == set(range(len(used))) == seeds_of(runs, "Baseline")
    interval = found["MoD"].difference.interval
    assert interval.looks_from == 3
    # A further seed has the minimum and its neighbours, as the declared ones do.
    counts = Counter((run.variant, run.config.seed) for run in runs if run.config.seed > 2)
    assert set(counts.values()) == {3}
    assert all(one.settled for one in brackets(study, records))


def test_seeds_end_at_the_limit_and_begin_where_the_study_says() -> None:
    study = watched(1e-6, 6, seeds=(7, 4, 5))
    assert study.added_seeds == (8, 9, 10)
    runs, records = drive(study, shifted(study, {}, 0.01))
    assert seeds_of(runs, "MoD") == {4, 5, 7, 8, 9, 10} == seeds_of(runs, "Baseline")
    assert {one.outcome for one in verdicts_of(study, records).values()} == {"unresolved"}
    replicates = sum(run.purpose == "replicate" for run in runs)
    assert replicates == 3 * 3 * 5 <= bound(study).replicates


def test_what_is_near_enough_is_equivalent_and_ends() -> None:
    study = watched(0.05)
    runs, records = drive(study, shifted(study, {}, 0.004))
    assert {one.outcome for one in verdicts_of(study, records).values()} == {"equivalent"}
    assert all(seeds_of(runs, one.name) == {0, 1, 2} for one in study.variants)


def test_the_runs_are_those_of_the_study_without_and_follow_from_the_records_alone() -> None:
    study, plain = watched(1e-6, 5), watched(0)
    loss = shifted(study, {}, 0.01)
    _, records = drive(plain, shifted(plain, {}, 0.01))
    declared = {record.run_id for record in records}
    assert {run.config.run_id for run in next_runs(study, [])} <= declared
    more = next_runs(study, records)
    assert {run.config.seed for run in more} == {3}
    assert next_runs(study, records[::-1]) == more
    # The pair whose interval is widest comes first.
    found = verdicts_of(study, records)
    widths = {
        name: one.difference.interval.ends[1] - one.difference.interval.ends[0]
        for name, one in found.items()
    }
    first = next(run.variant for run in more if run.variant != "Baseline")
    assert first == max(widths, key=widths.__getitem__)
    everything, _ = drive(study, loss)
    assert declared < {run.config.run_id for run in everything}


def test_a_seed_that_diverges_does_not_count_and_the_next_one_is_taken() -> None:
    study = watched(1e-6, 6)
    losses = shifted(study, {}, 0.01)

    def loss(run: PlannedRun) -> float | None:
        return None if (run.variant, run.config.seed) == ("MoD", 4) else losses(run)

    runs, records = drive(study, loss)
    assert seeds_of(runs, "MoD") == set(range(6))
    paired = verdicts_of(study, records)["MoD"].difference
    assert paired.paired
    others = verdicts_of(study, [one for one in records if one.config.seed != 4])
    assert others["MoD"].difference == paired


def test_declared_seeds_that_diverge_leave_the_difference_to_further_ones() -> None:
    study = watched(0.001, 12)
    losses = shifted(study, {"MoD": -0.05}, 0.001)

    def loss(run: PlannedRun) -> float | None:
        return None if run.variant == "MoD" and run.config.seed in (1, 2) else losses(run)

    runs, records = drive(study, loss)
    assert seeds_of(runs, "MoD") >= {0, 1, 2, 3}
    found = verdicts_of(study, records)["MoD"]
    assert found.outcome == "better"
    assert found.difference.interval.looks_from == 2
    declared = [one for one in records if one.config.seed < 3]
    assert verdicts_of(study, declared)["MoD"].reason == FEW_IN_COMMON


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds_at_most": None}, "expected both, since the number of seeds has to end"),
        ({"until_resolved": None}, "expected both"),
        ({"seeds": (0, 1)}, "adds to 2 seeds, up to seeds_at_most = 12; expected 3 or more"),
        ({"seeds_at_most": 3}, "fewer than that"),
        ({"variants": VARIANTS[:1]}, "two variants or more"),
        ({"equivalence_margin": 0.02}, "expected one margin"),
        ({"seeds": (0, 1, 2**63 - 5)}, "none above"),
    ],
)
def test_what_cannot_be_added_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        watched(**{"most": 12, **changes})
