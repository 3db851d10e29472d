"""What is measured of attention, what the ratios are of, and how it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from measured_rows import attention_report as report

from isoflop.bench import (
    attention,
    attention_cases,
    bench_attention,
    describe_attention,
    machine,
    measured,
)
from isoflop.bench.attention import crossovers, measure, peak_bytes
from isoflop.bench.figures import attention_figure


def test_cases_leave_out_what_is_full_attention() -> None:
    cases = attention_cases(lengths=(2048, 1024), block_sizes=(512, 64), threads=2)
    assert [(c.sequence_length, c.direction, c.block_sizes) for c in cases] == [
        (1024, "forward", (64,)),
        (1024, "forward+backward", (64,)),
        (2048, "forward", (64, 512)),
        (2048, "forward+backward", (64, 512)),
        (4096, "forward", (64, 512)),
    ]
    standard = attention_cases(threads=2)
    assert standard[-1].sequence_length == 131072
    assert standard[-1].direction == "forward"
    assert max(c.sequence_length for c in standard if c.direction != "forward") == 65536
    assert all(c.batch * c.heads >= 4 and c.head_width == 64 for c in standard)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": (64,), "block_sizes": (32,)}, "no length of \\[64\\] is above top_k = 3"),
        ({"lengths": (0,)}, "length is 0"),
        ({"top_k": 0}, "top_k is 0"),
    ],
)
def test_nothing_to_measure(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_cases(threads=1, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("direction", "dtype"), [("forward", "fp32"), ("forward+backward", "bf16")]
)
def test_measured_in_turns(direction: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(measured.time, "perf_counter", lambda: float(next(ticks)))
    case = attention_cases(lengths=(96,), block_sizes=(8, 16), threads=1, seconds=0, dtype=dtype)[
        direction != "forward"
    ].model_copy(update={"heads": 2, "head_width": 8})
    small, large = measure(case)
    assert (small.block_size, large.block_size) == (8, 16)
    assert small.direction == direction
    assert small.rounds == attention.LEAST_ROUNDS
    # A call is between two ticks of the clock.
    assert small.full_seconds == small.block_seconds == small.reference_seconds == 1.0
    assert small.time_ratio == 1.0
    # 96 x 97 / 2 pairs over 12 own triangles, and 0, 1, 2, 2, ... earlier blocks of 8 x 8.
    assert small.flop_ratio == 96 * 97 / 2 / (12 * 36 + 64 * (0 + 1 + 10 * 2))
    assert small.share == pytest.approx(1 / small.flop_ratio)


def test_peak_is_that_of_the_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = attention_cases(lengths=(512,), block_sizes=(8,), threads=1, seconds=0)[1]
    threads = torch.get_num_threads()
    full = peak_bytes(case, 0)
    assert torch.get_num_threads() == threads
    assert (full is None) == (not machine._CLEAR.exists())
    monkeypatch.setattr(machine, "_CLEAR", tmp_path / "missing" / "clear_refs")
    assert peak_bytes(case, 8) is None
    monkeypatch.setattr(machine, "_CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "missing")
    assert peak_bytes(case, 8) is None


@pytest.mark.slow
@pytest.mark.skipif(not machine._CLEAR.exists(), reason="the system does not tell peaks")
def test_each_contender_s_memory_is_its_own() -> None:
    cases = attention_cases(lengths=(8192,), block_sizes=(512,), threads=1, seconds=0)
    (found,) = bench_attention(cases[1:2], force=True).rows
    values = 4 * 8192 * 64 * 4
    assert found.full_peak_bytes is not None
    assert found.block_peak_bytes is not None
    # Inputs, output and gradients are eight such tensors; nobody needs thrice as many.
    assert 8 * values <= found.full_peak_bytes < 12 * values
    assert 8 * values <= found.block_peak_bytes < 24 * values


def test_crossover_is_where_it_stays_faster_and_the_figure_shows_the_rows() -> None:
    ratios = [(1024, 512, 1.2), (2048, 512, 0.9), (4096, 512, 1.1), (8192, 512, 3.0)]
    made = report(*ratios, (8192, 64, 0.5), busy="others are at work")
    assert list(crossovers(made.rows)) == [
        ("forward+backward", 512, 4096),
        ("forward+backward", 64, None),
    ]
    text = "\n".join(describe_attention(made))
    assert text.startswith("WARNING: measured on a BUSY machine, do not quote: others are at work")
    assert "1 x 4 heads of 64, fp32, 2 threads, top_k 3" in text
    assert "forward+backward, blocks of 512: faster from 4,096 tokens on" in text
    figure = attention_figure(made)
    assert list(figure.table["time_ratio"]) == [1.2, 0.9, 1.1, 3.0, 0.5]
    figure.chart.to_dict(validate=True)
