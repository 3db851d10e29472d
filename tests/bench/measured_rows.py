"""Made-up rows of measurements, with what a test changes of them."""

from __future__ import annotations

from isoflop.bench import AttentionReport, DecodeReport
from isoflop.bench.attention import AttentionRow
from isoflop.bench.decode import DecodeRow
from isoflop.bench.train import BenchRow

PAIRED = {"step_seconds": 1.0, "speed_ratio": 1.0, "low": 0.9, "high": 1.1, "rounds": 8}
TOLD = {"torch": "0", "machine": "test"}


def train_row(**changes: object) -> BenchRow:
    """A row of the dense model, compiled, at width 512 and 1,024 tokens."""
    model = {"parameters": 1000, "width": 512, "blocks": 8, "dtype": "bf16", "threads": 1}
    step = {"sequence_length": 1024, "sequences_per_step": 4, "flops_per_step": 100.0}
    speeds = {"steps_per_second": 1.0, "achieved_flops": 100.0, "peak_flops": 1e3}
    which = {"group": 0, "variant": "dense", "compiled": True, "attention": None}
    told = {**PAIRED, **model, **step, **speeds, **which, "convention": "causal"}
    return BenchRow.model_validate({**told, **changes})


def attention_report(*ratios: tuple[int, int, float], busy: str | None = None) -> AttentionReport:
    """Rows of length, block size and how many times as fast blocks are."""
    settings = {"direction": "forward+backward", "top_k": 3, "dtype": "fp32", "threads": 2}
    peaks = {"full_peak_bytes": 2_000_000, "block_peak_bytes": 3_000_000}
    rows = tuple(
        AttentionRow(
            sequence_length=length,
            block_size=size,
            full_seconds=3.0,
            block_seconds=3.0 / ratio,
            time_ratio=ratio,
            flop_ratio=2 * ratio,
            rounds=5,
            **settings,
            **peaks,
        )
        for length, size, ratio in ratios
    )
    return AttentionReport(rows=rows, busy=busy, **TOLD)


def decode_report(**changes: object) -> DecodeReport:
    """A dense model, the routed one, and the peer."""
    told = {"context": 256, "batch": 1, "threads": 2, "dtype": "fp32", "width": 512, "blocks": 8}
    told |= {"parameters": 1000, "tokens_per_second": 100.0, "flops_per_step": 1e7, **PAIRED}
    told |= {"realised_share": 1.0, "cache_bytes": 8_000_000}
    rows = (
        {"variant": "dense", "implementation": "isoflop"},
        {"variant": "MoD 12.5%", "implementation": "isoflop", "realised_share": 0.125},
        {"variant": "dense", "implementation": "transformers"},
    )
    made = tuple(DecodeRow.model_validate({**told, **row}) for row in rows)
    return DecodeReport(rows=made, **TOLD, **changes)  # type: ignore[arg-type]
