"""Models with variants of one's own: costs, training, state, evaluation and decoding."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_runs import CHOICES, FILES, experts, model_of, run_of
from torch import Tensor

from given import RECIPE
from isoflop.config import DataConfig, Muon, RunConfig, TopK
from isoflop.config.own import of_file, own
from isoflop.costs import cache_bytes, forward_flops, parameters
from isoflop.data import prepare
from isoflop.evaluation.future import future_change
from isoflop.evaluation.measuring import measure
from isoflop.generation import Engine, WholePasses, engine_for
from isoflop.memory import estimate_memory
from isoflop.model import build
from isoflop.runs import RunFolder
from isoflop.training import Interrupted, Trainer, initialise, load_model, train
from isoflop.training.optimisation.parametrisation import group_of
from several_ranks import assert_learned_alike

every_choice = pytest.mark.parametrize("choices", CHOICES.values(), ids=list(CHOICES))


def batch(sequences: int = 4) -> Tensor:
    return torch.randint(256, (sequences, 17), generator=torch.Generator().manual_seed(0))


def of_name(name: str, even: bool) -> RunConfig:
    """Return the run that a choice and an optimiser name; five sequences a step, or six."""
    choice, _, optimiser = name.rpartition(" ")
    recipe = RECIPE if optimiser == "AdamW" else RECIPE.model_copy(update={"optimiser": Muon()})
    data = DataConfig(corpus="nowhere", sequence_length=16)
    how = {"steps": 50, "sequences_per_step": 6 if even else 5}
    return RunConfig(model=model_of(**CHOICES[choice]), data=data, recipe=recipe, **how)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_two_ranks_learn_what_one_does(tmp_path: Path, sharded: bool) -> None:
    """For a few steps: later an expert may be taken whose odds are another's but for rounding."""
    names = tuple(f"{choice} {one}" for choice in CHOICES for one in ("AdamW", "Muon"))
    assert_learned_alike(of_name, names, 4, tmp_path, sharded, 1e-3)


@every_choice
def test_a_step_in_parts_and_recomputed_is_the_whole_step(
    tmp_path: Path, choices: dict[str, Any]
) -> None:
    config = run_of(tmp_path, **choices)
    states, told = [], []
    for how in ({}, {"micro_batch": 2, "recompute": "full"}, {"recompute": "selective"}):
        model = build(config.model)
        initialise(model, config.recipe, 0)
        trainer = Trainer(model, config, compiled=False, **how)  # type: ignore[arg-type]
        told = [trainer.step(batch(), index, 0.1).told for index in range(3)]
        assert all(p.grad is None for p in model.parameters())
        states.append(model.state_dict())
        assert sum(p.numel() for p in model.parameters()) == parameters(config.model).total
    for state in states[1:]:
        torch.testing.assert_close(dict(state), dict(states[0]), rtol=1e-4, atol=1e-5)
    if "feed_forward" in choices:
        assert {name.split(".")[1] for name in told[-1]} == {"feed_forward"}
        moved = [value for name, value in states[0].items() if name.endswith((".bias", "old"))]
        still = config.model.feed_forward.settings.get("shared") == 1
        assert all((float(one.abs().sum()) > 0) != still for one in moved)


def test_the_auxiliary_loss_moves_the_router_and_no_state_outlives_a_step_that_is_not_finite(
    tmp_path: Path,
) -> None:
    routers = []
    for weight in (0.0, 10.0):
        config = run_of(tmp_path, **experts(balance=weight))
        model = build(config.model, 0)
        trainer = Trainer(model, config, compiled=False)
        trainer.gradients(batch(), 0)
        routers.append(model.blocks[0].block.feed_forward.own.router.weight.grad.clone())
    assert (routers[0] - routers[1]).abs().max() > 1e-3
    assert trainer.step(batch(), 0, 1.0).told["0.feed_forward.computed"] != 0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
    assert not trainer.step(batch(), 1, 1.0).finite
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_told_by_another_name_is_no_loss(tmp_path: Path) -> None:
    found = []
    for weight, name in ((10.0, "the.loss"), (0.0, "loss")):
        config = run_of(tmp_path, **experts(balance=weight))
        model = build(config.model, 0)
        for _, part in model.own:
            part.own.register_forward_hook(
                lambda own, x, given, name=name: (
                    given[0],
                    {name if key == "loss" else key: value for key, value in given[1].items()},
                )
            )
        Trainer(model, config, compiled=False).gradients(batch(), 0)
        found.append(torch.cat([of.grad.flatten() for of in model.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["integrated MoDE", pytest.param("skip", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, name: str) -> None:
    config = run_of(tmp_path, **CHOICES[name])
    options = {"cache": tmp_path / "cache", "threads": 1, "compiled": False}
    whole, stopped = (RunFolder(tmp_path / name) for name in ("whole", "stopped"))
    record = train(config, whole, **options)  # type: ignore[arg-type]
    stops = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(config, stopped, stop=lambda: next(stops), **options)  # type: ignore[arg-type]
    train(config, stopped, **options)  # type: ignore[arg-type]
    one, other = (load_model(folder).state_dict() for folder in (whole, stopped))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert record.state == "finished"
    assert record.parameters == parameters(config.model)
    row = whole.read_metrics()[0][-1]
    assert ("told" in row) == (name != "skip")
    assert json.dumps(row)


def test_what_looks_ahead_is_measured_as_a_leak(tmp_path: Path) -> None:
    config = run_of(tmp_path, **CHOICES["expert_choice"])
    model = build(config.model, 0)
    text = prepare(config.data, tmp_path / "cache").split("test")
    found = measure(model, text, 16, split="test").decisions
    assert [one.decision for one in found] == ["threshold", "top_k"]
    assert found[0].leak is not None
    assert found[0].future is not None
    assert found[0].future.changed == 0
    assert found[1].future is not None
    assert found[1].future.changed_visibly > 0
    with pytest.raises(ValueError, match="'every_token'; expected one of threshold, top_k"):
        model(batch(), decision="every_token")


@every_choice
def test_decoding_gives_the_logits_of_a_whole_pass(choices: dict[str, Any]) -> None:
    config = model_of(**choices)
    model = build(config, 0).eval()
    torch._foreach_add_([*model.buffers(), torch.zeros(())], 0.3)
    engine = engine_for(model)
    whole = config.depth.kind in ("my_skip", "fixed_skip", "routed") or "block" in choices
    assert isinstance(engine, WholePasses) == whole
    if whole:
        with pytest.raises(ValueError, match="does not decode over a cache; use engine_for"):
            Engine(model)
    prompts = [list(range(5)), list(range(40, 48))]
    with pytest.raises(ValueError, match="call prefill first"):
        engine.step([7, 8])
    engine.prefill(prompts)
    with pytest.raises(ValueError, match="1 tokens are given; expected one for each of the 2"):
        engine.step([7])
    model(batch(), decision=config.decisions[-1])
    engine.step([7, 8])
    engine.keep([1])
    found = engine.step([9])
    expected = model(torch.tensor([[*prompts[1], 8, 9]])).logits[0, -1]
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)
    assert len(model._rotary) == 1
    if choices == CHOICES["linear"]:
        assert isinstance(engine, Engine)
        assert engine.cache_bytes == cache_bytes(config, 10, bytes_per_value=4)


GIVEN = {
    r"\(2, 3, 1\); expected a tensor of shape \(2, 3, 12\)": lambda x: x[..., :1],
    "Tensor, Tensor; expected": lambda x: (x, x),
    "Tensor, dict; expected": lambda x: (x, {"share": 0.5}),
}


@pytest.mark.parametrize("said", GIVEN)
def test_what_a_module_gives_is_looked_at(said: str) -> None:
    _, part = build(model_of(**CHOICES["linear"])).own[0]
    part.own.forward = lambda x, *_: GIVEN[said](x)
    with pytest.raises(ValueError, match=f"attention 'my_linear': `forward` gives {said}"):
        part(torch.zeros(2, 3, 12), None, None)


def test_a_part_is_told_a_decision_that_its_file_knows() -> None:
    model = build(model_of(**CHOICES["expert_choice"], depth=TopK(capacity=0.5)), 0)
    model(batch(), decision="predictor")
    assert {part.own.decision for _, part in model.own} == {"threshold"}


def test_no_value_of_a_new_model_is_what_lay_in_memory(tmp_path: Path) -> None:
    gain = "self.gain = nn.Parameter(torch.full((width,), torch.nan)); self.output = "
    text = (FILES / "linear.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace("self.output = ", gain))
    part, mine = of_file(tmp_path / "mine.py")
    assert all(p.isfinite().all() for p in build(model_of(**{part: mine}), 0).parameters())


@pytest.mark.parametrize("capacity", [0.1, 0.3, 0.5, 1.0])
def test_fixed_skip_costs_what_routing_costs_without_a_router(capacity: float) -> None:
    fixed = model_of(depth=own("depth", "fixed_skip", {"capacity": capacity}))
    routed = model_of(depth=TopK(capacity=capacity))
    for convention in ("causal", "full"):
        mine, theirs = (forward_flops(one, 40, convention).parts for one in (fixed, routed))
        assert mine == {**theirs, "router": 0, "decision_head": 0}
    assert cache_bytes(fixed, 40) == cache_bytes(routed, 40)
    model, seen = build(fixed, 0).eval(), []
    model.blocks[1].block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    stream = model.embedding(batch())
    tables = model.rotary(17, stream.device)
    model.blocks[1](stream, *tables)
    share = Fraction(capacity).limit_denominator(1024)
    processed = [t for t in range(17) if int((t + 1) * share) > int(t * share)]
    torch.testing.assert_close(seen[0] if seen else stream[:, :0], stream[:, processed])
    windows = batch().numpy().astype(np.int64)
    assert future_change(model, windows, "every_token").changed_visibly == 0
    if capacity == 1:
        plain = build(model_of(), 0).eval()
        state = {name.replace("1.block.", "1."): one for name, one in model.state_dict().items()}
        plain.load_state_dict(state)
        torch.testing.assert_close(plain(batch()).logits, model(batch()).logits)


def test_groups_are_as_the_module_says_and_else_by_shape(tmp_path: Path) -> None:
    config = run_of(tmp_path, **experts())
    model = build(config.model)
    groups = group_of(model, config.recipe)
    own_names = {
        n.split("own.")[1]: g
        for n, g in groups.items()
        if n.startswith("blocks.0.block.feed_forward.")
    }
    # As wide as an expert.
    plain = group_of(build(model_of().model_copy(update={"hidden": 16})), config.recipe)
    output = plain["blocks.0.feed_forward.down.weight"]
    assert own_names["down"] == output
    assert own_names["router.weight"].decay == 0
    assert own_names["gate_up"] == plain["blocks.0.feed_forward.gate_up.weight"]
    model.blocks[0].block.feed_forward.own.roles = {"nothing": "ones"}
    with pytest.raises(
        ValueError, match="roles names 'nothing', no parameter of it; expected some"
    ):
        group_of(model, config.recipe)


def test_memory_grows_with_what_is_ones_own(tmp_path: Path) -> None:
    few, many = (estimate_memory(run_of(tmp_path, **experts(experts=n))) for n in (2, 8))
    assert many.state_bytes > few.state_bytes
    assert many.sequence_bytes >= few.sequence_bytes > 0
