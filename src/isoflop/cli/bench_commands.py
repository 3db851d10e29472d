"""The subcommands of `isoflop bench`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel
from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from isoflop.cli.options import CACHE, RESULTS, RUNS, Cache, Force, Json, Out, Results, RowsOut
from isoflop.text import quoted

bench = SubcommandApp()

Dtype = Annotated[
    Literal["fp32", "bf16"] | None,
    arg(metavar="fp32|bf16", help="Precision; the study's, else what is faster here."),
]


@bench.command(name="train")
def bench_train(
    study: Annotated[
        Path | None, Positional, arg(metavar="[STUDY]", help="Its models; else standard shapes.")
    ] = None,
    out: Out = None,
    results: Results = RESULTS,
    threads: Annotated[
        int | None,
        arg(metavar="INT", help="CPU threads; 1 for a study, as its runs have, else all cores."),
    ] = None,
    dtype: Dtype = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure training steps per second, the contenders taking turns."""
    from isoflop.bench import describe, standard_groups
    from isoflop.cli.benching import bench_precision, keep, measure, study_groups
    from isoflop.cli.tables import show_json
    from isoflop.config.load import load_study
    from isoflop.hardware import usable_cores

    if study is None:
        cores = usable_cores().count if threads is None else threads
        report = measure(standard_groups(bench_precision(dtype, cores)), cores, force)
    else:
        asked = load_study(study)
        root = out or RUNS / asked.name
        groups = study_groups(asked, root, results, dtype)
        report = measure(groups, 1 if threads is None else threads, force)
        # The report shows the speed of the runs as they were trained.
        if dtype is None:
            print(quoted(f"wrote {keep(report, root)}"), file=sys.stderr)
    if json:
        show_json(report.model_dump(mode="json"))
    else:
        print("\n".join(map(quoted, describe(report))))


@bench.command(name="attention")
def bench_attention(
    lengths: Annotated[
        tuple[int, ...], arg(help="Tokens; twice the longest is measured forward only.")
    ] = (1024, 2048, 4096, 8192, 16384, 32768, 65536),
    block_sizes: Annotated[tuple[int, ...], arg(help="Keys in a block.")] = (64, 128, 256, 512),
    top_k: Annotated[int, arg(help="Blocks that a query attends, its own among them.")] = 3,
    dtype: Dtype = None,
    threads: Annotated[
        int | None, arg(metavar="INT", help="CPU threads; all cores if left out.")
    ] = None,
    out: RowsOut = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure block attention beside full attention; the default takes about ten minutes."""
    from isoflop.bench import attention_cases, describe_attention
    from isoflop.bench import bench_attention as run
    from isoflop.cli.benching import bench_precision, keep_attention, tell
    from isoflop.hardware import usable_cores

    threads = threads or usable_cores().count
    cases = attention_cases(
        lengths=lengths,
        block_sizes=block_sizes,
        top_k=top_k,
        dtype=bench_precision(dtype, threads),
        threads=threads,
    )
    report = run(cases, force=force, watch=tell)
    _show_rows(
        report.rows,
        describe_attention(report),
        written=None if out is None else keep_attention(report, out),
        json=json,
    )


@bench.command(name="decode")
def bench_decode(
    contexts: Annotated[
        tuple[int, ...], arg(help="Tokens seen before the steps; multiples of 8.")
    ] = (256, 1024, 2048, 8192),
    batches: Annotated[tuple[int, ...], arg(help="Sequences decoded together.")] = (1, 16),
    threads: Annotated[
        tuple[int, ...] | None, arg(metavar="INT ...", help="CPU threads; 1 and 2 if left out.")
    ] = None,
    dtype: Annotated[
        tuple[Literal["fp32", "bf16"], ...] | None,
        arg(metavar="fp32|bf16 ...", help="Of weights and cache; both, unless bf16 is slow here."),
    ] = None,
    width: Annotated[int, arg(help="Of the models; a multiple of 64, the width of a head.")] = 512,
    blocks: Annotated[int, arg(help="Of the models; every other one is routed.")] = 8,
    out: RowsOut = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure steps of generation, dense and routed; the default takes about ten minutes."""
    from isoflop.bench import bench_decode as run
    from isoflop.bench import decode_cases, describe_decode
    from isoflop.cli.benching import bench_precisions, keep_decode, tell

    cases = decode_cases(
        contexts=contexts,
        batches=batches,
        threads=threads,
        dtypes=bench_precisions(dtype, min(threads or (1,))),
        width=width,
        blocks=blocks,
    )
    report = run(cases, force=force, watch=tell)
    _show_rows(
        report.rows,
        describe_decode(report),
        written=None if out is None else keep_decode(report, out),
        json=json,
    )


@bench.command(name="bookkeeping")
def bench_bookkeeping(
    study: Annotated[
        Path | None,
        Positional,
        arg(metavar="[STUDY]", help="Its smallest and largest model; else standard shapes."),
    ] = None,
    seconds: Annotated[float, arg(help="Time for each model; checkpoints come every 30 s.")] = 100,
    cache: Cache = CACHE,
    out: RowsOut = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure what share of training time metrics and checkpoints take."""
    from isoflop.bench import describe_bookkeeping
    from isoflop.cli.benching import keep_bookkeeping, measure_bookkeeping
    from isoflop.config.load import load_study

    report = measure_bookkeeping(
        None if study is None else load_study(study),
        cache=cache,
        runs=RUNS,
        results=RESULTS,
        seconds=seconds,
        force=force,
    )
    _show_rows(
        report.rows,
        describe_bookkeeping(report),
        written=None if out is None else keep_bookkeeping(report, out),
        json=json,
    )


@bench.command(name="fit")
def bench_fit(
    rows: Annotated[tuple[int, ...], arg(help="Runs of each table.")] = (250, 580),
    variants: Annotated[tuple[int, ...], arg(help="Variants that these are shared among.")] = (
        1,
        3,
    ),
    resamples: Annotated[int, arg(help="Bootstrap samples behind each interval.")] = 1000,
    rounds: Annotated[int, arg(help="How often each is timed.")] = 3,
    out: RowsOut = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure `isoflop fit` on tables of a known law; the default takes about a minute."""
    from isoflop.bench import bench_fit as run
    from isoflop.bench import describe_fit
    from isoflop.cli.benching import keep_fit, tell

    report = run(rows, variants, resamples=resamples, rounds=rounds, force=force, watch=tell)
    _show_rows(
        report.rows,
        describe_fit(report),
        written=None if out is None else keep_fit(report, out),
        json=json,
    )


def _show_rows(
    rows: Sequence[BaseModel], words: Sequence[str], *, written: Path | None, json: bool
) -> None:
    """Print what was measured, as JSON or in words, and tell where it was written."""
    from isoflop.cli.benching import tell
    from isoflop.cli.tables import show_json

    if written is not None:
        tell(quoted(f"wrote {written}"))
    if json:
        show_json([row.model_dump(mode="json") for row in rows])
    else:
        print("\n".join(words))
