"""What attends all keys is measured once, pinned and kept, and changes nothing but rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from isoflop.config import AttentionKernel, BlockAttention, Recompute, RunConfig, RunRecord, TopK
from isoflop.model import build
from isoflop.runs import RunFolder
from isoflop.training import Interrupted, Trainer, attending, environment, initialise, train
from isoflop.training.compiling import COMPILE_FROM_FLOPS

MakeRun = Callable[..., RunConfig]
HERE = environment("cpu", 1, False)
LONG = {"budget_flops": COMPILE_FROM_FLOPS}


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[AttentionKernel | None]]:
    """Return what sets the seconds of each kernel, None where it fails, and gives those asked."""

    def take(**seconds: float | None) -> list[AttentionKernel | None]:
        asked: list[AttentionKernel | None] = []

        def call(config: RunConfig, device: str, kernel: AttentionKernel | None) -> Any:
            def once() -> float:
                took = seconds[kernel or "rule"]
                if took is None:
                    raise RuntimeError("No available kernel. Aborting execution.")
                return took

            asked.append(kernel)
            return once

        monkeypatch.setattr(attending, "_call", call)
        monkeypatch.setattr(attending, "SECONDS", 0.0)
        return asked

    return take


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"fused": 1.0, "tiled": 0.95}, None),
        ({"fused": 1.0, "tiled": 0.9}, "tiled"),
        ({"fused": 0.7, "tiled": 0.8}, "fused"),
        ({"fused": None, "tiled": 0.8}, "tiled"),
        ({"fused": None, "tiled": None}, None),
    ],
)
def test_the_rule_stays_unless_another_is_clearly_faster(
    make_run: MakeRun, take: Callable[..., Any], seconds: dict[str, float], expected: str | None
) -> None:
    asked = take(rule=1.0, **seconds)
    config = make_run().model_copy(update=LONG)
    assert attending.fastest_attention(config, HERE) == expected
    assert asked == [None, "fused", "tiled"]


def test_each_device_has_its_kernels(make_run: MakeRun, take: Callable[..., Any]) -> None:
    config = make_run().model_copy(update=LONG)
    cuda = HERE.model_copy(update={"device": "cuda"})
    take(rule=1.0, cudnn=0.6, flash=0.5, efficient=None)
    assert attending.fastest_attention(config, cuda) == "flash"
    assert attending.fastest_attention(config, HERE.model_copy(update={"device": "mps"})) is None


def test_nothing_is_measured_where_it_cannot_pay(
    make_run: MakeRun, take: Callable[..., Any]
) -> None:
    asked = take(rule=1.0, fused=0.1, tiled=0.1)
    assert attending.fastest_attention(make_run(), HERE) is None
    config = make_run().model_copy(update=LONG)
    blocks = config.model.model_copy(update={"attention": BlockAttention(block_size=4, top_k=2)})
    config = config.model_copy(update={"model": blocks})
    assert attending.fastest_attention(config, HERE) is None
    assert asked == []


def test_kernels_are_measured_at_the_runs_shape(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attending, "SECONDS", 0.0)
    model = make_run().model.model_copy(update={"heads": 4, "kv_heads": 2, "head_width": 8})
    config = make_run(precision="fp32").model_copy(update={**LONG, "model": model})
    assert attending.fastest_attention(config, HERE) in {None, "tiled", "fused"}


def finished(
    config: RunConfig, folder: RunFolder, cache: Path, kernel: AttentionKernel | None, stop: int = 0
) -> RunRecord:
    """Train, stopped after some steps of the first attempt and gone on without a word."""
    steps = iter(range(stop - 1, -1, -1))
    if stop:
        with pytest.raises(Interrupted):
            train(
                config, folder, cache=cache, attention_kernel=kernel, stop=lambda: next(steps) == 0
            )
        return train(config, folder, cache=cache)
    return train(config, folder, cache=cache, attention_kernel=kernel)


def test_a_choice_is_pinned_and_kept(make_run: MakeRun, cache: Path, tmp_path: Path) -> None:
    config = make_run(precision="fp32")
    rule, whole, stopped = (RunFolder(tmp_path / name) for name in ("rule", "whole", "stopped"))
    plain = train(config, rule, cache=cache)
    assert "attention" not in (rule.path / "pinned.json").read_text()
    expected = finished(config, whole, cache, "tiled")
    found = finished(config, stopped, cache, "tiled", stop=5)
    for record in (expected, found):
        assert record.environment.attention == "tiled"
        assert record.run_id == plain.run_id
        assert not record.resumed_under
    assert found.curve == expected.curve
    assert found.evaluations == expected.evaluations
    # Another kernel, and so other bits, though no more than those.
    assert expected.curve != plain.curve
    assert expected.train_loss == pytest.approx(plain.train_loss, rel=1e-5)


def test_a_folder_of_before_goes_on_by_the_rule(
    make_run: MakeRun, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(precision="fp32")
    expected = train(config, RunFolder(tmp_path / "rule"), cache=cache)
    monkeypatch.setattr("isoflop.training.loop.fastest_attention", lambda *_: "tiled")
    record = finished(config, RunFolder(tmp_path / "before"), cache, None, stop=5)
    assert record.environment.attention is None
    assert not record.resumed_under
    assert record.curve == expected.curve
    new = train(config, RunFolder(tmp_path / "new"), cache=cache)
    assert new.environment.attention == "tiled"


class Calls(TorchDispatchMode):
    """Counts calls of operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ) -> Any:
        self.made[func.name()] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("recompute", "times"), [("none", 1), ("selective", 1), ("full", 2)])
@pytest.mark.parametrize("depth", [None, TopK(capacity=0.25)], ids=["dense", "top-k"])
def test_selective_recomputing_keeps_it(
    make_run: MakeRun, depth: TopK | None, recompute: Recompute, times: int
) -> None:
    config = make_run(depth, precision="fp32")
    gradients = []
    for kernel in (None, "tiled"):
        model = build(config.model)
        initialise(model, config.recipe, 0)
        model.attend_with(kernel)
        trainer = Trainer(model, config, compiled=False, recompute=recompute)
        tokens = torch.arange(51).view(3, 17)
        with Calls() as calls:
            trainer.gradients(tokens, 0)
        expected = times * config.model.blocks if kernel == "tiled" else 0
        assert calls.made["isoflop::tiled_attention"] == expected
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kernel", ["tiled", "flash"])
def test_compiled_blocks_take_it_whole(make_run: MakeRun, kernel: AttentionKernel) -> None:
    config = make_run(precision="fp32")
    losses = []
    for compiled in (False, True):
        model = build(config.model)
        initialise(model, config.recipe, 0)
        model.attend_with(kernel)
        trainer = Trainer(model, config, compiled=compiled, recompute="selective")
        tokens = torch.arange(51).view(3, 17)
        losses.append([trainer.step(tokens, step, 1.0).loss for step in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_finished_model_is_evaluated_by_the_rule(make_run: MakeRun) -> None:
    model = build(make_run().model, seed=0)
    tokens = torch.arange(16)[None]
    model.eval()
    expected = model(tokens).logits
    model.attend_with("tiled")
    assert torch.equal(model(tokens).logits, expected)
