"""A search under noise finds the best value of each setting, with as many trials per variant."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from given import FP32, record_of
from isoflop.config import (
    DataConfig,
    Exponents,
    Grid,
    Muon,
    Recipe,
    RunConfig,
    Search,
    Study,
    TopK,
    Values,
    Variant,
)
from isoflop.fit.search import SearchResult
from isoflop.planning import ladder, resolve
from isoflop.planning.search.contenders import found_variants, search
from isoflop.planning.search.walk import Point, Tried, Walk
from isoflop.terminal.plan import search_tables

STEP = math.log(2)
NOISE = 0.005
NAMES = ("learning_rate", "weight_decay", "warmup_fraction")


def walked(
    best: tuple[float, ...],
    bend: float = 0.03,
    draw: int = 0,
    most: int = 150,
    worst: float = math.inf,
) -> Walk:
    """Return the search of a bowl whose lowest point lies so many steps from the first centre.

    Its runs scatter by NOISE, and as much again that all of a seed share; those more than `worst`
    steps above the centre of the first setting diverge.
    """
    rng = np.random.default_rng(draw)
    losses: dict[tuple[Point, int] | int, float] = {}

    def trial(point: Point, seed: int) -> Tried:
        away = (np.array(point) - best) * STEP
        for key in (seed, (point, seed)):
            losses.setdefault(key, rng.normal(0, NOISE))
        loss = 1.5 + bend * float(away @ away) + losses[seed] + losses[point, seed]
        loss = math.inf if point[0] > worst else loss
        return Tried(f"{point} {seed}", tuple(STEP * at for at in point), loss)

    d = len(best)
    search = Search(settings=Values(learning_rate=(1, 2, 4)), seeds=(0, 1), most_trials=most)
    return Walk(NAMES[:d], (0,) * d, [(-1, 1)] * d, trial, search)


def held(walk: Walk, best: tuple[float, ...]) -> list[bool]:
    """Return of each setting whether its interval holds the truth."""
    judged = zip(walk.judged(), walk.centre, best, strict=True)
    return [
        one.best is not None and one.best.low <= (true - at) * STEP <= one.best.high
        for one, at, true in judged
    ]


@pytest.mark.parametrize("best", [(0.3,), (2.6,), (-3.4,)])
def test_a_search_ends_with_the_best_value_inside_what_was_tried(best: tuple[float, ...]) -> None:
    counts = Counter[bool]()
    for draw in range(20):
        walk = walked(best, draw=draw)
        (one,) = walk.judged()
        assert one.standing == "inside"
        low, high = one.best.ends
        assert one.tried[0] <= low < high <= one.tried[1]
        assert len(walk.asked) <= 40
        # An edge moves until the best value is between two others.
        assert abs(walk.centre[0] - best[0]) < 1
        counts.update(held(walk, best))
    assert counts[True] >= 16


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "reach", "bend"), [(1, 3, 0.03), (3, 1, 0.03), (3, 2, 0.015)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    settings: int, reach: float, bend: float
) -> None:
    rng = np.random.default_rng(1)
    found: list[bool] = []
    for draw in range(150):
        best = tuple(rng.uniform(-reach, reach, settings))
        found += held(walked(best, bend, draw), best)
    assert 0.92 <= np.mean(found) <= 0.98


def test_a_setting_that_does_not_matter_is_told_so_and_ends_the_search() -> None:
    walk = walked((0.0,), bend=0.0)
    (one,) = walk.judged()
    assert one.standing == "flat"
    assert one.moves <= 0.01
    assert len(walk.asked) < 60


def test_a_search_ends_at_its_limit_whatever_is_known() -> None:
    walk = walked((0.2, 0.4), bend=0.004, most=20)
    assert not walk.missing
    assert len(walk.asked) <= 20
    assert "unsure" in {one.standing for one in walk.judged()}


def test_what_diverges_is_an_end_that_is_worse() -> None:
    walk = walked((0.2,), worst=0)
    (one,) = walk.judged()
    assert one.standing == "inside"
    assert walk.judged()[0].tried[1] == pytest.approx(STEP)
    best_beyond = walked((2.0,), worst=0).judged()[0]
    assert best_beyond.standing == "end"
    nothing = walked((0.0, 0.0), worst=-9)
    assert {one.best for one in nothing.judged()} == {None}
    assert len(nothing.asked) == 10


STUDY = Study(
    name="searched",
    budgets_flops=(5e12, 1.5e13),
    recipe=FP32,
    search=Search(
        settings=Values(
            learning_rate=(5e-3, 1e-2, 2e-2),
            tokens_per_step=(1024, 2048, 4096),
            router_rate=(0.5, 1, 2),
        ),
        seeds=(0, 1),
        most_trials=80,
        budgets_flops=(5e12, 2e13),
        parameters=280e3,
    ),
    variants=(Variant(name="Baseline"), Variant(name="MoD", depth=TopK(capacity=0.125))),
)


def loss_of(config: RunConfig) -> float:
    """Return a loss that is lowest at a rate of 0.03 C^-0.3 and 1500 C^0.3 tokens, C from 5e12."""
    growth = config.budget_flops / 5e12
    noise = np.random.default_rng(int(config.run_id, 16)).normal(0, NOISE)
    shared = np.random.default_rng(config.seed).normal(0, NOISE)
    rate = math.log(config.recipe.learning_rate / 0.03 / growth**-0.3)
    tokens = math.log(config.tokens_per_step / 1500 / growth**0.3)
    return 1.5 + 0.05 * rate**2 + 0.03 * tokens**2 + noise + shared


@pytest.fixture(scope="module")
def searched() -> tuple[list, SearchResult]:
    """Records of a whole search, and what came of it."""
    records = []
    while True:
        missing, found = search(STUDY, records)
        if not missing:
            return records, found
        ids = {record.run_id for record in records}
        assert not ids & {run.config.run_id for run in missing}
        records += [record_of(run.config, loss_of(run.config)) for run in missing]


def test_every_variant_gets_as_many_trials_and_finds_what_is_true(
    searched: tuple[list, SearchResult],
) -> None:
    records, found = searched
    routed = Counter(record.config.model.depth.kind for record in records)
    assert len(set(routed.values())) == 1
    assert found.trials == {"Baseline": len(records) / 2, "MoD": len(records) / 2}
    for recipe in found.recipes:
        growth = recipe.budget_flops / 5e12
        rate, tokens, *router = recipe.settings
        assert rate.best.value == pytest.approx(0.03 * growth**-0.3, rel=0.15)
        assert tokens.best.value == pytest.approx(1500 * growth**0.3, rel=0.25)
        assert recipe.spread == pytest.approx(NOISE, rel=0.5)
        assert recipe.trials <= 80
        # Nothing is searched that a variant does not have.
        assert [one.setting for one in router] == ["router_rate"] * (recipe.variant == "MoD")
    assert found.recipes[1].settings[2].standing == "flat"


def test_of_a_variant_whose_trials_all_diverge_nothing_is_told() -> None:
    records = []
    while missing := search(STUDY, records)[0]:
        for run in missing:
            loss = None if run.variant == "Baseline" else loss_of(run.config)
            records += [record_of(run.config, loss, "finished" if loss else "diverged")]
    found = search(STUDY, records)[1]
    assert {one.variant for one in found.recipes} == {"MoD"}
    assert [one.name for one in found_variants(STUDY, found)] == ["MoD"]
    assert found.finished == {"Baseline": 0, "MoD": found.trials["MoD"]}
    told = "\n".join(map(str, search_tables(STUDY, found)))
    assert f"Baseline: 0 of {found.trials['Baseline']} finished, MoD: " in told


def test_the_next_trials_follow_from_the_records_alone(searched: tuple[list, SearchResult]) -> None:
    records, found = searched
    assert search(STUDY, records[::-1]) == ([], found)
    first = search(STUDY, [])[0]
    # With part of the records, what is missing is a part of what was trained.
    for kept in (len(first) // 2, len(records) // 2, len(records) - 3):
        missing, _ = search(STUDY, records[:kept])
        assert missing
        assert {run.config.run_id for run in missing} <= {r.run_id for r in records[kept:]}


def test_laws_are_written_into_variants_and_move_every_later_rate(
    searched: tuple[list, SearchResult],
) -> None:
    (baseline, _) = found_variants(STUDY, searched[1])
    exponents = baseline.exponents
    assert exponents.learning_rate == pytest.approx(-0.3, abs=0.12)
    study = STUDY.model_copy(update={"variants": (baseline,)})
    later = resolve(study, baseline, 1.5e13, ladder(study, baseline, 1.5e13).rung(3), 0)
    growth = 3**exponents.learning_rate
    assert later.recipe.learning_rate == pytest.approx(baseline.learning_rate * growth, rel=1e-5)
    assert later.recipe.learning_rate == study.learning_rate("Baseline", 1.5e13)
    assert later.tokens_per_step % 256 == 0
    assert later.tokens_per_step >= baseline.tokens_per_step


def test_settings_of_a_variant_reach_its_runs_and_leave_other_ids_alone() -> None:
    plain = Variant(name="plain")
    own = Variant(
        name="own", weight_decay=0.3, warmup_fraction=0.02, router_rate=2, tokens_per_step=1024
    )
    study = Study(
        name="s",
        budgets_flops=(5e12,),
        recipe=Recipe(optimiser=Muon()),
        grid=Grid(sizes=3),
        data=DataConfig(sequence_length=256),
        variants=(plain, own),
    )
    model = ladder(study, own, 5e12).rung(1)
    run = resolve(study, own, 5e12, model, 0)
    assert (run.recipe.optimiser.weight_decay, run.recipe.optimiser.adamw.weight_decay) == (
        0.3,
    ) * 2
    assert (run.recipe.warmup_fraction, run.recipe.router_rate) == (0.02, 2)
    assert run.tokens_per_step == 1024
    assert resolve(study, plain, 5e12, model, 0).recipe == study.recipe.settled()
    assert "exponents" not in plain.model_dump()
    still = own.model_copy(update={"exponents": Exponents()})
    assert resolve(study, still, 5e12, model, 0).run_id == run.run_id
