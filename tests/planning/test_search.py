from __future__ import annotations

from collections import Counter

import pytest

from given import record_of
from isoflop.config import Grid, Recipe, Search, Study, TopK, Variant
from isoflop.planning import next_trials, trials
from isoflop.terminal.plan import trial_table

STUDY = Study(
    name="searched",
    budgets_flops=(5e12,),
    recipe=Recipe(),
    search=Search(learning_rates=(4e-3, 8e-3, 1.6e-2), width_per_block=(6.0, 14.0), seeds=(0, 3)),
    variants=(Variant(name="Baseline"), Variant(name="MoD 12.5%", depth=TopK(capacity=0.125))),
)


def test_every_variant_gets_the_same_trials() -> None:
    made = trials(STUDY)
    offered = {
        name: Counter((t.learning_rate, t.width_per_block) for t in made if t.variant == name)
        for name in ("Baseline", "MoD 12.5%")
    }
    assert offered["Baseline"] == offered["MoD 12.5%"]
    assert len(offered["Baseline"]) == 3 * 2
    for trial in made:
        assert [config.seed for config in trial.configs] == [0, 3]
        assert {config.recipe.learning_rate for config in trial.configs} == {trial.learning_rate}
        assert {config.budget_flops for config in trial.configs} == {5e12}


def test_a_trial_has_a_loss_once_all_its_seeds_finished() -> None:
    first = trials(STUDY)[0]
    one = [record_of(first.configs[0], 1.25)]
    assert trials(STUDY, one)[0].loss is None
    both = [*one, record_of(first.configs[1], 1.35)]
    assert trials(STUDY, both)[0].loss == pytest.approx(1.3)
    diverged = [*one, record_of(first.configs[1], None, "diverged")]
    assert trials(STUDY, diverged)[0].loss is None
    # The lowest of the rates tried may not be the best there is.
    assert str(next(trial_table(trials(STUDY, both)).columns[-1].cells)) == "best, at an end"


def test_trials_with_a_record_are_not_planned_again() -> None:
    planned = next_trials(STUDY, [])
    assert len(planned) == 2 * 3 * 2 * 2
    assert {run.purpose for run in planned} == {"trial"}
    left = next_trials(STUDY, [record_of(planned[0].config, 1.0)])
    assert planned[0].config.run_id not in {run.config.run_id for run in left}
    assert len(left) == len(planned) - 1


def test_a_named_size_holds_whatever_the_grid_is_centred_on() -> None:
    pinned = STUDY.model_copy(
        update={"search": STUDY.search.model_copy(update={"parameters": 150e3})}
    )
    moved = pinned.model_copy(update={"grid": Grid(centre_parameters=400e3)})
    assert trials(pinned) == trials(moved) != trials(STUDY)
