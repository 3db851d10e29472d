"""Throughput measured in pairs: training steps against each other and against a peer.

`bench_train` takes groups of cases and gives a `BenchReport`, whose `model_dump(mode="json")` is
what `--json` prints and what lies in `runs/NAME/bench.json`. `standard_groups()` are the fixed
comparison with Hugging Face's Llama, `study_group(models)` the numbered models of a study.
`bench_attention` takes `attention_cases()` and gives an `AttentionReport`: block attention beside
torch's fused one. `bench_decode` takes `decode_cases()` and gives a `DecodeReport`: steps of dense
and routed models over a filled cache. `bench_bookkeeping` tells what metrics and checkpoints take
of a run's time, `bench_fit` how long `isoflop fit` takes on tables of a known law.
"""

from isoflop.bench.attention import (
    AttentionCase,
    AttentionReport,
    AttentionRow,
    attention_cases,
    bench_attention,
)
from isoflop.bench.attention_report import (
    attention_figure,
    attention_verdicts,
    describe_attention,
)
from isoflop.bench.bookkeeping import (
    BookkeepingReport,
    BookkeepingRow,
    bench_bookkeeping,
    describe_bookkeeping,
    standard_runs,
)
from isoflop.bench.cases import Case, Implementation, standard_groups, study_group
from isoflop.bench.decode import (
    DecodeCase,
    DecodeReport,
    DecodeRow,
    bench_decode,
    decode_cases,
)
from isoflop.bench.decode_report import decode_figure, decode_verdicts, describe_decode
from isoflop.bench.fits import FitReport, FitRow, bench_fit, describe_fit, law_table
from isoflop.bench.machine import busy, gemm_peak
from isoflop.bench.report import BenchReport, BenchRow, Ratio, Verdict, describe
from isoflop.bench.train import bench_train

__all__ = [
    "AttentionCase",
    "AttentionReport",
    "AttentionRow",
    "BenchReport",
    "BenchRow",
    "BookkeepingReport",
    "BookkeepingRow",
    "Case",
    "DecodeCase",
    "DecodeReport",
    "DecodeRow",
    "FitReport",
    "FitRow",
    "Implementation",
    "Ratio",
    "Verdict",
    "attention_cases",
    "attention_figure",
    "attention_verdicts",
    "bench_attention",
    "bench_bookkeeping",
    "bench_decode",
    "bench_fit",
    "bench_train",
    "busy",
    "decode_cases",
    "decode_figure",
    "decode_verdicts",
    "describe",
    "describe_attention",
    "describe_bookkeeping",
    "describe_decode",
    "describe_fit",
    "gemm_peak",
    "law_table",
    "standard_groups",
    "standard_runs",
    "study_group",
]
