"""Steps of decoding: how they are measured, what decodes, and how the numbers read."""

from isoflop.bench.decode.measuring import (
    DecodeCase,
    DecodeReport,
    DecodeRow,
    bench_decode,
    decode_cases,
)
from isoflop.bench.decode.report import describe_decode
