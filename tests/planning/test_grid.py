"""The adaptive grid, driven to its end against made-up loss surfaces."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from driven_grid import ONLY, drive, make_study, total, valley

from given import record_of
from isoflop.config import TopK, Variant
from isoflop.planning import PlannedRun, bound, brackets, expected_optimum, next_runs


def test_the_first_sizes_of_every_variant_and_budget() -> None:
    study = make_study(budgets_flops=(5e12, 5e13), seeds=(4, 5))
    runs = next_runs(study, [])
    assert Counter((run.variant, run.budget_flops) for run in runs) == {
        (name, budget): 7 for name in ("Baseline", "MoD", "Random") for budget in (5e12, 5e13)
    }
    assert {run.purpose for run in runs} == {"initial"}
    assert {run.config.seed for run in runs} == {4}
    assert all(run.config.budget_flops == run.budget_flops for run in runs)


def test_a_centred_valley_needs_no_further_sizes() -> None:
    study = make_study(budgets_flops=(5e12, 5e13), seeds=(0, 1, 2))
    runs, records = drive(study, valley(study))
    count = Counter(run.purpose for run in runs)
    assert count["initial"] == 2 * 3 * 7
    assert count["replicate"] == 2 * 3 * 3 * 2
    assert count["added"] == 0
    # Shapes of the baseline that are on the challenger's own ladder are not trained twice.
    assert count["matched"] <= 2 * 2
    assert bound(study).usual_runs == 2 * 3 * 3 * 2 + 2 * 2
    found = brackets(study, records)
    assert all(bracket.bracketed and bracket.settled for bracket in found)


def test_seeds_are_added_at_the_minimum_and_its_neighbours() -> None:
    study = make_study(seeds=(0, 1, 2), variants=ONLY)
    runs, _ = drive(study, valley(study))
    sizes = sorted(total(run.config) for run in runs if run.purpose == "initial")
    centre = expected_optimum(study, study.variants[0], 5e12)
    best = min(range(7), key=lambda i: abs(math.log(sizes[i] / centre)))
    replicated = {
        (total(run.config), run.config.seed) for run in runs if run.purpose == "replicate"
    }
    assert replicated == {(sizes[i], seed) for i in (best - 1, best, best + 1) for seed in (1, 2)}


def test_sizes_that_another_study_trained_are_not_this_ones() -> None:
    wide = make_study(variants=ONLY)
    _, records = drive(wide, valley(wide))
    single = wide.model_copy(
        update={
            "seeds": (0, 1, 2),
            "replicate": "all",
            "grid": wide.grid.model_copy(update={"sizes": 1, "added_at_most": 0}),
        }
    )
    runs, _ = drive(single, valley(single))
    assert len(runs) == 3
    # One of the three is at hand already.
    assert len(next_runs(single, records)) == 2


@pytest.mark.parametrize("displaced", [0.1, 0.3, 3.0, 10.0])
def test_sizes_are_added_on_the_side_of_the_minimum(displaced: float) -> None:
    study = make_study(budgets_flops=(1e15,))
    runs, records = drive(study, valley(study, displaced))
    found = brackets(study, records)
    assert all(bracket.bracketed for bracket in found)
    for name in ("Baseline", "MoD", "Random"):
        mine = [run for run in runs if run.variant == name]
        first = [total(run.config) for run in mine if run.purpose == "initial"]
        added = [total(run.config) for run in mine if run.purpose == "added"]
        assert added
        assert max(added) < min(first) if displaced < 1 else min(added) > max(first)


@pytest.mark.parametrize("at_a_time", [2, 10**6])
@pytest.mark.parametrize("displaced", [0.3, 1.0, 3.0])
def test_noise_may_move_minima_but_the_grid_ends_with_all_bracketed(
    displaced: float, at_a_time: int
) -> None:
    study = make_study(budgets_flops=(1e15,), seeds=(0, 1, 2), variants=make_study().variants[:2])
    _, records = drive(study, valley(study, displaced, noise=0.01), at_a_time)
    found = brackets(study, records)
    assert len(found) == 2
    assert all(bracket.bracketed and bracket.settled for bracket in found)
    # Minimum and neighbours have every seed, wherever noise has put the minimum in the end.
    for bracket in found:
        depth = next(v.depth for v in study.variants if v.name == bracket.variant)
        losses: dict[int, list[float]] = {}
        for record in records:
            evaluation = record.evaluation("validation")
            if record.config.model.depth == depth and evaluation is not None:
                losses.setdefault(total(record.config), []).append(evaluation.loss)
        assert len(losses[bracket.minimum_parameters]) == 3


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_the_order_of_finishing_decides_nothing(at_a_time: int) -> None:
    study = make_study(budgets_flops=(1e14,), seeds=(0, 1), variants=make_study().variants[:2])
    together, _ = drive(study, valley(study, 4.0))
    apart, _ = drive(study, valley(study, 4.0), at_a_time)
    assert {run.config.run_id for run in together} == {run.config.run_id for run in apart}


def test_a_diverged_run_is_done_and_counts_on_no_side() -> None:
    study = make_study(variants=ONLY)
    sizes = sorted(total(run.config) for run in next_runs(study, []))
    smooth = valley(study)

    def loss(run: PlannedRun) -> float | None:
        return None if total(run.config) in sizes[-2:] else smooth(run)

    runs, records = drive(study, loss)
    (bracket,) = brackets(study, records)
    assert bracket.bracketed
    added = [total(run.config) for run in runs if run.purpose == "added"]
    assert len(added) == 1
    assert added[0] > sizes[-1]


def test_a_diverged_optimum_leaves_the_next_best() -> None:
    study = make_study(variants=ONLY, seeds=(0, 1))
    sizes = sorted(total(run.config) for run in next_runs(study, []))
    smooth = valley(study)
    runs, records = drive(study, lambda run: None if total(run.config) == sizes[3] else smooth(run))
    (bracket,) = brackets(study, records)
    assert bracket.bracketed
    assert bracket.minimum_parameters in (sizes[2], sizes[4])
    assert sizes[3] not in {total(run.config) for run in runs if run.purpose == "replicate"}


def test_all_diverged_ends_without_a_minimum() -> None:
    study = make_study(seeds=(0, 1))
    runs, records = drive(study, lambda run: None)
    assert len(runs) == 21
    found = brackets(study, records)
    assert all(bracket.settled and not bracket.bracketed for bracket in found)
    assert {bracket.minimum_parameters for bracket in found} == {None}


@pytest.mark.parametrize("at_a_time", [3, 10**6])
def test_a_loss_without_a_minimum_stops_at_the_bound(at_a_time: int) -> None:
    study = make_study(budgets_flops=(1e15,), grid={"added_at_most": 4})
    runs, records = drive(study, lambda run: 5 - 0.1 * math.log(total(run.config)), at_a_time)
    assert Counter(run.purpose for run in runs) == {"initial": 21, "added": 3 * 4}
    assert not any(bracket.bracketed for bracket in brackets(study, records))


def test_every_seed_everywhere_if_asked() -> None:
    study = make_study(seeds=(0, 1), replicate="all", variants=make_study().variants[:2])
    first = next_runs(study, [])
    assert Counter(run.purpose for run in first) == {"initial": 14, "replicate": 14}
    runs, _ = drive(study, valley(study, 3.0))
    assert set(Counter(run.config.model for run in runs).values()) == {2}


def test_the_challenger_is_trained_in_the_baselines_shapes() -> None:
    study = make_study(
        budgets_flops=(1e14,),
        shape={"width_per_block": 32},
        variants=(
            Variant(name="Baseline", learning_rate=1e-2),
            Variant(
                name="MoD",
                depth=TopK(capacity=0.125),
                learning_rate=3e-3,
                shape={"width_per_block": 8},
            ),
        ),
    )
    runs, records = drive(study, valley(study))
    baseline = {total(r.config): r.config.model for r in runs if r.variant == "Baseline"}
    found = brackets(study, records)
    optimum = found[0].minimum_parameters
    larger = min(
        (size for size in baseline if size > optimum),
        key=lambda size: abs(math.log(size / (2 * optimum))),
    )
    matched = [run.config for run in runs if run.purpose == "matched"]
    assert [config.model for config in sorted(matched, key=total)] == [
        baseline[size].model_copy(update={"depth": TopK(capacity=0.125)})
        for size in (optimum, larger)
    ]
    assert {config.recipe.learning_rate for config in matched} == {3e-3}
    assert {run.variant for run in runs if run.purpose == "matched"} == {"MoD"}


def test_matched_shapes_wait_for_the_baseline_and_can_be_left_out() -> None:
    study = make_study(variants=make_study().variants[:2])
    loss = valley(study)
    records = [
        record_of(run.config, loss(run))
        for run in next_runs(study, [])
        if run.variant == "MoD" or total(run.config) < 1e6
    ]
    assert "matched" not in {run.purpose for run in next_runs(study, records)}
    without = study.model_copy(update={"matched_shapes": False})
    runs, records = drive(without, loss)
    assert "matched" not in {run.purpose for run in runs}
    assert bound(without).matched == 0
    assert bound(study).matched == 2


def test_matched_shapes_that_cannot_be_routed_are_refused_at_once() -> None:
    study = make_study(
        variants=(Variant(name="Baseline"), Variant(name="MoD", depth=TopK(capacity=0.5, every=4)))
    )
    with pytest.raises(ValueError, match=r"matched_shapes.*too few.*minimum_blocks"):
        next_runs(study, [])
    assert next_runs(study.model_copy(update={"matched_shapes": False}), [])


def test_equal_variants_share_their_runs() -> None:
    study = make_study(variants=(Variant(name="one"), Variant(name="two")))
    runs = next_runs(study, [])
    assert len(runs) == 7
    assert {run.variant for run in runs} == {"one"}


def test_a_variant_that_joins_asks_for_its_own_runs_alone() -> None:
    study = make_study(seeds=(0, 1), matched_shapes=False)
    _, records = drive(study, valley(study))
    joined = Variant(name="Joined", depth=TopK(capacity=0.25))
    league = study.model_copy(update={"variants": (*study.variants, joined)})
    assert {run.variant for run in next_runs(league, records)} == {"Joined"}


def test_records_of_other_runs_are_ignored() -> None:
    study = make_study()
    other = make_study(data={"sequence_length": 128})
    foreign = [record_of(run.config, 1.0) for run in next_runs(other, [])]
    assert next_runs(study, foreign) == next_runs(study, [])


def test_a_finished_record_without_its_loss_is_refused() -> None:
    study = make_study()
    records = [record_of(run.config, None, "finished") for run in next_runs(study, [])]
    with pytest.raises(ValueError, match=r"run [0-9a-f]{12} is finished but"):
        next_runs(study, records)


def test_a_budget_too_small_for_the_first_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="budgets_flops"):
        next_runs(make_study(budgets_flops=(1e9,)), [])


def test_bound_counts_flops_and_every_seed() -> None:
    study = make_study(
        budgets_flops=(5e12, 5e13), seeds=(0, 1, 2), grid={"added_at_most": 2, "sizes": 5}
    )
    counted = bound(study)
    assert counted.sizes == 2 * 3 * 2
    assert counted.replicates == 2 * 3 * (5 + 2) * 2
    assert counted.matched == 2 * 2
    assert counted.runs == 12 + 84 + 4
    assert counted.flops == pytest.approx((6 + 42 + 2) * (5e12 + 5e13))
    assert counted.usual_flops == pytest.approx((18 + 2) * (5e12 + 5e13))
    everywhere = bound(study.model_copy(update={"replicate": "all"}))
    assert everywhere.replicates == 2 * 3 * 2 * 2


def test_the_mean_over_seeds_decides_the_minimum() -> None:
    study = make_study(variants=ONLY, seeds=(0, 1), replicate="all")
    runs = next_runs(study, [])
    sizes = sorted({total(run.config) for run in runs})
    lucky, best = sizes[2], sizes[4]
    losses = {(lucky, 0): 1.0, (lucky, 1): 3.0, (best, 0): 1.5, (best, 1): 1.5}
    records = [
        record_of(run.config, losses.get((total(run.config), run.config.seed), 4.0)) for run in runs
    ]
    (bracket,) = brackets(study, records)
    assert bracket.minimum_parameters == best
    assert (bracket.below, bracket.above) == (4, 2)


def test_matched_shapes_wait_for_the_baselines_seeds() -> None:
    deep = Variant(name="MoD", depth=TopK(capacity=0.125), shape={"width_per_block": 6})
    study = make_study(variants=(Variant(name="Baseline"), deep), seeds=(0, 1))
    loss = valley(study)
    records = [record_of(run.config, loss(run)) for run in next_runs(study, [])]
    second = next_runs(study, records)
    assert {run.purpose for run in second} == {"replicate"}
    records += [record_of(run.config, loss(run)) for run in second]
    assert {run.purpose for run in next_runs(study, records)} == {"matched"}
