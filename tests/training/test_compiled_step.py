"""A compiled step computes what the eager one does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from told_apart import SPANS, told_apart
from torch import Tensor

from isoflop.config import (
    Attention,
    BlockAttention,
    Depth,
    EveryToken,
    FullAttention,
    Own,
    RandomK,
    Recompute,
    RunConfig,
    TopK,
)
from isoflop.model import build
from isoflop.runs import RunFolder
from isoflop.training import Trainer, compiling_fault, initialise, train

MakeRun = Callable[..., RunConfig]
STEPS, TOLERANCE = 4, 1e-4

# torch's compiler warns of what torch itself does.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def needs_a_compiler_that_is_right() -> None:
    fault = compiling_fault()
    if fault is not None:
        # What runs do without is still broken where a compiler is there and fails.
        (pytest.fail if "fails" in fault else pytest.skip)(fault)


@pytest.mark.slow
@pytest.mark.usefixtures("needs_a_compiler_that_is_right")
@pytest.mark.parametrize(
    "depth",
    [EveryToken(), TopK(capacity=0.25), None, RandomK(capacity=0.25)],
    ids=["dense", "top-k", "block attention", "random control"],
)
def test_compiled_steps_equal_eager_ones(make_run: MakeRun, depth: Depth | None) -> None:
    config = make_run(depth or EveryToken())
    if depth is None:
        attention = BlockAttention(block_size=4, top_k=2, full_from=0.5, key_convolution=3)
        config = with_attention(config, attention).model_copy(update={"steps": STEPS})
    assert_alike(config)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace graphs and their gradients as ever, but generate no code for them."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


BLOCKS = BlockAttention(block_size=4, top_k=2, full_last=1, key_convolution=3)
DEPTHS = (EveryToken(), TopK(capacity=0.5), RandomK(capacity=0.5))
QUICK = (EveryToken(), BLOCKS, "selective")


def test_every_choice_is_traced_below() -> None:
    attention, depth = (
        {get_args(one)[0] for one in get_args(get_args(choice)[0])} for choice in (Attention, Depth)
    )
    # Blocks with parts of one's own may break a compiled step in two.
    assert attention == {FullAttention, BlockAttention, Own}
    assert depth == {*map(type, DEPTHS), Own}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("depth", "attention", "recompute"),
    [
        pytest.param(*one, marks=() if one == QUICK else pytest.mark.slow)
        for one in product(DEPTHS, (FullAttention(), BLOCKS), get_args(Recompute))
    ],
)
def test_every_kind_of_block_is_one_graph(
    make_run: MakeRun, depth: Depth, attention: Any, recompute: Recompute
) -> None:
    config = with_attention(told_apart(make_run(depth)), attention)
    assert_alike(config, spans=len(SPANS), steps=1, recompute=recompute)


@pytest.mark.usefixtures("traced")
def test_a_graph_that_breaks_is_an_error(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(x: Tensor, *_: Any) -> Tensor:
        torch._dynamo.graph_break()
        return x

    monkeypatch.setattr("isoflop.model.layers.rotate", broken)
    model = build(make_run().model)
    trainer = Trainer(model, make_run(), compiled=True)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        trainer.step(torch.zeros(3, 17, dtype=torch.int64), 0, 1.0)


@pytest.mark.usefixtures("traced")
def test_a_ninth_model_compiles(make_run: MakeRun) -> None:
    # Torch's own patch: what pytest sets of this module it deletes afterwards.
    with torch._dynamo.config.patch(recompile_limit=1):
        trainer = Trainer(build(make_run().model), make_run(), compiled=True)
        for length in (9, 17, 25):
            trainer.step(torch.zeros(3, length, dtype=torch.int64), 0, 1.0)


def with_attention(config: RunConfig, attention: Any) -> RunConfig:
    model = config.model.model_copy(update={"attention": attention})
    return config.model_copy(update={"model": model})


def assert_alike(config: RunConfig, spans: int = 0, steps: int = STEPS, **how: Any) -> None:
    trainers = []
    for compiled in (False, True):
        model = build(config.model)
        initialise(model, config.recipe, config.seed)
        trainers.append(Trainer(model, config, compiled=compiled, **how))
    eager, compiled = trainers
    for index in range(steps):
        generator = torch.Generator().manual_seed(index)
        batch = torch.randint(256, (3, 17), generator=generator)
        expected, found = eager.step(batch, index, 1.0), compiled.step(batch, index, 1.0)
        assert found.loss == pytest.approx(expected.loss, rel=TOLERANCE)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=TOLERANCE)
        assert found.routing.keys() == expected.routing.keys()
        assert found.span_losses == pytest.approx(expected.span_losses, rel=TOLERANCE)
        assert len(found.span_losses) == spans
    for name, value in eager.model.state_dict().items():
        torch.testing.assert_close(
            compiled.model.state_dict()[name], value, rtol=0.02, atol=1e-4, msg=name
        )


@pytest.mark.slow
@pytest.mark.usefixtures("needs_a_compiler_that_is_right")
def test_compiled_runs_with_two_threads_work_within_a_limit_of_memory(
    make_run: MakeRun, cache: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    record = train(
        make_run(), folder, cache=cache, threads=2, compiled=True, memory_bytes=3 * 2**30
    )
    assert record.state == "finished"
    assert record.environment.compiled
