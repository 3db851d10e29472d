from __future__ import annotations

import math
from itertools import product

import pytest
from driven_grid import make_study

from isoflop.config import AdamW, DataConfig, Muon, Recipe, TopK, Variant
from isoflop.config.own import own
from isoflop.config.recipe import RecipeRules
from isoflop.costs import parameters, train_flops_per_token
from isoflop.planning import (
    achieved_flops,
    affordable,
    expected_optimum,
    ladder,
    next_runs,
    resolve,
    sequences_per_step,
    tokens_per_step,
)
from isoflop.planning.recipe import OPTIMUM_EXPONENT


@pytest.mark.parametrize(
    ("budget", "length", "tokens"),
    [
        (5e12, 256, 2048),
        (3e13, 256, 4096),
        (6e18, 256, 262_144),
        (1e20, 256, 524_288),
        (5e12, 1000, 2000),
        (5e12, 8192, 8192),
        (1e6, 64, 64),
    ],
)
def test_tokens_per_step_follow_the_budget_in_whole_sequences(
    budget: float, length: int, tokens: int
) -> None:
    assert tokens_per_step(budget, length) == tokens


def test_a_study_overrides_tokens_per_step() -> None:
    assert sequences_per_step(make_study(), 5e12) == 8
    assert sequences_per_step(make_study(tokens_per_step=1024), 5e12) == 4
    with pytest.raises(ValueError, match=r"tokens_per_step is 1000.*768 or 1024"):
        sequences_per_step(make_study(tokens_per_step=1000), 5e12)
    with pytest.raises(ValueError, match=r"tokens_per_step is 100.*256"):
        sequences_per_step(make_study(tokens_per_step=100), 5e12)


def test_expected_optimum_passes_through_what_is_known() -> None:
    study = make_study(budgets_flops=(5e12, 6e18))
    variant = study.variants[0]
    assert 230e3 <= expected_optimum(study, variant, 5e12) <= 330e3
    assert expected_optimum(study, variant, 6e18) == pytest.approx(250e6)
    # About the square root of compute.
    ratio = expected_optimum(study, variant, 5e14) / expected_optimum(study, variant, 5e12)
    assert ratio == pytest.approx(10, rel=0.1)


def test_a_stated_centre_holds_at_the_first_budget_and_scales_to_the_others() -> None:
    mine = Variant(name="mine", depth=TopK(capacity=0.5), centre_parameters=3e6)
    study = make_study(
        budgets_flops=(1e13, 1e15),
        grid={"centre_parameters": 1e6},
        variants=(Variant(name="other"), mine),
    )
    assert expected_optimum(study, study.variants[0], 1e13) == pytest.approx(1e6)
    assert expected_optimum(study, mine, 1e13) == pytest.approx(3e6)
    assert expected_optimum(study, mine, 1e15) == pytest.approx(3e6 * 100**0.4854, rel=1e-3)


@pytest.mark.parametrize("convention", ["causal", "full", "6nd"])
@pytest.mark.parametrize(
    ("budget", "data"),
    [
        (5e12, DataConfig()),
        (5e13, DataConfig(sequence_length=300)),
        (6e18, DataConfig(sequence_length=2048, tokenizer="bpe:32000")),
        (1e20, DataConfig(sequence_length=2048, tokenizer="bpe:32000")),
    ],
)
def test_every_first_size_spends_the_budget_to_within_one_percent(
    convention: str, budget: float, data: DataConfig
) -> None:
    study = make_study(budgets_flops=(budget,), data=data, convention=convention)
    for variant in study.variants:
        sizes = ladder(study, variant, budget)
        for rung in sizes.initial:
            model = sizes.rung(rung)
            run = resolve(study, variant, budget, model, seed=7)
            flops = train_flops_per_token(model, data.sequence_length, run.convention)
            assert flops * run.steps * run.tokens_per_step == pytest.approx(budget, rel=0.01)
            assert achieved_flops(run) == pytest.approx(flops * run.tokens)
            assert run.tokens_per_step == sequences_per_step(study, budget) * data.sequence_length
            assert (run.budget_flops, run.seed, run.data) == (budget, 7, data)
            assert run.model.vocabulary == data.vocabulary


def test_a_budget_below_one_step_is_refused() -> None:
    study = make_study(budgets_flops=(1e8,), grid={"centre_parameters": 1e6})
    model = ladder(study, study.variants[0], 1e8).rung(3)
    assert not affordable(study, study.variants[0], 1e8, model)
    with pytest.raises(ValueError, match=r"budgets_flops.*not one step.*tokens_per_step"):
        resolve(study, study.variants[0], 1e8, model, 0)


def test_a_budget_that_whole_steps_miss_is_refused() -> None:
    study = make_study(tokens_per_step=2048)
    variant = study.variants[0]
    model = ladder(study, variant, 5e12).rung(3)
    step = train_flops_per_token(model, 256, "causal") * 2048
    for steps in (3.4, 10.2, 0.4):
        assert not affordable(study, variant, steps * step, model)
        with pytest.raises(ValueError, match=r"budgets_flops.*tokens_per_step"):
            resolve(study, variant, steps * step, model, 0)
    for steps in (3.0, 10.05, 60.4, 150.8):
        assert affordable(study, variant, steps * step, model)
        assert resolve(study, variant, steps * step, model, 0).steps == round(steps)


def test_a_capacity_that_selects_no_token_is_refused() -> None:
    few = Variant(name="few", depth=TopK(capacity=0.001))
    study = make_study(variants=(few,))
    model = ladder(study, few, 5e12).rung(3)
    assert parameters(model).total > 0
    with pytest.raises(ValueError, match=r"'few': depth.capacity = 0.001 .*selects no token"):
        resolve(study, few, 5e12, model, 0)


def test_rules_follow_from_the_batch_and_length_of_a_run_and_leave_plain_numbers() -> None:
    """A run's recipe holds what the rules come to; by hand from their papers' formulas."""
    rules = {
        "beta2_half_life": 28_000.0,
        "decay_time_scale": 0.5,
        "rate_horizon_tokens": 1e6,
        "warmup_tokens_per_parameter": 1.0,
        "epsilon_tokens_per_step": 8192.0,
        "batch_exponent": 0.38,
    }
    plain = make_study(budgets_flops=(5e12, 8e13))
    optimisers = (AdamW(epsilon=1e-7), Muon(adamw=AdamW(epsilon=1e-7), adamw_rate=0.5))
    for budget, choice in product(plain.budgets_flops, optimisers):
        recipe = {"optimiser": choice, "precision": "fp32", "rules": rules}
        study = make_study(budgets_flops=plain.budgets_flops, recipe=recipe)
        sizes = ladder(study, study.variants[0], budget)
        model = sizes.rung(sizes.initial[3])
        run = resolve(study, study.variants[0], budget, model, 0)
        held = 2048 * 2 ** round(math.log2((budget / 5e12) ** (0.38 * (1 - OPTIMUM_EXPONENT))))
        assert run.tokens_per_step == held
        optimiser = run.recipe.optimiser
        adamw = optimiser.adamw if isinstance(optimiser, Muon) else optimiser
        assert adamw.beta2 ** (28_000 / held) == pytest.approx(0.5)
        assert adamw.epsilon == pytest.approx(1e-7 * (8192 / held) ** 0.5)
        rate = study.recipe.learning_rate * (run.tokens / 1e6) ** -0.32
        assert run.recipe.learning_rate == pytest.approx(rate)
        decayed = 1 / (0.5 * run.steps)
        assert optimiser.weight_decay * rate == pytest.approx(decayed)
        own = 0.5 * rate if isinstance(optimiser, Muon) else rate
        assert adamw.weight_decay * own == pytest.approx(decayed)
        assert run.warmup_steps == round(parameters(model).total / held)
        assert "rules" not in run.recipe.model_dump()
    with pytest.raises(ValueError, match="weight_decay"):
        RecipeRules(decay_time_scale=1e-323).applied(Recipe(), batch=1, steps=1, parameters=1)


def test_rules_that_contradict_or_know_the_length_are_refused() -> None:
    own = {"variants": [Variant(name="own", tokens_per_step=1024)]}
    for rule, name, recipe, rest in (
        ("batch_exponent", "tokens_per_step", {}, {"tokens_per_step": 1024}),
        ("batch_exponent", "tokens_per_step", {}, own),
        ("beta2_half_life", "beta2", {"beta2": 0.99}, {}),
        ("beta2_half_life", "beta2", {"optimiser": Muon(adamw=AdamW(beta2=0.99))}, {}),
        ("decay_time_scale", "weight_decay", {"optimiser": Muon(weight_decay=0.2)}, {}),
        ("warmup_tokens_per_parameter", "warmup_steps", {"warmup_steps": 5}, {}),
    ):
        with pytest.raises(ValueError, match=f"rules.{rule} is 0.5, beside which {name} is given"):
            make_study(recipe=recipe | {"rules": {rule: 0.5}}, **rest)
    reused = {"reuse": True, "tokens_per_step": 2048}
    recipe = {"schedule": {"kind": "wsd"}, "warmup_steps": 100}
    make_study(recipe=recipe | {"rules": {"beta2_half_life": 1e5}}, **reused)
    with pytest.raises(ValueError, match=r"rules.decay_time_scale follows from a run's length"):
        make_study(recipe=recipe | {"rules": {"decay_time_scale": 0.5}}, **reused)
    warm = {"schedule": {"kind": "wsd"}, "rules": {"warmup_tokens_per_parameter": 1.0}}
    with pytest.raises(ValueError, match=r"rules.warmup_tokens_per_parameter follows from a run's"):
        make_study(recipe=warm, **reused)


def test_muon_by_matrix_is_another_run_of_parts_with_matrices_alone() -> None:
    experts = own("feed_forward", "mixture_of_experts", {"experts": 4})
    variants = (
        Variant(name="Baseline"),
        Variant(name="Skipped", depth=own("depth", "fixed_skip", {"capacity": 0.5})),
        Variant(name="Experts", feed_forward=experts),
    )
    ids: list[dict[str, str]] = []
    for choice in ("whole", "each"):
        study = make_study(variants=variants, recipe=Recipe(optimiser=Muon(own=choice)))
        ids.append({run.variant: run.config.run_id for run in next_runs(study, [])})
    assert {name for name, one in ids[0].items() if ids[1][name] != one} == {"Experts"}
