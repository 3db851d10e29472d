"""Peak memory is measured apart from what the process had, and told beside its estimate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from isoflop.bench import (
    MemoryReport,
    MemoryShape,
    bench_memory,
    describe_memory,
    machine,
    memory,
    memory_cases,
)
from isoflop.bench.memory import LossCase, MemoryRow, StepCase
from isoflop.cli import main

SHAPE = MemoryShape(width=64, blocks=2, vocabulary=8192, sequence_length=512, loss_width=64)
TOLD = {
    "part": "step",
    "name": "all sequences",
    "tokens": 4096,
    "held": 1024,
    "width": 256,
    "vocabulary": 32_000,
    "parameters": 24_000_000,
    "dtype": "fp32",
    "device": "cpu",
    "threads": 2,
    "peak_bytes": 2_000_000_000,
    "seconds": 5.0,
}


def report(**changes: object) -> MemoryReport:
    step = MemoryRow.model_validate({**TOLD, "recompute": "none", "estimated_bytes": 1.5e9})
    loss = MemoryRow.model_validate({**TOLD, "part": "loss", "name": "in chunks", "width": 512})
    verdicts = (memory._verdict(step),)
    return MemoryReport(rows=(step, loss), verdicts=verdicts, torch="0", machine="test", **changes)  # type: ignore[arg-type]


def test_steps_are_held_in_every_way_and_losses_computed_in_each() -> None:
    cases = memory_cases(SHAPE)
    steps = [case for case in cases if isinstance(case, StepCase)]
    assert [(case.micro_batch, case.recompute) for case in steps] == [
        (4, "none"),
        *((held, kind) for held in (4, 1) for kind in ("none", "selective", "full")),
    ]
    # Nothing of the first is in chunks.
    assert steps[0].logits == 4 * 512 * 8192
    assert [case.name for case in cases if isinstance(case, LossCase)] == list(memory.WAYS)
    with pytest.raises(ValueError, match="width is 96; expected a multiple of 64"):
        memory_cases(SHAPE.model_copy(update={"width": 96}))


def test_every_way_to_a_loss_gives_the_same() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = (nn.Parameter(torch.randn(count, 16, generator=draw)) for count in (37, 53))
    targets = torch.randint(53, (37,), generator=draw)
    whole = memory.WAYS["whole logits"](x, weight, targets)
    expected = torch.autograd.grad(whole, (x, weight))
    for way, compute in memory.WAYS.items():
        if memory._needs_newer_torch(LossCase(shape=SHAPE, name=way)):
            continue
        loss = compute(x, weight, targets)
        torch.testing.assert_close(loss, whole)
        for found, wanted in zip(torch.autograd.grad(loss, (x, weight)), expected, strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.skipif(not machine._CLEAR.exists(), reason="the system does not tell peaks")
@pytest.mark.slow
def test_a_step_and_a_loss_are_measured_apart() -> None:
    cases = memory_cases(SHAPE)
    found = bench_memory((cases[0], cases[-3]), force=True)
    step, loss = found.rows
    assert (step.part, step.held, step.tokens) == ("step", 2048, 2048)
    # Logits, their logarithms and the gradient: all else of so small a model is little.
    assert step.ratio == pytest.approx(1, abs=0.25)
    assert (loss.part, loss.name, loss.estimated_bytes) == ("loss", "in chunks", None)
    values = 2048 * 8192
    assert loss.peak_bytes is not None
    assert 2 * 4 * values <= loss.peak_bytes < 5 * 4 * values
    assert len(found.verdicts) == 1


def test_what_torch_lacks_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_needs_newer_torch", lambda case: case.name == "torch's chunks")
    monkeypatch.setattr(memory, "in_fresh_process", lambda measure, case: report().rows[1])
    found = bench_memory(memory_cases(SHAPE), force=True)
    assert found.notes == (memory.NO_TORCH_CHUNKS,)
    assert len(found.rows) == 7 + 3


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        bench_memory(memory_cases(SHAPE.model_copy(update={"device": "cuda"})), force=True)


def test_the_table_tells_measured_beside_estimated() -> None:
    told = "\n".join(describe_memory(report(notes=("left out",))))
    assert "step of 24,000,000 parameters, width 256; loss at width 512" in told
    assert "2,000         1,500   0.75" in told
    assert "NOT HELD: all sequences, none computed again: memory is as estimated: 0.75" in told
    assert told.endswith("note: left out")


def test_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(
        "isoflop.bench.bench_memory", lambda cases, **more: asked.append((cases, more)) or report()
    )
    command = ["bench", "memory", "--width", "128", "--threads", "1", "--force"]
    assert main([*command, "--json", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == report().model_dump(mode="json")["rows"]
    kept = (tmp_path / "memory.json").read_text()
    assert MemoryReport.model_validate_json(kept) == report()
    cases, more = asked[0]
    assert (cases[0].shape.width, cases[0].shape.threads) == (128, 1)
    assert more["force"] is True
    assert main(["bench", "memory", "--width", "96"]) == 2
    assert "width is 96" in capsys.readouterr().err
