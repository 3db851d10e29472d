"""Muon is torch's, matrix by matrix; it is resumed, halted and scaled as AdamW is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from isoflop.config import AdamW, Muon, RunConfig, TopK, canonical
from isoflop.config.own import own
from isoflop.model import build
from isoflop.runs import RunFolder
from isoflop.training import Optimiser, Trainer, initialise, train
from isoflop.training.optimisation.muon import MuonMatrices
from isoflop.training.optimisation.parametrisation import group_of

MakeRun = Callable[..., RunConfig]
SHAPES = ((12, 20), (30, 8), (20, 20), (12, 20))


def gradients(seed: int, like: list[torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in like:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
def test_it_is_torch_s_but_for_precision(
    adjust: str, nesterov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch's orthogonalises in bfloat16, which would hide a difference.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    starts = [torch.randn(shape, dtype=torch.float64) for shape in SHAPES]
    theirs, ours = ([torch.nn.Parameter(one.clone()) for one in starts] for _ in range(2))
    ours = [torch.nn.Parameter(one.data.float()) for one in ours]
    reference = torch.optim.Muon(
        theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn=adjust, nesterov=nesterov
    )
    groups = [{"params": [p], "lr": 0.02, "weight_decay": 0.1, "rows": (len(p),)} for p in ours]
    muon = MuonMatrices(groups, Muon(adjust=adjust, nesterov=nesterov), "fp32")
    for step in range(3):
        gradients(step, theirs)
        gradients(step, ours)
        reference.step()
        muon.step()
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_matrices_in_one_parameter_are_orthogonalised_apart() -> None:
    rows = (6, 4, 4)
    start = torch.randn(14, 10)
    whole = torch.nn.Parameter(start.clone())
    apart = [torch.nn.Parameter(one.clone()) for one in start.split(rows)]
    gradients(0, [whole])
    assert whole.grad is not None
    for p, g in zip(apart, whole.grad.split(rows), strict=True):
        p.grad = g.clone()
    MuonMatrices(
        [{"params": [whole], "lr": 0.1, "weight_decay": 0.0, "rows": rows}], Muon(), "fp32"
    ).step()
    groups = [{"params": [p], "lr": 0.1, "weight_decay": 0.0, "rows": (len(p),)} for p in apart]
    MuonMatrices(groups, Muon(), "fp32").step()
    torch.testing.assert_close(whole, torch.cat(apart))


def test_hidden_matrices_alone_are_muon_s(make_run: MakeRun) -> None:
    config = make_run(depth=TopK(capacity=0.5), optimiser=Muon(adamw_rate=0.25))
    model = build(config.model)
    adamw, muon = Optimiser(model, config.recipe).parts
    named = {id(p): name for name, p in model.named_parameters()}
    of_muon = {named[id(p)] for group in muon.param_groups for p in group["params"]}
    leaves = {"query_key_value", "output", "gate_up", "down"}
    assert {name.split(".")[-2] for name in of_muon} == leaves
    assert len(of_muon) == 4 * config.model.blocks
    alone = Optimiser(model, config.recipe.model_copy(update={"optimiser": AdamW()})).parts[0]
    rates = {named[id(p)]: g["lr"] for g in alone.param_groups for p in g["params"]}
    for group in adamw.param_groups:
        for p in group["params"]:
            assert group["lr"] == pytest.approx(0.25 * rates[named[id(p)]])


def test_each_matrix_of_one_s_own_is_orthogonalised_by_itself(make_run: MakeRun) -> None:
    """A window of the whole sequence learns what full attention does; experts are a stack."""
    config = make_run(optimiser=Muon(own="each"))
    window = own("attention", "sliding_window", {"window": 1000})
    models = [build(config.model), build(config.model.model_copy(update={"attention": window}))]
    initialise(models[0], config.recipe, 0)
    with torch.no_grad():
        for to, of in zip(models[1].parameters(), models[0].parameters(), strict=True):
            to.copy_(of)
    for model in models:
        gradients(0, list(model.parameters()))
        Optimiser(model, config.recipe).step(1.0, torch.zeros(()))
    for found, wanted in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(found, wanted)
    experts = own("feed_forward", "mixture_of_experts", {"experts": 4, "top_k": 2, "shared": 1})
    model = build(config.model.model_copy(update={"feed_forward": experts}))
    for choice, stacked in (("whole", ()), ("each", 4)):
        recipe = config.recipe.model_copy(update={"optimiser": Muon(own=choice)})
        groups = group_of(model, recipe)
        part = next(name.rpartition(".")[0] for name in groups if name.endswith("own.gate_up"))
        hidden = model.get_parameter(f"{part}.gate_up").shape[1] // 2
        shared = model.get_parameter(f"{part}.shared_gate_up.weight").shape[0]
        rows = [groups[f"{part}.{name}"].rows for name in ("gate_up", "down", "router.weight")]
        assert rows == [stacked and (hidden,) * 8, stacked and (config.model.width,) * 4, ()]
        halves = (shared // 2,) * 2 if choice == "each" else (shared,)
        assert groups[f"{part}.shared_gate_up.weight"].rows == halves
    stack = torch.nn.Parameter(torch.randn(3, 6, 10))
    alone = [torch.nn.Parameter(one.clone()) for one in stack.detach()]
    gradients(1, [stack])
    for one, gradient in zip(alone, stack.grad, strict=True):
        one.grad = gradient.clone()
    for parameters, rows in (([stack], (6, 6, 6)), (alone, (6,))):
        group = {"params": parameters, "lr": 0.1, "weight_decay": 0.0, "rows": rows}
        MuonMatrices([group], Muon(), "fp32").step()
    torch.testing.assert_close(stack, torch.stack(list(alone)))


def test_an_average_of_the_weights_is_evaluated_beside_them(
    make_run: MakeRun, tmp_path: Path, cache: Path
) -> None:
    config = make_run(steps=8, average_half_life=0.2)
    record = train(config, RunFolder(tmp_path / "one"), cache=cache)
    plain = train(make_run(steps=8), RunFolder(tmp_path / "plain"), cache=cache)
    for one in plain.evaluations:
        beside = record.evaluation(one.split, one.decision)
        averaged = record.evaluation(one.split, one.decision, "average")
        assert beside is not None
        assert averaged is not None
        assert (beside.loss, averaged.loss != one.loss) == (one.loss, True)


def test_the_average_is_that_of_the_steps(make_run: MakeRun) -> None:
    config = make_run(steps=8, average_half_life=0.25)
    model = build(config.model)
    initialise(model, config.recipe, 0)
    trainer = Trainer(model, config, compiled=False)
    assert trainer.average is not None
    wanted = torch.zeros_like(model.head.weight)
    for step in range(4):
        trainer.step(torch.randint(31, (3, 17)), step, 1.0)
        newest = max(1 - 0.5**0.5, 1 / (step + 1))
        wanted = wanted + newest * (model.head.weight.detach() - wanted)
    torch.testing.assert_close(trainer.average["head.weight"], wanted)
    last = model.head.weight.detach().clone()
    with trainer.averaged():
        assert torch.equal(model.head.weight, trainer.average["head.weight"])
    assert torch.equal(model.head.weight, last)


def test_settings_of_adamw_beside_the_optimiser_name_the_same_run(make_run: MakeRun) -> None:
    config = make_run(optimiser=AdamW(beta2=0.98, weight_decay=0.2))
    written = config.model_dump(mode="json")
    settings = written["recipe"].pop("optimiser")
    settings.pop("kind")
    written["recipe"] |= settings
    assert RunConfig.model_validate(written) == config
    named = canonical(config)["recipe"]
    assert ("optimiser" in named, named["beta2"], named["weight_decay"]) == (False, 0.98, 0.2)
    written["recipe"]["optimiser"] = {"kind": "muon"}
    with pytest.raises(ValueError, match="beside optimiser, which has its own"):
        RunConfig.model_validate(written)
