"""The adaptive grid, driven to its end against made-up loss surfaces."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from driven_grid import ONLY, drive, make_study, total, valley
from hypothesis import example, given, settings
from hypothesis import strategies as st

from given import record_of
from isoflop.config import TopK, Variant
from isoflop.planning import PlannedRun, bound, brackets, edges, next_runs
from isoflop.planning.assignment import assign
from isoflop.planning.cell import cells


def test_the_first_sizes_of_every_variant_and_budget() -> None:
    study = make_study(budgets_flops=(5e12, 5e13), seeds=(4, 5))
    runs = next_runs(study, [])
    assert Counter((run.variant, run.budget_flops) for run in runs) == {
        (name, budget): 7 for name in ("Baseline", "MoD", "Random") for budget in (5e12, 5e13)
    }
    assert {run.purpose for run in runs} == {"initial"}
    assert {run.config.seed for run in runs} == {4}
    assert all(run.config.budget_flops == run.budget_flops for run in runs)


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


@settings(max_examples=12, deadline=None)
@example(3.0, 0.0, 0.0, {"sizes": 7, "added_at_most": 1}, False, "near_minimum", 2)
@given(
    displaced=st.sampled_from([0.1, 0.3, 1.0, 3.0, 10.0]),
    noise=st.sampled_from([0.0, 0.01]),
    diverging=st.sampled_from([0.0, 0.2, 1.0]),
    grid=st.fixed_dictionaries(
        {"sizes": st.sampled_from([5, 7]), "added_at_most": st.integers(0, 6)}
    ),
    checked=st.booleans(),
    replicate=st.sampled_from(["near_minimum", "all"]),
    at_a_time=st.sampled_from([2, 10**6]),
)
def test_any_grid_ends_with_what_it_asks_for(
    displaced, noise, diverging, grid, checked, replicate, at_a_time
) -> None:
    checks = {"learning_rate_check": (0.5, 2.0), "data_orders": (0, 7)} if checked else {}
    study = make_study(
        budgets_flops=(1e14,), seeds=(0, 1), replicate=replicate, grid=grid, **checks
    )
    smooth = valley(study, displaced, noise)

    def loss(run: PlannedRun) -> float | None:
        gone = random.Random(total(run.config)).random() < diverging
        return None if gone else smooth(run)

    runs, records = drive(study, loss, at_a_time)
    planned = {run.config.run_id: run for run in runs}
    known = assign(study, records)
    assert known.foreign == ()
    assert known.all == {run_id: run.variant for run_id, run in planned.items()}
    # A size that is matched may be one that its own ladder comes to.
    rungs = [one.model(rung) for one in cells(study, records) for rung in one.rungs]
    matched = {i: run.config.model for i, run in planned.items() if run.purpose == "matched"}
    assert known.off_ladder == {i for i, model in matched.items() if model not in rungs}
    assert known.checks.keys() == {
        i for i, run in planned.items() if run.purpose in ("rate", "order")
    }
    edged = {edge.variant for edge in edges(study, records)}
    for cell, bracket in zip(cells(study, records), brackets(study, records), strict=True):
        assert bracket.settled
        if diverging == 1:
            assert bracket.minimum_parameters is None
            continue
        assert bracket.bracketed == (bracket.variant not in edged)
        mine = [run for run in runs if run.variant == bracket.variant]
        usable = sorted(cell.mean_losses)
        at = usable.index(cell.minimum)
        for rung in usable if replicate == "all" else usable[max(0, at - 1) : at + 2]:
            seeds = {run.config.seed for run in mine if run.config.model == cell.model(rung)}
            assert seeds == {0, 1}
        if not noise:
            beside = [run for run in mine if run.purpose in ("rate", "order")]
            assert {total(run.config) for run in beside} <= {bracket.minimum_parameters}
            assert len(beside) == (4 + 1 if checked else 0)
    if not noise:
        others = 10**6 if at_a_time == 2 else 2
        assert planned.keys() == {run.config.run_id for run in drive(study, loss, others)[0]}


@pytest.mark.parametrize("displaced", [0.1, 10.0])
def test_sizes_are_added_on_the_side_of_the_minimum(displaced: float) -> None:
    study = make_study(budgets_flops=(1e15,), variants=ONLY)
    runs, records = drive(study, valley(study, displaced))
    assert brackets(study, records)[0].bracketed
    first = [total(run.config) for run in runs if run.purpose == "initial"]
    added = [total(run.config) for run in runs if run.purpose == "added"]
    assert max(added) < min(first) if displaced < 1 else min(added) > max(first)


def test_a_loss_without_a_minimum_stops_at_the_bound() -> None:
    study = make_study(budgets_flops=(1e15,), grid={"added_at_most": 4})
    runs, records = drive(study, lambda run: 5 - 0.1 * math.log(total(run.config)))
    assert Counter(run.purpose for run in runs) == {"initial": 21, "added": 3 * 4}
    assert not any(bracket.bracketed for bracket in brackets(study, records))


def test_a_diverged_run_is_done_and_counts_on_no_side() -> None:
    study = make_study(variants=ONLY)
    sizes = sorted(total(run.config) for run in next_runs(study, []))
    smooth = valley(study)
    runs, records = drive(
        study, lambda run: None if total(run.config) in sizes[-2:] else smooth(run)
    )
    assert brackets(study, records)[0].bracketed
    (added,) = [total(run.config) for run in runs if run.purpose == "added"]
    assert added > sizes[-1]


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


def test_runs_that_an_edited_study_does_not_ask_for_are_foreign() -> None:
    study = make_study()
    runs, records = drive(study, lambda run: 1 + abs(total(run.config) - 150e3) / 1e6)
    matched = {run.config.run_id for run in runs if run.purpose == "matched"}
    without = study.model_copy(update={"matched_shapes": False})
    assert set(assign(without, records).foreign) == matched != set()
    assert bound(without).matched == 0
    assert "matched" not in {run.purpose for run in drive(without, valley(study))[0]}
    longer = study.model_copy(update={"evaluation_tokens": 1024})
    assert len(assign(longer, records).foreign) == len(records)
    twins = make_study(variants=(Variant(name="one"), Variant(name="two")))
    found = assign(twins, [record_of(run.config, 1.0) for run in next_runs(twins, [])])
    assert (len(found.variant_of), set(found.variant_of.values())) == (7, {"one"})


def test_matched_shapes_that_cannot_be_routed_are_refused_at_once() -> None:
    study = make_study(
        variants=(Variant(name="Baseline"), Variant(name="MoD", depth=TopK(capacity=0.5, every=4)))
    )
    with pytest.raises(ValueError, match=r"matched_shapes.*too few.*minimum_blocks"):
        next_runs(study, [])
    assert next_runs(study.model_copy(update={"matched_shapes": False}), [])


def test_a_variant_that_joins_asks_for_its_own_runs_alone() -> None:
    study = make_study(seeds=(0, 1), matched_shapes=False)
    _, records = drive(study, valley(study))
    joined = Variant(name="Joined", depth=TopK(capacity=0.25))
    league = study.model_copy(update={"variants": (*study.variants, joined)})
    assert {run.variant for run in next_runs(league, records)} == {"Joined"}


def test_a_finished_record_without_its_loss_is_refused() -> None:
    study = make_study()
    records = [record_of(run.config, None, "finished") for run in next_runs(study, [])]
    with pytest.raises(ValueError, match=r"run [0-9a-f]{12} is finished but"):
        next_runs(study, records)


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
    assert everywhere.matched == 2 * 2 * 3


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
