"""The subcommands on one model: train it, measure it, let it write."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from isoflop.cli.main import INTERRUPTED, TERMINATED
from isoflop.cli.options import (
    CACHE,
    RESULTS,
    RUNS,
    Cache,
    CapTokens,
    CapWindow,
    Checkpoint,
    ConfigFile,
    Device,
    MemoryGib,
    MicroBatchTokens,
    NumberOfRanks,
    Out,
    Recomputed,
    Results,
    TorchThreads,
    Track,
    bytes_of,
    cap_of,
)
from isoflop.config import Decision
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.config import Evaluation, RunConfig, RunRecord
    from isoflop.runs import RunFolder
    from isoflop.trained import Wishes
    from isoflop.training.loop import RunExecutionKeywords


@dataclass(frozen=True)
class TrainOptions:
    """How one model is trained."""

    out: Out = None
    results: Results = RESULTS
    cache: Cache = CACHE
    device: Device = "cpu"
    threads: Annotated[int | None, arg(metavar="INT", help="CPU threads of torch.")] = None
    memory_gib: MemoryGib = None
    micro_batch_tokens: MicroBatchTokens = "auto"
    recompute: Recomputed = "auto"
    ranks: NumberOfRanks = None
    rank_timeout: Annotated[
        float, arg(metavar="SECONDS", help="That a rank waits for the others before it gives up.")
    ] = 600.0
    shard: Annotated[
        Literal["auto", "yes", "no"],
        arg(help="Whether each rank holds a part of the blocks; auto where the whole is too much."),
    ] = "auto"
    track: Track = None


def train(
    config: ConfigFile,
    options: Annotated[TrainOptions, arg(name="")],
    run_id: Annotated[
        str | None, Positional, arg(metavar="[RUN_ID]", help="Which run of a study.")
    ] = None,
) -> int:
    """Train one model: a run file, or one run of a study. After Ctrl-C it goes on.

    With --ranks, or started by torchrun or srun, several processes train it together.
    """
    from isoflop.config import RunConfig
    from isoflop.config.load import load
    from isoflop.hardware.ranks import place
    from isoflop.runs import RunStore
    from isoflop.sweep import Folders
    from isoflop.sweep.plan import run_of
    from isoflop.tracking import tracking

    found, shared = load(config), None
    if isinstance(found, RunConfig):
        run, folder = found, RunStore(options.out or RUNS / "single").folder(found.run_id)
    elif run_id is None:
        raise ValueError(
            f"{config} is a study; name one of the runs that `isoflop plan {config}` lists, "
            f"or train all of it: isoflop run {config}"
        )
    else:
        run, folder = run_of(found, Folders.of(found, options.out, options.results), run_id)
        shared = found.shares_up_to
    study, here = "single" if isinstance(found, RunConfig) else found.name, place()
    leads = here is None or here.rank == 0
    kind = None if (here is None and options.ranks) or not leads else options.track
    with tracking(folder.path.parent.parent, kind, study, run.run_id):
        return _train(run, folder, options, shared)


def _train(
    config: RunConfig, folder: RunFolder, options: TrainOptions, shares_up_to: float | None
) -> int:
    """Train a run to its end, print its outcome, and return the exit code."""
    from isoflop.hardware.ranks import place
    from isoflop.memory import sequences_held
    from isoflop.planning import check_capacity
    from isoflop.sweep.interrupts import Terminated, stop_signals
    from isoflop.terminal.progress import watching

    how: RunExecutionKeywords = {
        "device": options.device,
        "threads": options.threads,
        "memory_bytes": bytes_of(options.memory_gib),
        "micro_batch_tokens": options.micro_batch_tokens,
        "recompute": options.recompute,
        "shares_up_to": shares_up_to,
        "shard": "auto" if options.shard == "auto" else options.shard == "yes",
    }
    check_capacity(config.model.depth, config.data.sequence_length, "model.")
    if isinstance(options.micro_batch_tokens, int):
        sequences_held(config, options.micro_batch_tokens)
    here = place()
    if options.ranks is not None and here is None:
        from isoflop.cli.launching import launch_run

        # Who is one of several knows its place, so that none of them starts others.
        return launch_run(config, folder, options.ranks)
    if here is None or here.rank == 0:
        print(quoted(f"run {config.run_id} in {folder.path}"), file=sys.stderr)
    # Torch takes seconds to load, which nobody should wait for to read of a mistake.
    from isoflop.training import Interrupted, follow, joined
    from isoflop.training import train as train_run

    with stop_signals() as wish, joined(options.device, options.rank_timeout) as ranks:
        how |= {"ranks": ranks}
        try:
            if not ranks.leads:
                follow(config, folder, cache=options.cache, stop=lambda: wish.to_stop, **how)
                return 0
            _tell_if_slow(config, folder, options)
            with watching() as watch:
                record = train_run(
                    config,
                    folder,
                    cache=options.cache,
                    stop=lambda: wish.to_stop,
                    watch=watch,
                    tell=lambda now: print(
                        f"preparing the corpus: {now.words}", file=sys.stderr, flush=True
                    ),
                    **how,
                )
        except Interrupted as error:
            # Another rank was asked where this one was not.
            by_key = not wish.by_sigterm and (wish.to_stop or ranks.world == 1)
            if not ranks.leads:
                return INTERRUPTED if by_key else TERMINATED
            raise KeyboardInterrupt if by_key else Terminated from error
    return _outcome(record, folder)


def _outcome(record: RunRecord, folder: RunFolder) -> int:
    """Print what came of a run and return the exit code."""
    told = [f"{record.state}: {record.reason}" if record.reason else record.state]
    told += [
        f"{one.split} loss {one.loss:.4f} nats/token{_per_byte(one)} ({one.decision}"
        + (", averaged weights)" if one.weights == "average" else ")")
        for one in record.evaluations
    ]
    if folder.checkpoints.is_dir():
        told.append(f"checkpoint: {folder.checkpoints}")
    print("\n".join(map(quoted, told)))
    return 0 if record.state == "finished" else 1


def _per_byte(one: Evaluation) -> str:
    return "" if one.bits_per_byte is None else f", {one.bits_per_byte:.4f} bits/byte"


def _tell_if_slow(config: RunConfig, folder: RunFolder, options: TrainOptions) -> None:
    """Warn of a run that is to be trained in a precision that is slow here."""
    from isoflop.hardware import usable_cores
    from isoflop.trained import slow_precision

    if folder.record() is not None or options.device == "cuda":
        return
    threads = options.threads or usable_cores().count
    slow = slow_precision(config, device=options.device, threads=threads)
    if slow is not None:
        told = f'{slow}; precision = "fp32" under [recipe] makes it another run, and a fast one'
        print(quoted(f"warning: {told}"), file=sys.stderr)


@dataclass(frozen=True)
class SampleOptions:
    """What text is asked for, and how it is shown."""

    prompt: Annotated[str, arg(metavar="TEXT", help="What is continued.")] = ""
    tokens: Annotated[int, arg(help="Tokens to draw, unless the document ends before.")] = 200
    temperature: Annotated[float, arg(help="Divides the logits; 0 takes the likeliest.")] = 0.8
    top_k: Annotated[
        int | None, arg(metavar="INT", help="Draw from so many likely tokens; all else.")
    ] = None
    top_p: Annotated[float, arg(help="Draw from the likeliest of this probability.")] = 1.0
    min_p: Annotated[
        float, arg(help="Draw from tokens at least so many times as likely as the likeliest.")
    ] = 0.0
    seed: Annotated[int, arg(help="The same seed gives the same text.")] = 0
    decision: Annotated[
        Decision | None, arg(help="Who decides, not top_k; the model's headline decision else.")
    ] = None
    cap_window: CapWindow = None
    cap_tokens: CapTokens = None
    cache: Cache = CACHE
    threads: TorchThreads = None
    plain: Annotated[bool, arg(help="Text without colours.")] = False
    write: Annotated[
        bool, arg(help="Keep it as sample.json in the run's folder, for the report.")
    ] = False
    json: Annotated[bool, arg(help="Print JSON when it is done, in place of text.")] = False

    @property
    def wishes(self) -> Wishes:
        """What text is asked for."""
        from isoflop.trained import Wishes

        told = {one.name: getattr(self, one.name) for one in fields(Wishes) if one.name != "cap"}
        return Wishes(**told, cap=cap_of(self.cap_window, self.cap_tokens))


def sample(
    checkpoint: Checkpoint,
    options: Annotated[SampleOptions, arg(name="")],
) -> None:
    """Generate text, each token coloured by how many routed blocks processed it."""
    from isoflop.runs import RunFolder
    from isoflop.terminal.sample import TextDisplay, summary
    from isoflop.terminal.tables import show_json
    from isoflop.trained import sample_run

    folder, wishes = RunFolder(checkpoint), options.wishes
    if options.json:
        found = sample_run(folder, wishes, cache=options.cache, threads=options.threads)
        show_json(found.model_dump(mode="json"))
    else:
        routed = len(folder.config().model.routed_blocks)
        with TextDisplay(routed, plain=options.plain) as display:
            found = sample_run(
                folder, wishes, cache=options.cache, show=display.show, threads=options.threads
            )
        print(summary(found), file=sys.stderr)
    if options.write:
        with folder.claim():
            written = folder.write_sample(found)
        print(quoted(f"wrote {written}"), file=sys.stderr)


@dataclass(frozen=True)
class ConversionOptions:
    """Which way, and what changes on it."""

    to: Annotated[Literal["hf"] | None, arg(help="SOURCE is a run's folder.")] = None
    from_: Annotated[
        Literal["hf"] | None,
        arg(name="from", help="SOURCE is a folder of transformers, or OWNER/NAME of the hub."),
    ] = None
    as_: Annotated[
        tuple[str, ...],
        arg(
            name="as",
            metavar="CHOICE...",
            help="Choices to put in place of its own, such as depth=top_k:0.125; with --from.",
        ),
    ] = ()
    decision: Annotated[
        Decision | None, arg(help="Who routes when it writes; the headline decision else.")
    ] = None
    remote_code: Annotated[
        bool, arg(help="Also write a module for trust_remote_code; with --to.")
    ] = False
    cache: Cache = CACHE


def convert(
    source: Annotated[str, Positional, arg(metavar="SOURCE", help="What is read.")],
    options: Annotated[ConversionOptions, arg(name="")],
    out: Annotated[
        Path | None, Positional, arg(metavar="[OUT]", help="Folder to write; SOURCE-hf else.")
    ] = None,
) -> None:
    """Write a run's model for transformers (--to hf), or read one from there (--from hf)."""
    from isoflop.interop import export_run, import_checkpoint, parsed_choices
    from isoflop.runs import RunFolder

    if (options.to is None) == (options.from_ is None):
        raise ValueError(
            "expected one of --to hf (a run goes out) and --from hf (a model comes in)"
        )
    target = out or Path(f"{Path(source).name}-{'hf' if options.to else 'isoflop'}")
    if options.to:
        if options.as_:
            raise ValueError("--as changes a model that comes in; expected it with --from hf")
        written = export_run(
            RunFolder(Path(source)),
            target,
            cache=options.cache,
            decision=options.decision,
            remote_code=options.remote_code,
        )
        told = f"{written.architecture}" + ("" if written.tokenizer else ", without a tokeniser")
        told += ", read with trust_remote_code=True" if written.remote else ""
        print(quoted(f"wrote {target}: {told}"))
        return
    found = import_checkpoint(source, target, parsed_choices(options.as_))
    added = f"; new weights: {len(found.added)}" if found.added else ""
    print(
        quoted(f"wrote {target}: {found.model.blocks} blocks of width {found.model.width}{added}")
    )
