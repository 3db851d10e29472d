"""Peak memory is measured apart from what the process had, and told beside its estimate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.bench import MemoryReport, bench_memory, machine, memory_cases, memory_config
from isoflop.bench.memory import MemoryRow, describe_memory
from isoflop.cli import main

CONFIG = memory_config(width=64, blocks=2, vocabulary=8192, sequence_length=512)


def report(**changes: object) -> MemoryReport:
    model = {"parameters": 24_000_000, "width": 256, "blocks": 10, "dtype": "fp32"}
    step = {"sequence_length": 1024, "sequences_per_step": 4, "device": "cpu", "threads": 2}
    held = {"name": "all, chunked logits", "micro_batch": 4, "recompute": "none", "seconds": 5.0}
    peaks = {"peak_bytes": 2_000_000_000, "estimated_bytes": 1_500_000_000}
    row = MemoryRow.model_validate({**model, **step, **held, **peaks})
    return MemoryReport(rows=(row,), torch="0", machine="test", **changes)  # type: ignore[arg-type]


def test_steps_are_held_in_every_way() -> None:
    cases = memory_cases(CONFIG)
    assert [(case.micro_batch, case.recompute) for case in cases] == [
        (4, "none"),
        *((held, kind) for held in (4, 1) for kind in ("none", "selective", "full")),
    ]
    # Nothing of the first is in chunks.
    assert cases[0].logits == 4 * 512 * 8192


@pytest.mark.skipif(not machine._CLEAR.exists(), reason="the system does not tell peaks")
@pytest.mark.slow
def test_a_step_is_measured_apart() -> None:
    (step,) = bench_memory(memory_cases(CONFIG)[:1], force=True).rows
    # Logits, their logarithms and the gradient: all else of so small a model is little.
    assert step.ratio == pytest.approx(1, abs=0.25)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        bench_memory(memory_cases(CONFIG, device="cuda"), force=True)


def test_command_tells_measured_beside_estimated(
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
    assert (cases[0].config.model.width, cases[0].threads) == (128, 1)
    assert more["force"] is True
    told = describe_memory(report(notes=("left out",)))
    assert told[-2].split()[-4:] == ["2,000", "1,500", "0.75", "5"]
    assert told[-1] == "note: left out"
