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
    ("used", "own", "told"), [(0.1, 0.0, None), (1.5, 0.0, "1.50 cores"), (1.0, 0.95, None)]
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
    reason = busy()
    assert reason is not None
    assert "missing" in reason


def test_products_are_measured_and_threads_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "GEMM_SIZES", {"cpu": (16, 32)})
    monkeypatch.setattr(machine, "GEMM_SECONDS", 0.001)
    before = torch.get_num_threads()
    assert gemm_peak("bf16", before + 1) > 0
    assert torch.get_num_threads() == before
