from __future__ import annotations

from typing import Any

import pytest
from driven_grid import ONLY, make_study

from isoflop.config import BlockAttention, Choices, DataConfig, ShapeFamily, TopK, Variant
from isoflop.costs import parameters
from isoflop.hardware.accelerators import accelerator_speed
from isoflop.memory import fitting_step, smallest_step
from isoflop.planning import Plan, bound, make_plan, next_runs
from isoflop.planning.sizes import shape
from isoflop.planning.warnings import what_would_fit


def test_rows_are_the_first_runs_with_what_they_take() -> None:
    study = make_study(budgets_flops=(5e12, 5e13))
    plan = make_plan(study, train_tokens=10_000_000)
    runs = next_runs(study, [])
    assert [row.run_id for row in plan.rows] == [run.config.run_id for run in runs]
    for row, run in zip(plan.rows, runs, strict=True):
        assert (row.variant, row.budget_flops) == (run.variant, run.budget_flops)
        assert row.tokens == row.steps * row.tokens_per_step == run.config.tokens
        assert row.epochs == row.tokens / 10_000_000
        assert row.achieved_flops == pytest.approx(row.budget_flops, rel=0.01)
        assert row.achieved_flops == pytest.approx(3 * row.forward_flops_per_token * row.tokens)
        assert row.seconds is None
    assert plan.total_flops == pytest.approx(21 * 5.5e13, rel=0.01)
    assert plan.bound == bound(study)
    assert plan.elapsed_seconds is None
    assert plan.bound_seconds is None
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    ("top_k", "capacity", "message"),
    [
        (2, None, None),
        (4, None, "attends fully: 256 keys of 256 in a sequence"),
        (2, 0.75, None),
        (2, 0.5, "attends fully in its routed blocks: 128 keys of 128 selected tokens"),
    ],
)
def test_block_attention_that_leaves_nothing_out_is_warned_of(
    top_k: int, capacity: float | None, message: str | None
) -> None:
    depth = {} if capacity is None else {"depth": TopK(capacity=capacity, every=2)}
    attention = BlockAttention(block_size=64, top_k=top_k)
    study = make_study(variants=(Variant(name="blocks", attention=attention, **depth),))
    for row in make_plan(study, train_tokens=10**9).rows:
        found = [text for text in row.warnings if "attends fully" in text]
        assert found == ([] if message is None else [message])


@pytest.mark.parametrize(
    ("changes", "word", "odd"),
    [
        ({}, "times", lambda row: row.tokens > 3_000_000),
        ({"tokens_per_step": 16_384}, "steps", lambda row: row.steps < 200),
    ],
)
def test_more_than_one_epoch_and_few_steps_are_warned_of(changes: Any, word: str, odd: Any) -> None:
    rows = make_plan(make_study(**changes), train_tokens=3_000_000).rows
    warned = {row.run_id for row in rows if any(word in text for text in row.warnings)}
    assert warned == {row.run_id for row in rows if odd(row)}
    assert 0 < len(warned) < len(rows)


@pytest.mark.parametrize("text", ["start", "spread"])
def test_losses_of_the_first_of_several_corpora_are_warned_of(text: str) -> None:
    data = DataConfig(corpus=("sotu", "python"))
    rows = make_plan(make_study(data=data, evaluation_text=text), train_tokens=10**9).rows
    warned = [any("start of 2 corpora" in told for told in row.warnings) for row in rows]
    assert set(warned) == {text == "start"}


def test_what_concerns_the_study_is_said() -> None:
    plan = make_plan(make_study(data=DataConfig(corpus="hf:some/corpus")))
    assert all(row.epochs is None for row in plan.rows)
    assert any("hf:some/corpus" in text for text in plan.warnings)
    assert not make_plan(make_study(), train_tokens=10**9).warnings
    clipped = {"minimum_parameters": 1e5, "maximum_parameters": 5e5}
    (told,) = make_plan(make_study(grid=clipped, variants=ONLY), train_tokens=10**9).warnings
    assert told.startswith("'only' at 5e12 FLOPs has ")
    lifted = {"minimum_parameters": 3e5, "centre_parameters": 3.5e5}
    (told,) = make_plan(make_study(grid=lifted, variants=ONLY), train_tokens=10**9).warnings
    assert "fewer than 2 sizes smaller than its expected optimum of 350,000 parameters" in told


def test_time_follows_speed_and_workers() -> None:
    study = make_study(variants=ONLY, seeds=(0, 1))
    alone = make_plan(study, speed=lambda config: 1e10)
    assert alone.elapsed_seconds == pytest.approx(7 * 500, rel=0.01)
    assert alone.usual_seconds == pytest.approx((7 + 3) * 500, rel=0.01)
    assert alone.bound_seconds == pytest.approx((7 + 6 + 13) * 500, rel=0.01)
    paired = make_plan(study, speed=lambda config: 1e10, workers=2)
    # Seven runs on two workers: four in a row on one of them.
    assert paired.elapsed_seconds == pytest.approx(4 * 500, rel=0.01)
    assert paired.idle_share == pytest.approx(1 / 8, abs=0.01)
    mixed = make_study(variants=ONLY, budgets_flops=(1e12, 5e12))
    # Seven long runs, then seven short ones where the last long one leaves a worker.
    both = make_plan(mixed, speed=lambda config: 1e10, workers=2)
    assert both.elapsed_seconds == pytest.approx(42 / 2 * 100, rel=0.03)
    many = make_plan(study, speed=lambda config: 1e10, workers=20)
    assert many.elapsed_seconds == pytest.approx(500, rel=0.01)


def test_impossible_arguments_are_refused() -> None:
    for arguments, key in (
        ({"workers": 0}, "workers"),
        ({"train_tokens": 0}, "train_tokens"),
        ({"speed": lambda config: 0.0}, "speed"),
        ({"speed": lambda config: float("nan")}, "speed"),
    ):
        with pytest.raises(ValueError, match=key):
            make_plan(make_study(), **arguments)


@pytest.fixture
def published_study() -> Any:
    """The budgets of Mixture-of-Depths, Figure 4, at 128 x 2048 tokens per step."""
    return make_study(
        budgets_flops=(6e18, 2e19, 1e20),
        tokens_per_step=262_144,
        data=DataConfig(corpus="hf:x", tokenizer="bpe:32000", sequence_length=2048),
        shape=ShapeFamily(width_per_block=64, head_width=64, width_step=64, hidden_step=64),
        variants=(Variant(name="Baseline"), Variant(name="MoD", depth=TopK(capacity=0.125))),
        grid={"minimum_parameters": 5e7, "maximum_parameters": 3e9},
    )


def test_the_published_scale(published_study: Any) -> None:
    plan = make_plan(published_study, speed=accelerator_speed("H100-SXM", 0.4), memory_bytes=80e9)
    assert len(plan.rows) == 2 * 3 * 7
    assert min(row.parameters for row in plan.rows) < 1e8
    assert max(row.parameters for row in plan.rows) > 2.4e9
    assert plan.elapsed_seconds == pytest.approx(14 * 1.26e20 / (0.4 * 989e12), rel=0.01)
    # Two budgets share their smallest sizes; every row is a run of its own.
    assert len({row.run_id for row in plan.rows}) == len(plan.rows)
    for row in plan.rows:
        # All of it can be trained on the device, the largest with steps held in parts.
        assert 16 * row.parameters < row.memory_bytes < 80e9
        assert row.does_not_fit is None
        assert (row.parameters > 3e8) <= (row.micro_batch is not None)


@pytest.mark.parametrize("variant", [0, 1])
def test_the_largest_published_model_fits_80_gb(published_study: Any, variant: int) -> None:
    config = next_runs(published_study, [])[-1].config
    choices = Choices(depth=published_study.variants[variant].depth)
    model = shape(published_study.shape, 3e9, vocabulary=32_000, choices=choices)
    assert parameters(model).total == pytest.approx(3e9, rel=0.05)
    step = fitting_step(config.model_copy(update={"model": model}), 0.92 * 80e9, "cuda")
    assert step is not None
    assert 18 * parameters(model).total < step.total_bytes < 74e9


def test_what_would_hold_a_model_that_does_not_fit_is_said(published_study: Any) -> None:
    rows = make_plan(published_study, memory_bytes=16e9).rows
    for row in rows:
        # What is told is of the step that holds least, and more than a device has.
        assert (row.does_not_fit is None) == (row.memory_bytes <= 0.92 * 16e9)
        if row.does_not_fit is not None:
            needed = float(row.does_not_fit.split()[2])
            assert 0.92 * needed == pytest.approx(row.memory_bytes / 1e9, rel=0.01)
            assert (row.micro_batch, row.recompute) == (1, "full")
    told = [row.does_not_fit for row in rows if row.does_not_fit]
    assert any(text.endswith("or 4 devices of 16 GB that share its state") for text in told)

    # Where one sequence is too large no number of devices helps.
    least = smallest_step(next_runs(published_study, [])[-1].config, "cuda")
    assert "devices" in what_would_fit(least, 16e9, "cuda")
    assert "devices" not in what_would_fit(least, 1e9, "cuda")
    assert "devices" not in what_would_fit(least, 16e9, "cpu")


def test_hours_of_a_gpu_are_its_seconds() -> None:
    study, speed = make_study(), accelerator_speed("H100-SXM", 0.4)
    plan = make_plan(study, speed=speed, workers=4)
    hours = plan.gpu_hours
    assert hours is not None
    assert 3600 * hours["first"] == pytest.approx(plan.total_flops / (0.4 * 989e12))
    added = (plan.bound.usual_flops, plan.bound.flops)
    for name, flops in zip(("usual", "at_most"), added, strict=True):
        assert hours[name] / hours["first"] == pytest.approx(1 + flops / plan.total_flops)
    for row in plan.rows:
        assert row.seconds is not None
        assert row.steps_per_second == pytest.approx(row.steps / row.seconds)
    assert make_plan(study).gpu_hours is None
    assert make_plan(study, speed=speed, device="cpu").gpu_hours is None
