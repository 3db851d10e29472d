"""The subcommands of `isoflop bench`: what is measured, and where the numbers go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from isoflop import storage
from isoflop.cli.main import ASKED
from isoflop.cli.options import (
    CACHE,
    RESULTS,
    RUNS,
    Cache,
    Device,
    Force,
    Json,
    NumberOfRanks,
    Results,
    RowsOut,
)
from isoflop.cli.study_models import (
    precision_here,
    precisions_here,
    settled_here,
    study_groups,
)
from isoflop.config.load import load_study
from isoflop.text import quoted

bench = SubcommandApp()

Dtype = Annotated[
    Literal["fp32", "bf16"] | None,
    arg(metavar="fp32|bf16", help="Precision; the study's, else what is faster here."),
]


@dataclass(frozen=True)
class TrainOptions:
    """What is measured of training."""

    study: Annotated[
        Path | None, Positional, arg(metavar="[STUDY]", help="Its models; else standard shapes.")
    ] = None
    sizes: Annotated[
        str | None,
        arg(
            metavar="N,N,...",
            help="In place of a study: parameters of published shapes, dense and MoD 12.5%, with "
            "memory and where the time of a step goes.",
        ),
    ] = None
    device: Annotated[Device, arg(help="What --sizes are trained on.")] = "cpu"
    out: Annotated[
        Path | None,
        arg(
            metavar="FOLDER",
            help="Where the study lives, runs/NAME if left out; where train.json of --sizes goes.",
        ),
    ] = None
    results: Results = RESULTS
    threads: Annotated[
        int | None,
        arg(metavar="INT", help="CPU threads; 1 for a study, as its runs have, else all cores."),
    ] = None
    dtype: Dtype = None
    sequences: Annotated[
        int | None, arg(metavar="INT", help="Of a step of standard shapes; fewer take less time.")
    ] = None
    dense: Annotated[bool, arg(help="Without routed models, of standard shapes.")] = False
    ranks: NumberOfRanks = None
    force: Force = False
    json: Json = False


@bench.command(name="train")
def bench_train(options: Annotated[TrainOptions, arg(name="")]) -> int | None:
    """Measure training steps per second, the contenders taking turns; or steps by --sizes.

    With --ranks: how much faster several processes make the dense steps than one of them.
    """
    import isoflop.bench as of
    from isoflop.hardware import usable_cores
    from isoflop.sweep import Folders
    from isoflop.sweep.report import SPEEDS

    study, threads, dtype = options.study, options.threads, options.dtype
    if options.ranks is not None:
        return _bench_ranks(options, options.ranks)
    if options.sizes is not None:
        _bench_sizes(options, options.sizes)
        return None
    if options.device == "cuda":
        raise ValueError("--device cuda is given without --sizes, which it is about")
    speeds = None
    if study is None:
        cores = usable_cores().count if threads is None else threads
        groups = of.standard_groups(
            precision_here(dtype, cores), sequences=options.sequences, routed=not options.dense
        )
    else:
        asked = load_study(study)
        folders = Folders.of(asked, options.out, options.results)
        groups = study_groups(asked, folders, dtype)
        cores = 1 if threads is None else threads
        # The report shows the speed of the runs as they were trained.
        speeds = folders.root if dtype is None else None
    report = of.bench_train(groups, threads=cores, force=options.force, watch=_tell)
    _answer(report, of.describe(report), speeds, SPEEDS, json=options.json, rows=False)
    return None


def _bench_ranks(options: TrainOptions, ranks: int) -> int:
    """Measure the standard shapes' dense steps on several ranks, which are started first."""
    from isoflop.cli.launching import launch
    from isoflop.hardware import usable_cores
    from isoflop.hardware.ranks import place

    if options.study is not None or options.sizes is not None:
        raise ValueError("--ranks measures standard shapes; expected no study and no --sizes")
    if place() is None:
        if ranks < 2:
            raise ValueError(f"--ranks is {ranks}; expected at least 2")
        return launch(ranks, ASKED)
    from isoflop.bench import standard_groups
    from isoflop.bench.ranks import bench_ranks, describe_ranks
    from isoflop.training import joined

    threads = options.threads or max(1, usable_cores().count // ranks)
    groups = standard_groups(options.dtype or "fp32", sequences=options.sequences, routed=False)
    with joined(options.device) as all_ranks:
        report = bench_ranks(
            [group[0].config for group in groups],
            all_ranks,
            threads=threads,
            device=options.device,
            force=options.force,
            watch=_tell if all_ranks.leads else lambda _: None,
        )
    if report is not None:
        words = describe_ranks(report)
        _answer(report, words, options.out, "ranks.json", json=options.json, rows=False)
    return 0


def _bench_sizes(options: TrainOptions, listed: str) -> None:
    """Measure steps by size, and write and print what was found."""
    from isoflop.bench.scale import bench_scale, describe_scale, scale_environment
    from isoflop.hardware import usable_cores

    if options.study is not None:
        raise ValueError("a study and --sizes are given; expected one of them")
    try:
        sizes = [float(size) for size in listed.split(",")]
    except ValueError:
        raise ValueError(f"--sizes is {listed!r}; expected numbers, like 124e6,300e6,1e9") from None
    threads = options.threads or usable_cores().count
    here = scale_environment(options.device, threads)
    report = bench_scale(
        sizes,
        here,
        precision=precision_here(options.dtype, threads, options.device),
        force=options.force,
        watch=_tell,
    )
    words = describe_scale(report)
    _answer(report, words, options.out, "train.json", json=options.json, rows=False)


@dataclass(frozen=True)
class AttentionOptions:
    """What is measured of attention."""

    lengths: Annotated[
        tuple[int, ...], arg(help="Tokens; twice the longest is measured forward only.")
    ] = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
    block_sizes: Annotated[tuple[int, ...], arg(help="Keys in a block.")] = (64, 128, 256, 512)
    top_k: Annotated[int, arg(help="Blocks that a query attends, its own among them.")] = 3
    dtype: Dtype = None
    threads: Annotated[
        int | None, arg(metavar="INT", help="CPU threads; all cores if left out.")
    ] = None
    out: RowsOut = None
    force: Force = False
    json: Json = False


@bench.command(name="attention")
def bench_attention(options: Annotated[AttentionOptions, arg(name="")]) -> None:
    """Measure block attention beside full attention; the default takes about ten minutes."""
    import isoflop.bench as of
    from isoflop.hardware import usable_cores

    threads = options.threads or usable_cores().count
    cases = of.attention_cases(
        lengths=options.lengths,
        block_sizes=options.block_sizes,
        top_k=options.top_k,
        dtype=precision_here(options.dtype, threads),
        threads=threads,
    )
    report = of.bench_attention(cases, force=options.force, watch=_tell)
    name = f"attention-{report.rows[0].dtype}.json"
    _answer(report, of.describe_attention(report), options.out, name, json=options.json)
    if options.out is not None:
        from isoflop.bench.figures import attention_figure
        from isoflop.report.render import write_figure

        write_figure(attention_figure(report), options.out)


@dataclass(frozen=True)
class DecodeOptions:
    """What is measured of generation."""

    contexts: Annotated[
        tuple[int, ...], arg(help="Tokens seen before the steps; multiples of 8.")
    ] = (256, 1024, 2048, 8192)
    batches: Annotated[tuple[int, ...], arg(help="Sequences decoded together.")] = (1, 16)
    threads: Annotated[
        tuple[int, ...] | None, arg(metavar="INT ...", help="CPU threads; 1 and 2 if left out.")
    ] = None
    dtype: Annotated[
        tuple[Literal["fp32", "bf16"], ...] | None,
        arg(metavar="fp32|bf16 ...", help="Of weights and cache; both, unless bf16 is slow here."),
    ] = None
    width: Annotated[int, arg(help="Of the models; a multiple of 64, the width of a head.")] = 512
    blocks: Annotated[int, arg(help="Of the models; every other one is routed.")] = 8
    out: RowsOut = None
    force: Force = False
    json: Json = False


@bench.command(name="decode")
def bench_decode(options: Annotated[DecodeOptions, arg(name="")]) -> None:
    """Measure steps of generation, dense and routed; the default takes about ten minutes."""
    import isoflop.bench as of

    cases = of.decode_cases(
        contexts=options.contexts,
        batches=options.batches,
        threads=options.threads,
        dtypes=precisions_here(options.dtype, min(options.threads or (1,))),
        width=options.width,
        blocks=options.blocks,
    )
    report = of.bench_decode(cases, force=options.force, watch=_tell)
    _answer(report, of.describe_decode(report), options.out, "decode.json", json=options.json)


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
    import isoflop.bench as of
    from isoflop.costs import parameters
    from isoflop.planning import foreseen_runs
    from isoflop.sweep import Folders

    if study is None:
        configs = of.standard_runs(precision_here(None, 1))
    else:
        asked = load_study(study)
        runs = foreseen_runs(settled_here(asked, Folders.of(asked)))
        ordered = sorted((run.config for run in runs), key=lambda one: parameters(one.model).total)
        configs = (ordered[0], ordered[-1])
    storage.make_folder(RUNS)
    # The runs live in a folder of their own and are thrown away.
    with TemporaryDirectory(dir=RUNS, prefix=storage.TEMPORARY) as folder:
        report = of.bench_bookkeeping(
            configs, cache=cache, folder=Path(folder), seconds=seconds, force=force, watch=_tell
        )
    _answer(report, of.describe_bookkeeping(report), out, "bookkeeping.json", json=json)


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
    import isoflop.bench as of

    report = of.bench_fit(
        rows, variants, resamples=resamples, rounds=rounds, force=force, watch=_tell
    )
    _answer(report, of.describe_fit(report), out, "fit.json", json=json)


@dataclass(frozen=True)
class MemoryOptions:
    """What is held of which step."""

    width: Annotated[int, arg(help="Of the model; a multiple of 64, the width of a head.")] = 256
    blocks: Annotated[int, arg(help="Of the model.")] = 10
    vocabulary: Annotated[int, arg(help="Of the model.")] = 32_000
    sequence_length: Annotated[int, arg(help="Tokens of a sequence.")] = 1024
    sequences: Annotated[int, arg(help="Of a step.")] = 4
    dtype: Annotated[Literal["fp32", "bf16"], arg(metavar="fp32|bf16", help="Of products.")] = (
        "fp32"
    )
    device: Annotated[Device, arg(help="Whose memory.")] = "cpu"
    threads: Annotated[
        int | None, arg(metavar="INT", help="CPU threads; all cores if left out.")
    ] = None
    out: RowsOut = None
    force: Force = False
    json: Json = False


@bench.command(name="memory")
def bench_memory(options: Annotated[MemoryOptions, arg(name="")]) -> None:
    """Measure peak memory of a training step beside its estimate; the default takes minutes."""
    import isoflop.bench as of
    from isoflop.hardware import usable_cores

    config = of.memory_config(
        width=options.width,
        blocks=options.blocks,
        vocabulary=options.vocabulary,
        sequence_length=options.sequence_length,
        sequences=options.sequences,
        dtype=options.dtype,
    )
    threads = options.threads or usable_cores().count
    cases = of.memory_cases(config, device=options.device, threads=threads)
    report = of.bench_memory(cases, force=options.force, watch=_tell)
    _answer(report, of.describe_memory(report), options.out, "memory.json", json=options.json)


def _answer(
    report: Any, words: Sequence[str], out: Path | None, name: str, *, json: bool, rows: bool = True
) -> None:
    """Write a report into a folder, if one is given; print its rows or all as JSON, or words."""
    from isoflop.terminal.tables import show_json

    told = report.model_dump(mode="json")
    if out is not None:
        storage.write_json(out / name, told)
        _tell(quoted(f"wrote {out / name}"))
    if json:
        show_json(told["rows"] if rows else told)
    else:
        print("\n".join(map(quoted, words)))


def _tell(text: str) -> None:
    """Tell on standard error what goes on."""
    print(text, file=sys.stderr, flush=True)
