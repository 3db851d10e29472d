"""A compiled step computes what the eager one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from told_apart import SPANS, told_apart

from isoflop.config import BlockAttention, Depth, EveryToken, RandomK, RunConfig, TopK
from isoflop.model import build
from isoflop.runs import RunFolder
from isoflop.training import Trainer, compiling_fault, initialise, train

MakeRun = Callable[..., RunConfig]
STEPS, TOLERANCE = 4, 1e-4

# torch's compiler warns of what torch itself does.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def needs_a_compiler_that_is_right() -> None:
    fault = compiling_fault()
    if fault is not None:
        # What runs do without is still broken where a compiler is there and fails.
        (pytest.fail if "fails" in fault else pytest.skip)(fault)


@pytest.mark.parametrize(
    "depth",
    [
        pytest.param(EveryToken(), marks=pytest.mark.slow, id="dense"),
        pytest.param(TopK(capacity=0.25), id="top-k"),
        pytest.param(None, marks=pytest.mark.slow, id="block attention"),
        pytest.param(RandomK(capacity=0.25), marks=pytest.mark.slow, id="random control"),
    ],
)
def test_compiled_steps_equal_eager_ones(make_run: MakeRun, depth: Depth | None) -> None:
    config = make_run(depth or EveryToken())
    if depth is None:
        attention = BlockAttention(block_size=4, top_k=2, full_from=0.5, key_convolution=3)
        model = config.model.model_copy(update={"attention": attention})
        config = config.model_copy(update={"model": model, "steps": STEPS})
    assert_alike(config)


def test_compiled_steps_tell_positions_apart_alike(make_run: MakeRun) -> None:
    config = told_apart(make_run())
    # The readout is all that differs, so one block will do.
    model = config.model.model_copy(update={"blocks": 1})
    assert_alike(config.model_copy(update={"model": model}), spans=len(SPANS))


def assert_alike(config: RunConfig, spans: int = 0) -> None:
    trainers = []
    for compiled in (False, True):
        model = build(config.model)
        initialise(model, config.recipe, config.seed)
        trainers.append(Trainer(model, config, compiled=compiled))
    eager, compiled = trainers
    for index in range(STEPS):
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
def test_compiled_runs_with_two_threads_work_within_a_limit_of_memory(
    make_run: MakeRun, cache: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    record = train(
        make_run(), folder, cache=cache, threads=2, compiled=True, memory_bytes=3 * 2**30
    )
    assert record.state == "finished"
    assert record.environment.compiled
