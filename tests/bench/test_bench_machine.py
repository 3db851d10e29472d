from pathlib import Path

import pytest
import torch

from isoflop.bench import machine
from isoflop.bench.machine import busy, gemm_peak


def watched(
    monkeypatch: pytest.MonkeyPatch, used: tuple[float, float], own: tuple[float, float]
) -> str | None:
    """Return what `busy` says after one second in which the given processor seconds passed."""
    monkeypatch.setattr(machine, "_used_seconds", iter(used).__next__)
    monkeypatch.setattr(machine.time, "process_time", iter(own).__next__)
    monkeypatch.setattr(machine.time, "perf_counter", iter((50.0, 51.0)).__next__)
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: None)
    return busy()


@pytest.mark.parametrize(
    ("used", "own", "told"),
    [(0.1, 0.0, None), (1.5, 0.0, "1.50 cores"), (1.0, 0.95, None)],
)
def test_others_make_it_busy_and_not_its_own_work(
    monkeypatch: pytest.MonkeyPatch, used: float, own: float, told: str | None
) -> None:
    reason = watched(monkeypatch, (100.0, 100.0 + used), (5.0, 5.0 + own))
    assert reason is None if told is None else told in (reason or "")


def test_used_seconds_leave_idle_and_guests_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 5000 600 7 8 9 90 0\ncpu0 1 2 3\n")
    monkeypatch.setattr(machine, "_STAT", stat)
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    assert machine._used_seconds() == pytest.approx(1.74)


def test_where_nothing_tells_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_STAT", tmp_path / "none")
    reason = busy(0)
    assert reason is not None
    assert "missing" in reason


def test_gemm_peak_is_the_best_size_and_gives_threads_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def product(size: int, dtype: torch.dtype, *_: object) -> float:
        asked.append((dtype, torch.get_num_threads()))
        return {512: 3.0, 1024: 5.0, 2048: 4.0}[size]

    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "GEMM_SECONDS", 0.001)
    assert machine._gemm(32, torch.bfloat16) > 0
    monkeypatch.setattr(machine, "_gemm", product)
    assert gemm_peak("bf16", before + 1) == 5.0
    assert asked == [(torch.bfloat16, before + 1)] * 3
    assert torch.get_num_threads() == before
