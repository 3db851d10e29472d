"""Rows of the measurements that are kept beside the code, with what a test changes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from isoflop.bench import AttentionReport, DecodeReport
from isoflop.bench.attention import AttentionRow
from isoflop.bench.decode import DecodeRow
from isoflop.config import Frozen

RESULTS = Path(__file__).parents[2] / "results" / "bench"

Row = TypeVar("Row", bound=Frozen)


def kept_row(kind: type[Row], name: str, number: int = 0, **changes: object) -> Row:
    """Return a row of a file of results."""
    rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return kind.model_validate({**rows[number], **changes})


def attention_row(length: int, ratio: float, size: int = 512, **changes: object) -> AttentionRow:
    settings = {
        "sequence_length": length,
        "block_size": size,
        "direction": "forward+backward",
        "full_seconds": 3.0,
        "block_seconds": 3.0 / ratio,
        "time_ratio": ratio,
        "flop_ratio": 2 * ratio,
        "full_peak_bytes": 100,
        "block_peak_bytes": 140,
        **changes,
    }
    return kept_row(AttentionRow, "attention-fp32", **settings)


def attention_report(*rows: AttentionRow, busy: str | None = None) -> AttentionReport:
    return AttentionReport(rows=rows, busy=busy, torch="0", machine="test")


def decode_row(variant: str = "MoD 12.5%", ratio: float = 1.6, **changes: object) -> DecodeRow:
    settings = {
        "variant": variant,
        "batch": 1,
        "threads": 2,
        "step_seconds": 0.01 / ratio,
        "speed_ratio": ratio,
        "low": 0.9 * ratio,
        "high": 1.1 * ratio,
        "realised_share": 0.125 if variant != "dense" else 1,
        "cache_ratio": 0.5625,
        **changes,
    }
    return kept_row(DecodeRow, "decode", **settings)


def decode_rows(context: int = 256, ratio: float = 1.6, peer: float = 0.8) -> list[DecodeRow]:
    return [
        decode_row("dense", 1.0, context=context, cache_ratio=1),
        decode_row(ratio=ratio, context=context),
        decode_row("dense", peer, context=context, cache_ratio=1, implementation="transformers"),
    ]


def decode_report(*given: DecodeRow, **changes: object) -> DecodeReport:
    return DecodeReport(rows=given, torch="0", machine="test", **changes)  # type: ignore[arg-type]
