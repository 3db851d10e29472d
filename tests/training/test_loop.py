"""A whole run in its folder: what is recorded, what is logged, and how divergence ends it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from told_apart import SPANS, told_apart

from isoflop import checkpoint
from isoflop.config import Depth, EveryToken, RandomK, RunConfig, TopK, decisions
from isoflop.config.own import own
from isoflop.costs import forward_flops, parameters, train_flops_per_token
from isoflop.data import Batches, prepare
from isoflop.model import Transformer, build
from isoflop.runs import RunFolder
from isoflop.training import Trainer, initialise, load_model, rate_factor, train
from isoflop.training.curve import CURVE_POINTS, thin

MakeRun = Callable[..., RunConfig]
DEPTHS = [EveryToken(), TopK(capacity=0.25), RandomK(capacity=0.5)]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def all_finite(model: Transformer) -> bool:
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("depth", DEPTHS, ids=lambda depth: str(depth.kind))
def test_a_run_tells_what_it_did(
    make_run: MakeRun, cache: Path, folder: RunFolder, depth: Depth
) -> None:
    config = make_run(depth)
    record = train(config, folder, cache=cache, threads=1, compiled=False)
    assert record == folder.record()
    assert record.state == "finished"
    assert record.reason is None
    assert record.run_id == config.run_id
    assert record.parameters == parameters(config.model)
    assert record.forward_flops == forward_flops(config.model, 16, "causal").per_token
    tokens = 12 * 3 * 16
    for name, flops in record.train_flops.items():
        per_token = train_flops_per_token(config.model, 16, name)
        assert flops == pytest.approx(tokens * per_token, rel=1e-12)
    assert set(record.train_flops) == {"causal", "full", "6nd"}
    assert record.data_sha256 == prepare(config.data, cache).sha256
    wanted = [(s, d) for s in ("validation", "test") for d in decisions(config.model.depth)]
    assert [(e.split, e.decision) for e in record.evaluations] == wanted

    rows, _ = folder.read_metrics()
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["tokens"] for row in rows] == [48 * step for step in range(1, 13)]
    assert rows[-1]["flops"] == pytest.approx(record.train_flops["causal"])
    assert rows[0]["learning_rate"] == pytest.approx(8e-3 * rate_factor(config, 0))
    assert record.seconds == pytest.approx(sum(row["seconds"] for row in rows), abs=1e-4)
    assert record.train_loss == rows[-1]["loss"]
    assert [point.loss for point in record.curve] == pytest.approx(
        [row["loss"] for row in rows], abs=1e-6
    )
    looks = {row["step"]: row["validation"] for row in rows if "validation" in row}
    assert list(looks) == [3, 6, 9]
    assert all(list(look) == list(decisions(config.model.depth)[:2]) for look in looks.values())
    assert ("routing" in rows[0]) == bool(config.model.routed_blocks)


def test_is_the_plain_loop_over_steps(make_run: MakeRun, cache: Path, folder: RunFolder) -> None:
    config = make_run(TopK(capacity=0.25))
    train(config, folder, cache=cache, threads=1, compiled=False)
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    trainer = Trainer(model, config, compiled=False)
    batches = Batches(prepare(config.data, cache).split("train"), 16, 3, config.seed)
    losses = []
    for step in range(config.steps):
        tokens = torch.from_numpy(batches.batch(step))
        losses.append(trainer.step(tokens, step, rate_factor(config, step)).loss)
    assert [row["loss"] for row in folder.read_metrics()[0]] == losses
    loaded = load_model(folder)
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_the_data_order_has_a_seed_of_its_own(
    make_run: MakeRun, cache: Path, tmp_path: Path
) -> None:
    config = make_run(steps=2)

    def losses(**changes: int) -> list[float]:
        changed = config.model_copy(update=changes)
        folder = RunFolder(tmp_path / "runs" / changed.run_id)
        train(changed, folder, cache=cache, threads=1, compiled=False)
        return [row["loss"] for row in folder.read_metrics()[0]]

    usual, reordered, other = losses(), losses(data_seed=1), losses(seed=1)
    assert losses(data_seed=0) == usual
    # The same start on other batches, and another start on the same batches.
    assert len({usual[0], reordered[0], other[0]}) == 3
    assert losses(seed=1, data_seed=0) != other


def test_learns(make_run: MakeRun, cache: Path, folder: RunFolder) -> None:
    record = train(make_run(steps=60), folder, cache=cache, threads=1)
    rows, _ = folder.read_metrics()
    assert rows[0]["loss"] == pytest.approx(math.log(256), abs=0.7)
    assert record.train_loss is not None
    assert record.train_loss < rows[0]["loss"] - 2
    evaluation = record.evaluation()
    assert evaluation is not None
    assert evaluation.loss == pytest.approx(record.train_loss, abs=0.4)


def test_a_poisoned_run_stops_before_the_update(
    make_run: MakeRun, cache: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def poisoned(self: Trainer, tokens: Any, index: int, factor: float) -> Any:
        if index == 7:
            hook = self.model.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
            try:
                return step(self, tokens, index, factor)
            finally:
                hook.remove()
        return step(self, tokens, index, factor)

    monkeypatch.setattr(Trainer, "step", poisoned)
    record = train(make_run(DEPTHS[1]), folder, cache=cache, threads=1)
    assert record.state == folder.state() == "diverged"
    assert record.reason is not None
    assert "gradient norm nan" in record.reason
    assert "step 8" in record.reason
    assert record.evaluations == ()
    rows, _ = folder.read_metrics()
    assert [row["step"] for row in rows] == list(range(1, 8))
    assert record.train_flops["causal"] == pytest.approx(rows[-1]["flops"])
    saved = checkpoint.latest(folder.checkpoints)
    assert saved is not None
    assert saved.step == 7
    assert all_finite(load_model(folder))
    # It is an outcome: asking again trains nothing.
    assert train(make_run(DEPTHS[1]), folder, cache=cache, threads=1) == record


@pytest.mark.parametrize("rate", [1e20, 1e38])
@pytest.mark.parametrize("steps", [1, 12])
def test_an_absurd_learning_rate_is_marked_diverged(
    make_run: MakeRun, cache: Path, folder: RunFolder, rate: float, steps: int
) -> None:
    config = make_run(DEPTHS[1], steps=steps, learning_rate=rate, warmup_fraction=0.0)
    record = train(config, folder, cache=cache, threads=1, checkpoint_seconds=0)
    assert record.state == folder.state() == "diverged"
    assert record.reason
    saved = checkpoint.latest(folder.checkpoints)
    assert saved is None or all(bool(t.isfinite().all()) for t in saved.tensors.values())


def test_a_held_out_loss_that_is_not_finite_ends_the_run(
    make_run: MakeRun, cache: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite(*_: Any, split: str, decision: str, **__: Any) -> Any:
        raise FloatingPointError(f"{split} loss under {decision} is inf")

    monkeypatch.setattr("isoflop.training.run.evaluate", infinite)
    record = train(make_run(), folder, cache=cache, threads=1)
    assert record.state == "diverged"
    assert record.reason == "validation loss under every_token is inf after step 3"
    assert [row["step"] for row in folder.read_metrics()[0]] == [1, 2, 3]


def test_without_a_checkpoint_there_is_no_model(make_run: MakeRun, folder: RunFolder) -> None:
    folder.create(make_run())
    with pytest.raises(ValueError, match=r"has no checkpoint; train the run first"):
        load_model(folder)


def test_an_earlier_checkpoint_is_not_the_model_of_a_record(
    make_run: MakeRun, cache: Path, folder: RunFolder
) -> None:
    train(make_run(), folder, cache=cache, threads=1, compiled=False, checkpoint_seconds=0.0)
    last = max(folder.checkpoints.iterdir(), key=lambda path: path.name)
    (weights,) = last.glob("*.safetensors")
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match=r"of step \d+ of 12; move that"),
    ):
        load_model(folder)


def test_what_follows_training_is_evaluated_where_that_stands(
    make_run: MakeRun, cache: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(own("depth", "routed", {"capacity": 0.25, "start_capacity": 1.0}))
    told: list[float] = []
    original = Trainer.tell_progress

    def tell(self: Trainer, steps: int) -> None:
        told.append(steps / self.config.steps)
        original(self, steps)

    monkeypatch.setattr(Trainer, "tell_progress", tell)
    record = train(config, folder, cache=cache, threads=1, compiled=False)
    assert (record.state, told[-1], told.count(0.0)) == ("finished", 1.0, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_losses_are_of_text_all_over_a_split_where_that_is_asked_for(
    make_run: MakeRun, cache: Path, folder: RunFolder
) -> None:
    config, read = make_run(steps=1), {}
    data = config.data.model_copy(update={"test_fraction": 0.2, "validation_fraction": 0.2})
    for text in ("start", "spread"):
        run = config.model_copy(update={"evaluation_text": text, "data": data})
        record = train(run, RunFolder(folder.path / text), cache=cache, threads=1, compiled=False)
        read[text] = [len(one.document_tokens) for one in record.evaluations]
        assert {one.tokens for one in record.evaluations} <= {200, 192}
    assert read["start"] == [1, 1]
    assert min(read["spread"]) > 4
    assert config.run_id != run.run_id


def test_a_missing_device_is_refused(make_run: MakeRun, cache: Path, folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="torch sees no CUDA device; use --device cpu"):
        train(make_run(), folder, cache=cache, device="cuda")
    assert not folder.path.exists()


@pytest.mark.parametrize("depth", DEPTHS, ids=lambda depth: str(depth.kind))
def test_a_run_tells_positions_apart(
    make_run: MakeRun, cache: Path, folder: RunFolder, depth: Depth
) -> None:
    config = told_apart(make_run(depth))
    record = train(config, folder, cache=cache, threads=1, compiled=False)
    assert record == folder.record()
    rows, _ = folder.read_metrics()
    for row in rows:
        assert len(row["span_losses"]) == len(SPANS)
        assert sum(row["span_losses"][:4]) / 4 == pytest.approx(row["loss"], rel=1e-5)
    for point, row in zip(record.curve, rows, strict=True):
        assert point.span_losses == pytest.approx(row["span_losses"], abs=1e-6)

    # The windows trained on lie within documents.
    split = prepare(config.data, cache).split("train")
    batches = Batches(split, 16, 3, config.seed, "documents")
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    first = Trainer(model, config, compiled=False).step(torch.from_numpy(batches.batch(0)), 0, 0.0)
    assert rows[0]["span_losses"] == list(first.span_losses)

    for one in record.evaluations:
        assert tuple((span.start, span.stop) for span in one.spans) == SPANS
        assert all(sum(span.document_windows) == span.windows > 0 for span in one.spans)


@pytest.mark.parametrize("rows", [0, 1, CURVE_POINTS - 1, CURVE_POINTS, 1003])
def test_thinning_keeps_the_means_and_the_last_step(rows: int) -> None:
    losses = torch.rand(rows, 3, generator=torch.Generator().manual_seed(0))
    each = enumerate(losses.tolist(), start=1)
    points = thin([{"step": i, "loss": a, "span_losses": [b, c]} for i, (a, b, c) in each])
    assert len(points) == min(rows, CURVE_POINTS)
    start = 0
    for point in points:
        means = losses[start : point.step].mean(0).tolist()
        assert [point.loss, *point.span_losses] == pytest.approx(means, abs=2e-6)
        start = point.step
    assert start == rows
