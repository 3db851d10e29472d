"""Runs that share their first steps: which, in what order they are trained, what is told of it."""

import io
import math
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from given import FP32, record_of
from isoflop.cli import main
from isoflop.config import BlockAttention, RunConfig, Study, Variant, WarmupStableDecay
from isoflop.config.own import own
from isoflop.costs import parameters
from isoflop.planning import PlannedRun, ladder, make_plan, next_runs, parents
from isoflop.runs import RunFolder, RunStore
from isoflop.sweep import Execution, Ledger, Outcome, clean
from isoflop.sweep.local.worker import train_run
from isoflop.sweep.schedule.display import Display
from isoflop.sweep.schedule.executor import Ended, Message
from isoflop.sweep.schedule.forecast import Forecast
from isoflop.sweep.schedule.scheduler import Scheduler
from isoflop.terminal.plan import plan_tables
from isoflop.terminal.tables import show
from sweep_studies import BASELINE, Place, tiny

BUDGETS = (6.75e7, 1.35e8, 2.7e8)
FALLING = own("depth", "routed", {"capacity": 0.25, "start_capacity": 1.0})
RECIPE = FP32.model_copy(update={"schedule": WarmupStableDecay(), "warmup_steps": 2})


def sharing(corpus: Path, *variants: Variant, **changes: Any) -> Study:
    """Return a tiny study of three budgets, each twice the one before."""
    grid = {"sizes": 3, "margin": 1, "added_at_most": 0, "centre_parameters": 12000}
    known: dict[str, Any] = {"budgets_flops": BUDGETS, "recipe": RECIPE, "reuse": True}
    return tiny(corpus, *variants, **{"grid": grid, **known, **changes})


def test_the_sizes_of_all_budgets_are_of_one_ladder(corpus: Path) -> None:
    study = sharing(corpus)
    first, second, third = (
        [run.config.model for run in next_runs(study, []) if run.budget_flops == budget]
        for budget in BUDGETS
    )
    # The expected optimum is 0.7 and 1.4 rungs further up at two and four times the compute.
    assert first[1:] == second[:2]
    assert second == third
    alone = study.model_copy(update={"reuse": False})
    own = ladder(alone, alone.variants[0], BUDGETS[1])
    assert [own.rung(index) for index in own.initial] != second
    only = {"budgets_flops": BUDGETS[:1]}
    assert next_runs(alone.model_copy(update=only), []) == next_runs(study, [])[:3]


def test_a_plan_tells_what_is_shared_and_spent(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = sharing(corpus)
    plan = make_plan(study, speed=lambda _: 1e6)
    rows = {row.run_id: row for row in plan.rows}
    shared = [row for row in plan.rows if row.parent]
    assert [row.parent_step for row in shared] == [16, 8, 32, 16, 11]
    for row in shared:
        parent = rows[row.parent or ""]
        assert (parent.width, parent.steps < row.steps) == (row.width, True)
        own = row.achieved_flops * (1 - row.parent_step / row.steps)
        assert row.seconds == pytest.approx(own / 1e6)
    saved = sum(row.achieved_flops * row.parent_step / row.steps for row in shared)
    assert plan.spent_flops == pytest.approx(plan.total_flops - saved)
    assert plan.elapsed_seconds == pytest.approx(plan.spent_flops / 1e6)
    show(plan_tables(plan, "made up"))
    assert "9.93e8 are spent, 30.4% less: 5 runs share their first steps" in capsys.readouterr().out
    (warning,) = (
        one
        for one in make_plan(sharing(corpus, budgets_flops=BUDGETS[:1])).warnings
        if "reuse" in one
    )
    assert "nothing is shared" in warning


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"recipe": FP32}, "recipe.schedule is 'cosine'; expected"),
        (
            {"recipe": RECIPE.model_copy(update={"warmup_steps": None})},
            "recipe.warmup_steps is missing",
        ),
        (
            {"recipe": RECIPE.model_copy(update={"average_half_life": 0.1})},
            "recipe.average_half_life is a share",
        ),
        ({"tokens_per_step": None}, "tokens_per_step follows from the budget"),
        (
            {"variants": [Variant(name="Turning", attention=BlockAttention(full_from=0.9))]},
            "'Turning' changes at shares of training",
        ),
        (
            {"variants": [Variant(name="Falling", depth=FALLING)]},
            "'Falling' changes at shares of training",
        ),
    ],
)
def test_what_depends_on_the_length_is_refused(
    corpus: Path, changes: dict[str, object], why: str
) -> None:
    with pytest.raises(
        ValueError, match=f"reuse = true, but {why}.*\\(only what no length decides is shared"
    ):
        sharing(corpus, **changes)


def test_a_depth_that_follows_training_has_no_steps_in_common(corpus: Path) -> None:
    run = next_runs(sharing(corpus), [])[0].config
    falling = run.model_copy(update={"model": run.model.model_copy(update={"depth": FALLING})})
    assert (run.stable_steps > 0, falling.stable_steps) == (True, 0)


class Trains:
    """Makes runs keep their state, then end; those of one budget fail where they begin."""

    def __init__(self, study: Study, capacity: int, failing: float | None = None) -> None:
        self.capacity, self.failing = capacity, failing
        self.shared = parents(run.config for run in next_runs(study, []))
        self.begun: list[RunConfig] = []
        self.started: list[str] = []
        self.under_way: dict[str, tuple[RunConfig, RunFolder]] = {}
        self.beside: dict[str, set[str]] = {}
        """What was under way at each start."""

    def start(self, run: PlannedRun, folder: Path) -> None:
        run_id = run.config.run_id
        self.started.append(run_id)
        self.begun.append(run.config)
        self.beside[run_id] = set(self.under_way)
        self.under_way[run_id] = run.config, RunFolder(folder)

    def poll(self, _: float) -> list[tuple[str, Message]]:
        told: list[tuple[str, Message]] = []
        for run_id, (config, folder) in list(self.under_way.items()):
            if config.budget_flops == self.failing:
                told.append((run_id, Ended("failed", "no luck")))
            elif folder.stable.exists():
                with folder.claim():
                    folder.create(config)
                    best = 12000 * (1 if config.budget_flops == BUDGETS[0] else 1.6)
                    loss = 1 + abs(math.log(parameters(config.model).total / best))
                    loss += random.Random(f"{config.seed} {config.recipe.learning_rate}").gauss(
                        0, 0.01
                    )
                    folder.write_record(record_of(config, loss, **self._branched(run_id)))
                told.append((run_id, Ended("recorded")))
            else:
                (folder.stable / "step-00000001").mkdir(parents=True)
                continue
            del self.under_way[run_id]
        return told

    def _branched(self, run_id: str) -> dict[str, object]:
        parent = parents(self.begun).get(run_id)
        return {"parent": parent.run_id, "parent_step": parent.stable_steps} if parent else {}

    def cancel(self, run_id: str, *, at_once: bool) -> None:
        """End no run: none is stopped."""


def scheduled(study: Study, root: Path, trains: Trains) -> Outcome:
    """Train a study in no time, as if the grid asked for the longest runs first."""
    return Scheduler(
        Ledger(study, root, None),
        lambda *known: next_runs(*known)[::-1],
        trains,
        Forecast(1),
        Display(Console(file=io.StringIO())),
        Execution(shares_up_to=study.shares_up_to),
        "0" * 64,
    ).run()


def test_a_run_waits_for_the_steps_that_it_begins_with(corpus: Path, tmp_path: Path) -> None:
    study = sharing(corpus)
    trains = Trains(study, capacity=9)
    assert scheduled(study, tmp_path / "study", trains).left == 0
    order, shared = trains.started, trains.shared
    assert (len(order), len(shared)) == (9, 5)
    assert not {*order[:4]} & {*shared}
    for run_id, parent in shared.items():
        assert order.index(parent.run_id) < order.index(run_id)
        # It waits for the state, not for the end of the run.
        assert parent.run_id in trains.beside[run_id]
    longest = [run.config.stem for run in next_runs(study, []) if run.config.run_id in order[-1:]]
    (tmp_path / "study" / "runs" / order[-1] / "record.json").unlink()
    store = RunStore(tmp_path / "study")
    clean(study, store.root)
    kept = [folder.config().stem for folder in store.folders() if folder.stable.exists()]
    assert {*kept} == {*longest}
    assert len(kept) == 3


def test_seeds_that_are_added_share_their_steps_too(corpus: Path, tmp_path: Path) -> None:
    watched = {"seeds": (0, 1, 2), "until_resolved": 1e-6, "seeds_at_most": 5}
    study = sharing(corpus, BASELINE, Variant(name="Faster", learning_rate=0.02), **watched)
    trains = Trains(study, capacity=4)
    assert scheduled(study, tmp_path / "study", trains).left == 0
    records = RunStore(tmp_path / "study").records()
    expected = {i: one.run_id for i, one in parents(one.config for one in records).items()}
    added = [one for one in records if one.config.seed in study.added_seeds]
    assert {one.config.seed for one in added} == {3, 4}
    # Sizes near the minima of two budgets are partly the same, so that some begin with others.
    assert sum(one.run_id in expected for one in added) >= len(study.variants)
    assert {one.run_id: one.parent for one in records if one.parent} == expected
    order = trains.started.index
    assert all(order(parent) < order(run_id) for run_id, parent in expected.items())


@pytest.mark.parametrize("capacity", [1, 9])
def test_no_run_waits_for_one_that_failed(corpus: Path, tmp_path: Path, capacity: int) -> None:
    study = sharing(corpus)
    outcome = scheduled(study, tmp_path, Trains(study, capacity, failing=BUDGETS[0]))
    assert (outcome.failed, outcome.finished, outcome.left) == (3, 6, 0)


def test_a_run_trained_by_itself_begins_with_what_is_there(corpus: Path, tmp_path: Path) -> None:
    study = sharing(corpus)
    runs = {run.config.run_id: run.config for run in next_runs(study, [])}
    run_id, parent = next(iter(parents(runs.values()).items()))
    file = tmp_path / "tiny.json"
    file.write_text(study.model_dump_json())
    for one in (parent.run_id, run_id):
        where = ["--out", str(tmp_path / "study"), "--cache", str(tmp_path / "cache")]
        where += ["--results", str(tmp_path / "results"), "--threads", "1"]
        assert main(["train", str(file), one, *where]) == 0
    record = RunStore(tmp_path / "study").folder(run_id).record()
    assert record is not None
    assert (record.parent, record.parent_step) == (parent.run_id, parent.stable_steps)


@pytest.mark.slow
def test_a_study_is_really_trained_with_shared_steps(corpus: Path, place: Place) -> None:
    study = sharing(corpus)
    place.run(study, train=train_run)
    records = {record.run_id: record for record in place.store.records()}
    expected = parents(record.config for record in records.values())
    found = {one.run_id: (one.parent, one.parent_step) for one in records.values() if one.parent}
    assert found == {run_id: (one.run_id, one.stable_steps) for run_id, one in expected.items()}
    assert "warning: the first" not in place.said
