"""What training, attention, decoding, memory and fits take on the machine at hand.

Every measurement gives a `Report`, whose `model_dump(mode="json")` is what lies in
`runs/NAME/bench.json` and in `results/bench`, and has a function that describes it.
`bench_train` takes groups of cases: `standard_groups()` are the fixed comparison with Hugging
Face's Llama, `study_group(models)` the numbered models of a study. `bench_attention` takes
`attention_cases()`: block attention beside torch's fused one. `bench_decode` takes
`decode_cases()`: steps of dense and routed models over a filled cache. `bench_fit` tells how long
`isoflop fit` takes on tables of a known law, and `bench_memory` what `memory_cases(config)` hold at
most: a step in several ways beside its estimate.
"""

from isoflop.bench.attention import (
    AttentionReport,
    attention_cases,
    bench_attention,
    describe_attention,
)
from isoflop.bench.cases import Case, standard_groups, study_group
from isoflop.bench.decode import DecodeReport, bench_decode, decode_cases, describe_decode
from isoflop.bench.fits import FitReport, bench_fit, describe_fit
from isoflop.bench.memory import (
    MemoryReport,
    bench_memory,
    describe_memory,
    memory_cases,
    memory_config,
)
from isoflop.bench.train import BenchReport, bench_train, describe
