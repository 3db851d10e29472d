"""What a step holds at a time: estimated from what autograd keeps, tried, pinned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from isoflop.config import (
    Attention,
    BlockAttention,
    DataConfig,
    Depth,
    EveryToken,
    FeedForward,
    FullAttention,
    Gelu,
    ModelConfig,
    Recipe,
    Recompute,
    RunConfig,
    SwiGlu,
    TopK,
)
from isoflop.config.own import own
from isoflop.costs import parameters
from isoflop.memory import USED, estimate_memory, fitting_step, smallest_step, spared_by_sharding
from isoflop.model import build
from isoflop.runs import RunFolder
from isoflop.training import Trainer, environment, fitting, initialise, train

MakeRun = Callable[..., RunConfig]


def run_of(length: int, precision: str, **choices: Any) -> RunConfig:
    model = ModelConfig(
        vocabulary=1000, width=128, blocks=4, heads=4, head_width=32, hidden=320, **choices
    )
    return RunConfig(
        model=model,
        data=DataConfig(sequence_length=length),
        recipe=Recipe(precision=precision),
        steps=1,
        sequences_per_step=1,
    )


def kept_bytes(config: RunConfig, recompute: Recompute) -> int:
    """Bytes that autograd keeps of a batch, weights apart."""
    model = build(config.model)
    initialise(model, config.recipe, 0)
    trainer = Trainer(model, config, compiled=False, recompute=recompute)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.setdefault(x.untyped_storage().data_ptr(), x)
        return x

    length = config.data.sequence_length
    tokens = torch.randint(1000, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), trainer.autocast():
        stream = model.stream(tokens).x
        trainer._loss(stream, tokens)
    values = {at: x.untyped_storage().nbytes() for at, x in kept.items() if at not in weights}
    # Weights as cast to bf16 are state.
    cast = sum(x.numel() * 2 for at, x in kept.items() if at in values and _is_cast(x, model))
    return sum(values.values()) - cast


def _is_cast(x: torch.Tensor, model: torch.nn.Module) -> bool:
    shapes = {tuple(p.shape) for p in model.parameters() if p.dim() == 2}
    return (
        x.dtype == torch.bfloat16
        and x.dim() == 2
        and (tuple(x.shape) in shapes or tuple(x.mT.shape) in shapes)
    )


@pytest.mark.parametrize(
    ("length", "precision", "recompute"),
    [
        (512, "fp32", "none"),
        (512, "fp32", "full"),
        (256, "bf16", "none"),
        pytest.param(1536, "bf16", "none", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("depth", "attention", "feed_forward"),
    [
        (EveryToken(), FullAttention(), SwiGlu()),
        (EveryToken(), FullAttention(), Gelu()),
        (TopK(capacity=0.25), FullAttention(), SwiGlu()),
        (EveryToken(), BlockAttention(block_size=32, top_k=2), SwiGlu()),
        (EveryToken(), BlockAttention(block_size=32, top_k=2, full_last=2), SwiGlu()),
        (EveryToken(), BlockAttention(block_size=32, top_k=2, full_from=0.5), Gelu()),
    ],
)
def test_the_estimate_is_what_autograd_keeps(
    depth: Depth,
    attention: Attention,
    feed_forward: FeedForward,
    length: int,
    precision: str,
    recompute: Recompute,
) -> None:
    config = run_of(length, precision, depth=depth, attention=attention, feed_forward=feed_forward)
    estimate = estimate_memory(config, recompute=recompute, device="cpu")
    # Of the logits, their softmax stays until the backward pass.
    expected = estimate.sequence_bytes + length * 1000 * 4
    assert kept_bytes(config, recompute) == pytest.approx(expected, rel=0.1)


def test_blocks_that_process_less_and_less_are_held_as_they_start() -> None:
    falling, whole = {"capacity": 0.25, "start_capacity": 1.0}, {"capacity": 1.0}
    depths = (own("depth", "routed", settings) for settings in (falling, whole))
    assert len({estimate_memory(run_of(64, "fp32", depth=depth)) for depth in depths}) == 1


def test_an_average_of_the_weights_is_state() -> None:
    config = run_of(64, "fp32")
    averaged = config.model_copy(update={"recipe": Recipe(precision="fp32", average_half_life=0.1)})
    average = Trainer(build(config.model), averaged, compiled=False).average or {}
    more = estimate_memory(averaged).state_bytes - estimate_memory(config).state_bytes
    assert more == sum(one.nbytes for one in average.values())


def test_less_is_kept_the_more_is_computed_again() -> None:
    config = run_of(512, "fp32").model_copy(update={"sequences_per_step": 8})
    kinds: tuple[Recompute, ...] = ("none", "selective", "full")
    sizes = [estimate_memory(config, recompute=kind).total_bytes for kind in kinds]
    assert sizes == sorted(sizes, reverse=True)
    whole, part = (estimate_memory(config, micro_batch=n).total_bytes for n in (None, 2))
    assert part < whole
    # As much as there is room for, and a divisor of the step.
    found = fitting_step(config, whole - 1, "cuda")
    assert found is not None
    assert (found.sequences, found.recompute) == (8, "selective")
    found = fitting_step(config, whole - 1, "cpu")
    assert found is not None
    assert (found.sequences, found.recompute) == (4, "none")
    assert fitting_step(config, 1000, "cuda") is None


def test_what_fits_is_pinned_and_kept(make_run: MakeRun, cache: Path, tmp_path: Path) -> None:
    config = make_run()
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    expected = train(config, whole, cache=cache)
    assert "micro_batch" not in (whole.path / "pinned.json").read_text()
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 5

    with pytest.raises(RuntimeError, match="stopped at step 5"):
        train(config, parts, cache=cache, micro_batch_tokens=16, recompute="full", stop=stop)
    record = train(config, parts, cache=cache)
    assert (record.environment.micro_batch, record.environment.recompute) == (1, "full")
    assert record.run_id == expected.run_id
    assert not record.resumed_under
    found, wanted = (one.evaluations[0].loss for one in (record, expected))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_fewer_sequences_are_held_where_memory_runs_out(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run().model_copy(update={"sequences_per_step": 8})
    tried = []

    def one_pass(*given: Any) -> None:
        tried.append((given[2].sequences, given[2].recompute))
        if len(tried) < 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(fitting, "_one_pass", one_pass)
    here = environment("cpu", 1, False)
    needed = estimate_memory(config, device="cpu").total_bytes
    found = fitting.fitted(config, here, memory_bytes=int(1.5 * needed))
    assert tried == [(8, "none"), (4, "none"), (2, "none"), (1, "none"), (1, "full")]
    assert (found.micro_batch, found.recompute) == (1, "full")
    # Nothing is tried where there is room enough.
    tried.clear()
    assert fitting.fitted(config, here, memory_bytes=10 * needed) == here
    assert tried == []


def test_what_is_asked_for_is_held_with_as_little_recomputed_as_fits(make_run: MakeRun) -> None:
    config = make_run().model_copy(update={"sequences_per_step": 8})
    here = environment("cpu", 1, False)
    sizes = {
        kind: estimate_memory(config, micro_batch=4, recompute=kind, device="cpu").total_bytes
        for kind in get_args(Recompute)
    }
    for kind, size in sizes.items():
        found = fitting.fitted(
            config, here, micro_batch_tokens=64, memory_bytes=int(size / USED["cpu"]) + 1
        )
        assert (found.micro_batch, found.recompute) == (4, kind)


def test_large_tensors_are_kept_where_half_the_memory_does(make_run: MakeRun) -> None:
    config, here = make_run(), environment("cpu", 1, False)
    needed = estimate_memory(config, device="cpu").total_bytes / USED["cpu"]
    assert fitting.is_roomy(config, here, int(2.1 * needed))
    assert not fitting.is_roomy(config, here, int(1.9 * needed))
    # A step that holds less, and a GPU's memory, which is not the process's.
    again = here.model_copy(update={"micro_batch": 1, "recompute": "full"})
    assert fitting.is_roomy(config, again, int(1.9 * needed))
    assert not fitting.is_roomy(config, here.model_copy(update={"device": "cuda"}), 2**40)


def test_less_than_a_sequence_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match="is 15; expected at least the 16 tokens of a sequence"):
        fitting.fitted(make_run(), environment("cpu", 1, False), micro_batch_tokens=15)


def test_a_step_that_cannot_fit_is_told(make_run: MakeRun) -> None:
    with pytest.warns(UserWarning, match="GiB with one sequence at a time and all blocks recomp"):
        fitting.fitted(make_run(), environment("cpu", 1, False), memory_bytes=1000)


def test_blocks_are_split_over_ranks_where_the_whole_does_not_fit(make_run: MakeRun) -> None:
    config = run_of(64, "fp32").model_copy(update={"sequences_per_step": 2})
    alone = environment("cpu", 1, False)
    here = environment("cpu", 1, False, ranks=2)
    least = smallest_step(config, "cpu").total_bytes
    spared = spared_by_sharding(config, 2)
    # Half of a state of 16 bytes a parameter in blocks, but for two of four blocks' weights.
    blocks = parameters(config.model).total - 2 * 1000 * 128 - 128
    assert spared == pytest.approx(blocks * (8 - 2), rel=1e-6)
    enough = round(least / USED["cpu"]) + 1
    assert not fitting.fitted(config, here, memory_bytes=enough).sharded
    too_little = round((least - spared / 2) / USED["cpu"])
    with pytest.warns(UserWarning, match="blocks are split over the 2 ranks: held whole"):
        assert fitting.fitted(config, here, memory_bytes=too_little).sharded
    assert fitting.fitted(config, here, memory_bytes=enough, shard=True).sharded
    with pytest.warns(UserWarning, match="a step is expected to need"):
        assert not fitting.fitted(config, here, memory_bytes=too_little, shard=False).sharded
    with pytest.warns(UserWarning, match="a step is expected to need"):
        assert not fitting.fitted(config, alone, memory_bytes=too_little, shard=True).sharded
