"""A step asks the device for no number; what was measured is fetched when it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from told_apart import told_apart
from torch.utils._python_dispatch import TorchDispatchMode

from isoflop.config import Depth, EveryToken, RandomK, RunConfig, TopK
from isoflop.model import build
from isoflop.training import Trainer, initialise

MakeRun = Callable[..., RunConfig]
READS = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__")


class Reads(TorchDispatchMode):
    """Counts the numbers that are handed from tensors to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the methods that were called to get numbers out of tensors."""
    called: list[str] = []
    for name in READS:
        original = getattr(torch.Tensor, name)

        def noted(self: Any, *args: Any, name: str = name, original: Any = original) -> Any:
            called.append(name)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, noted)
    return called


@pytest.mark.parametrize("depth", [EveryToken(), TopK(capacity=0.25), RandomK(capacity=0.25)])
@pytest.mark.parametrize("micro_batch", [None, 1])
def test_a_step_waits_for_nothing(
    make_run: MakeRun, depth: Depth, micro_batch: int | None, read: list[str]
) -> None:
    config = told_apart(make_run(depth))
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    trainer = Trainer(model, config, compiled=False, micro_batch=micro_batch, logits=1000)
    tokens = torch.randint(256, (3, 17))
    trainer.step(tokens, 0, 1.0)
    read.clear()
    with Reads() as reads:
        result = trainer.step(tokens, 1, 1.0)
    assert (reads.count, read) == (0, [])
    assert result.finite
    assert result.loss > 0
    assert read == ["tolist"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("depth", [EveryToken(), TopK(capacity=0.25), RandomK(capacity=0.25)])
def test_a_step_synchronises_no_gpu(make_run: MakeRun, depth: Depth) -> None:
    config = make_run(depth)
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    trainer = Trainer(model.cuda(), config, compiled=False)
    tokens = torch.randint(256, (3, 17)).cuda()
    trainer.step(tokens, 0, 1.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = trainer.step(tokens, 1, 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.finite
