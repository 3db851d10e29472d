"""The subcommands of `isoflop bench`: what is measured, and where the numbers go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from isoflop import storage
from isoflop.cli.main import ASKED
from isoflop.cli.options import RESULTS, Device, Json, NumberOfRanks, Results, tell
from isoflop.cli.study_models import precision_here, precisions_here, study_groups
from isoflop.config.load import load_study
from isoflop.hardware import usable_cores
from isoflop.hardware.ranks import place
from isoflop.text import quoted

bench = SubcommandApp()

Dtype = Annotated[
    Literal["fp32", "bf16"] | None,
    arg(metavar="fp32|bf16", help="Precision; the study's, else what is faster here."),
]
Threads = Annotated[int | None, arg(metavar="INT", help="CPU threads; all cores if left out.")]


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How a measurement is made, and where its rows go."""

    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Write rows and figure there as well."""
    force: Annotated[bool, arg(help="Measure although the machine is busy, and say so.")] = False
    json: Json = False

    def answer(
        self, report: Any, words: Iterable[str], name: str, out: Path | None, *, rows: bool = True
    ) -> None:
        """Write a report into a folder, if there is one; print rows or all as JSON, or words."""
        from isoflop.terminal.tables import show_json

        if out is not None:
            storage.write_json(out / name, report.model_dump(mode="json"))
            tell(f"wrote {out / name}")
        if self.json:
            show_json(report.rows if rows else report)
        else:
            print("\n".join(map(quoted, words)))


@bench.command(name="train")
@dataclass(frozen=True, kw_only=True)
class Train(Measuring):
    """Measure training steps per second, the contenders taking turns; or steps by --sizes.

    With --ranks: how much faster several processes make the dense steps than one of them.
    """

    study: Annotated[Path | None, Positional, arg(metavar="[STUDY]")] = None
    """Its models; else standard shapes."""
    sizes: Annotated[str | None, arg(metavar="N,N,...")] = None
    """In place of a study: parameters of published shapes, dense and MoD 12.5%, with memory and
    where the time of a step goes."""
    device: Annotated[Device, arg(help="What --sizes are trained on.")] = "cpu"
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the study lives, runs/NAME if left out; without a study, where the file goes."""
    results: Results = RESULTS
    threads: Annotated[int | None, arg(metavar="INT")] = None
    """CPU threads; 1 for a study, as its runs have, else all cores."""
    dtype: Dtype = None
    sequences: Annotated[int | None, arg(metavar="INT")] = None
    """Of a step of standard shapes; fewer take less time."""
    dense: Annotated[bool, arg(help="Without routed models, of standard shapes.")] = False
    ranks: NumberOfRanks = None

    def __call__(self) -> int:
        if self.ranks is not None:
            return self._ranks(self.ranks)
        if self.sizes is not None:
            self._sizes(self.sizes)
            return 0
        if self.device == "cuda":
            raise ValueError("--device cuda is given without --sizes, which it is about")
        import isoflop.bench as of
        from isoflop.sweep import Folders
        from isoflop.sweep.report import SPEEDS

        speeds = self.out
        if self.study is None:
            threads = usable_cores().count if self.threads is None else self.threads
            dtype = precision_here(self.dtype, threads)
            groups = of.standard_groups(dtype, sequences=self.sequences, routed=not self.dense)
        else:
            threads, asked = 1 if self.threads is None else self.threads, load_study(self.study)
            folders = Folders.of(asked, self.out, self.results)
            groups = study_groups(asked, folders, self.dtype)
            # The report shows the speed of the runs as they were trained.
            speeds = folders.root if self.dtype is None else None
        report = of.bench_train(groups, threads=threads, force=self.force, watch=tell)
        self.answer(report, of.describe(report), SPEEDS, speeds, rows=False)
        return 0

    def _ranks(self, ranks: int) -> int:
        """Measure the standard shapes' dense steps on several ranks, which are started first."""
        if self.study is not None or self.sizes is not None:
            raise ValueError("--ranks measures standard shapes; expected no study and no --sizes")
        if place() is None:
            from isoflop.cli.train import launch

            if ranks < 2:
                raise ValueError(f"--ranks is {ranks}; expected at least 2")
            return launch(ranks, ASKED)
        from isoflop.bench import standard_groups
        from isoflop.bench.ranks import bench_ranks, describe_ranks
        from isoflop.training import joined

        groups = standard_groups(self.dtype or "fp32", sequences=self.sequences, routed=False)
        with joined(self.device) as all_ranks:
            report = bench_ranks(
                [group[0].config for group in groups],
                all_ranks,
                threads=self.threads or max(1, usable_cores().count // ranks),
                device=self.device,
                force=self.force,
                watch=tell if all_ranks.leads else lambda _: None,
            )
        if report is not None:
            self.answer(report, describe_ranks(report), "ranks.json", self.out, rows=False)
        return 0

    def _sizes(self, listed: str) -> None:
        """Measure steps by size, and write and print what was found."""
        from isoflop.bench.scale import bench_scale, describe_scale, scale_environment

        if self.study is not None:
            raise ValueError("a study and --sizes are given; expected one of them")
        try:
            sizes = [float(size) for size in listed.split(",")]
        except ValueError:
            raise ValueError(
                f"--sizes is {listed!r}; expected numbers, like 124e6,300e6,1e9"
            ) from None
        threads = self.threads or usable_cores().count
        here = scale_environment(self.device, threads)
        precision = precision_here(self.dtype, threads, self.device)
        report = bench_scale(sizes, here, precision=precision, force=self.force, watch=tell)
        self.answer(report, describe_scale(report), "train.json", self.out, rows=False)


@bench.command(name="attention")
@dataclass(frozen=True, kw_only=True)
class Attention(Measuring):
    """Measure block attention beside full attention; the default takes about ten minutes."""

    lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
    """Tokens; twice the longest is measured forward only."""
    block_sizes: Annotated[tuple[int, ...], arg(help="Keys in a block.")] = (64, 128, 256, 512)
    top_k: Annotated[int, arg(help="Blocks that a query attends, its own among them.")] = 3
    dtype: Dtype = None
    threads: Threads = None

    def __call__(self) -> None:
        import isoflop.bench as of

        threads = self.threads or usable_cores().count
        cases = of.attention_cases(
            lengths=self.lengths,
            block_sizes=self.block_sizes,
            top_k=self.top_k,
            dtype=precision_here(self.dtype, threads),
            threads=threads,
        )
        report = of.bench_attention(cases, force=self.force, watch=tell)
        name = f"attention-{report.rows[0].dtype}.json"
        self.answer(report, of.describe_attention(report), name, self.out)
        if self.out is not None:
            from isoflop.bench.figures import attention_figure
            from isoflop.report.render import write_figure

            write_figure(attention_figure(report), self.out)


@bench.command(name="decode")
@dataclass(frozen=True, kw_only=True)
class Decode(Measuring):
    """Measure steps of generation, dense and routed; the default takes about ten minutes."""

    contexts: tuple[int, ...] = (256, 1024, 2048, 8192)
    """Tokens seen before the steps; multiples of 8."""
    batches: Annotated[tuple[int, ...], arg(help="Sequences decoded together.")] = (1, 16)
    threads: Annotated[tuple[int, ...] | None, arg(metavar="INT ...")] = None
    """CPU threads; 1 and 2 if left out."""
    dtype: Annotated[
        tuple[Literal["fp32", "bf16"], ...] | None,
        arg(metavar="fp32|bf16 ...", help="Of weights and cache; both, unless bf16 is slow here."),
    ] = None
    width: Annotated[int, arg(help="Of the models; a multiple of 64, the width of a head.")] = 512
    blocks: Annotated[int, arg(help="Of the models; every other one is routed.")] = 8

    def __call__(self) -> None:
        import isoflop.bench as of

        cases = of.decode_cases(
            contexts=self.contexts,
            batches=self.batches,
            threads=self.threads,
            dtypes=precisions_here(self.dtype, min(self.threads or (1,))),
            width=self.width,
            blocks=self.blocks,
        )
        report = of.bench_decode(cases, force=self.force, watch=tell)
        self.answer(report, of.describe_decode(report), "decode.json", self.out)


@bench.command(name="fit")
@dataclass(frozen=True, kw_only=True)
class Fit(Measuring):
    """Measure `isoflop fit` on tables of a known law; the default takes about a minute."""

    rows: Annotated[tuple[int, ...], arg(help="Runs of each table.")] = (250, 580)
    variants: Annotated[tuple[int, ...], arg(help="Variants that these are shared among.")] = (1, 3)
    resamples: Annotated[int, arg(help="Bootstrap samples behind each interval.")] = 1000
    rounds: Annotated[int, arg(help="How often each is timed.")] = 3

    def __call__(self) -> None:
        import isoflop.bench as of

        report = of.bench_fit(
            self.rows,
            self.variants,
            resamples=self.resamples,
            rounds=self.rounds,
            force=self.force,
            watch=tell,
        )
        self.answer(report, of.describe_fit(report), "fit.json", self.out)


@bench.command(name="memory")
@dataclass(frozen=True, kw_only=True)
class Memory(Measuring):
    """Measure peak memory of a training step beside its estimate; the default takes minutes."""

    width: Annotated[int, arg(help="Of the model; a multiple of 64, the width of a head.")] = 256
    blocks: Annotated[int, arg(help="Of the model.")] = 10
    vocabulary: Annotated[int, arg(help="Of the model.")] = 32_000
    sequence_length: Annotated[int, arg(help="Tokens of a sequence.")] = 1024
    sequences: Annotated[int, arg(help="Of a step.")] = 4
    dtype: Annotated[Literal["fp32", "bf16"], arg(metavar="fp32|bf16")] = "fp32"
    """Of products."""
    device: Annotated[Device, arg(help="Whose memory.")] = "cpu"
    threads: Threads = None

    def __call__(self) -> None:
        import isoflop.bench as of

        config = of.memory_config(
            width=self.width,
            blocks=self.blocks,
            vocabulary=self.vocabulary,
            sequence_length=self.sequence_length,
            sequences=self.sequences,
            dtype=self.dtype,
        )
        threads = self.threads or usable_cores().count
        cases = of.memory_cases(config, device=self.device, threads=threads)
        report = of.bench_memory(cases, force=self.force, watch=tell)
        self.answer(report, of.describe_memory(report), "memory.json", self.out)
