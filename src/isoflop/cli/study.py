"""The subcommands on a study, from its file to its report."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, replace
from importlib.resources import files
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from isoflop.cli.options import (
    CACHE,
    RESULTS,
    STALL_MINUTES,
    Cache,
    ConfigFile,
    Device,
    Json,
    MemoryGib,
    MicroBatchTokens,
    Out,
    Recomputed,
    Results,
    StallMinutes,
    StudyFile,
    Track,
    Workers,
    bytes_of,
)
from isoflop.config.load import load_study
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.config import Study
    from isoflop.sweep import Execution, Folders, Outcome

SCHEMA_NAME = "isoflop-study.schema.json"
"""What the first line of the starter study points editors at."""


def init(
    path: Annotated[Path, Positional, arg(metavar="[PATH]", help="Where to write it.")] = Path(
        "study.toml"
    ),
    variant: Annotated[
        Path | None, arg(metavar="FILE", help="Also write a variant of your own to start from.")
    ] = None,
) -> None:
    """Write a commented study to start from, and its JSON Schema for editors beside it.

    With --variant the study compares it to the baseline; a study that exists is left as it is.
    """
    from isoflop import storage
    from isoflop.config.load import schema_text
    from isoflop.config.own import kind_of

    schema_path, schema = path.parent / SCHEMA_NAME, schema_text()
    texts = {path: starter_text()}
    if variant is not None:
        kind, beside = kind_of(variant), Path(os.path.relpath(variant, path.parent)).as_posix()
        table = f'name = "Mine"\ndepth = {{ kind = "{kind}", from = {dumps(beside)} }}\n'
        plain = texts[path].partition("\n# Mixture-of-Depths")[0]
        texts[path] = (
            f"{plain}\n# Yours; settings of its Config may stand beside.\n[[variants]]\n{table}"
        )
        if os.path.lexists(path):
            del texts[path]
        texts[variant] = starter_text("starter_variant.txt")
    for one in texts:
        if os.path.lexists(one):
            raise ValueError(f"{one} exists and is not overwritten; name another file")
    if path in texts:
        if os.path.lexists(schema_path) and schema_path.read_bytes() != schema.encode():
            raise ValueError(
                f"{schema_path} is of another version and is not overwritten; remove it first"
            )
        texts[schema_path] = schema
    for one, text in texts.items():
        storage.write_text(one, text)
        print(quoted(f"wrote {one}"))
    if path not in texts:
        print(quoted(f"add to {path}, under [[variants]]:"))
        print("".join(f"  {quoted(line)}\n" for line in table.splitlines()), end="")
    print(quoted(f"next: isoflop {f'plan {path}' if variant is None else f'check {variant}'}"))


def starter_text(name: str = "starter.toml") -> str:
    """Return the commented study to start from, as TOML, or what else is to be started from."""
    return files("isoflop.cli").joinpath(name).read_text(encoding="utf-8")


def costs(
    config: ConfigFile,
    json: Json = False,
) -> None:
    """Show parameters, FLOPs and cache bytes; of a study, at the sizes expected to be best."""
    from isoflop.config.load import load
    from isoflop.planning.plan import cost_rows
    from isoflop.terminal.plan import cost_tables
    from isoflop.terminal.tables import answer

    rows = cost_rows(load(config))
    answer([row.model_dump(mode="json") for row in rows], cost_tables(rows), json=json)


@dataclass(frozen=True)
class PlanOptions:
    """What a study is planned for."""

    accelerator: Annotated[
        str | None, arg(metavar="NAME", help="Device to plan for, in place of this machine.")
    ] = None
    utilisation: Annotated[
        float | None,
        arg(metavar="SHARE", help="Achieved over peak FLOP/s where not measured; 0.4 else."),
    ] = None
    bench: Annotated[
        Path | None,
        arg(metavar="FILE", help="Measured steps: RESULTS/gpu/train.json if of that device."),
    ] = None
    price_per_hour: Annotated[
        float | None, arg(metavar="PRICE", help="Of a device; adds the cost in that currency.")
    ] = None
    workers: Workers = None
    memory_gib: MemoryGib = None
    noise_from: Annotated[
        Path | None,
        arg(metavar="STUDY|FOLDER", help="Study whose runs tell the noise; its own if left out."),
    ] = None
    results: Results = RESULTS
    cache: Cache = CACHE
    json: Json = False


def plan(study: StudyFile, options: Annotated[PlanOptions, arg(name="")]) -> None:
    """Show what a study would train and what that takes, before any training."""
    from isoflop import sweep
    from isoflop.terminal.plan import plan_tables
    from isoflop.terminal.tables import answer

    price, device = options.price_per_hour, options.accelerator
    for name in ("bench", "price_per_hour", "utilisation"):
        if device is None and getattr(options, name) is not None:
            name = name.replace("_", "-")
            raise ValueError(f"--{name} is given without --accelerator, which it is about")
    if price is not None and not 0 <= price < math.inf:
        raise ValueError(f"--price-per-hour is {price}; expected a number from 0 on")
    asked = load_study(study)
    machine = sweep.Machine(
        device, options.utilisation, options.bench, options.workers, bytes_of(options.memory_gib)
    )
    folders = sweep.Folders.of(asked, results=options.results, cache=options.cache)
    made, timing = sweep.plan_study(asked, folders, machine, options.noise_from)
    totals = ["total_flops", "elapsed_seconds", "idle_share", "usual_seconds", "bound_seconds"]
    totals += ["gpu_hours", "spent_flops"] if asked.reuse else ["gpu_hours"]
    told = {name: getattr(made, name) for name in totals}
    told = {**made.model_dump(mode="json"), "timing": timing, **told}
    if price is not None and made.gpu_hours is not None:
        told["cost"] = {name: price * hours for name, hours in made.gpu_hours.items()}
    answer(told, plan_tables(made, timing, price), json=options.json)


@dataclass(frozen=True)
class RunOptions:
    """How a study is trained."""

    out: Out = None
    workers: Workers = None
    device: Device = "cpu"
    memory_gib: MemoryGib = None
    micro_batch_tokens: MicroBatchTokens = "auto"
    recompute: Recomputed = "auto"
    stall_minutes: StallMinutes = STALL_MINUTES
    track: Track = None
    results: Results = RESULTS
    cache: Cache = CACHE


def run(
    study: StudyFile,
    options: Annotated[RunOptions, arg(name="")],
    on: Annotated[
        Literal["local", "workers", "slurm", "ray"],
        arg(
            metavar="local|workers|slurm|ray",
            help="Who trains: this machine, whoever starts `isoflop work`, or jobs of a cluster.",
        ),
    ] = "local",
) -> int:
    """Train what a study needs. After Ctrl-C the same command goes on where it stopped."""
    from isoflop import sweep
    from isoflop.terminal.status import edge_words
    from isoflop.tracking import tracking

    asked = load_study(study)
    folders, execution = _folders_and_execution(asked, options)
    if on != "local":
        from isoflop.sweep.cluster import cluster_of, queue_on

        queue = queue_on(on, study, asked.name, folders, cluster_of(study))
        execution = replace(execution, executor=queue)
    with tracking(folders.root, options.track, asked.name):
        outcome = sweep.run_study(asked, folders, execution)
    _check_uninterrupted(outcome)
    print(
        f"{outcome.finished} runs finished, {outcome.diverged} diverged, {outcome.failed} failed, "
        f"{outcome.left} left"
    )
    for line in outcome.stale:
        print(quoted(f"isoflop: {line}"), file=sys.stderr)
    if outcome.stale:
        return 2
    begun, _ = settled_study(study, options.out, options.results)
    for edge in sweep.status(begun, folders.root, folders.results).edges:
        print(quoted(edge_words(edge)))
    if outcome.failed or outcome.left:
        print(quoted(f"what went wrong: isoflop status {study}"))
        return 1
    print(quoted(f"next: isoflop report {study}"))
    return 0


def search(
    study: StudyFile, options: Annotated[RunOptions, arg(name="")], json: Json = False
) -> int:
    """Train the trials of [search], as many for every variant, and show what was found."""
    from isoflop.fit.search import SearchResult
    from isoflop.sweep.ledger import TRIALS
    from isoflop.sweep.search import search_study
    from isoflop.terminal.plan import search_tables, toml_lines, trial_table
    from isoflop.terminal.tables import answer
    from isoflop.tracking import tracking

    asked = load_study(study)
    folders, execution = _folders_and_execution(asked, options)
    with tracking(folders.root / TRIALS, options.track, asked.name):
        outcome, made = search_study(asked, folders, execution)
    _check_uninterrupted(outcome)
    if isinstance(made, SearchResult):
        told = {**made.model_dump(mode="json"), "toml": toml_lines(asked, made)}
        answer(told, search_tables(asked, made), json=json)
    else:
        answer([one.model_dump(mode="json") for one in made], [trial_table(made)], json=json)
    return 1 if outcome.left else 0


def _folders_and_execution(study: Study, options: RunOptions) -> tuple[Folders, Execution]:
    from isoflop import sweep

    return sweep.Folders.of(study, options.out, options.results, options.cache), sweep.Execution(
        workers=options.workers,
        device=options.device,
        memory_bytes=bytes_of(options.memory_gib),
        stall_seconds=60 * options.stall_minutes,
        micro_batch_tokens=options.micro_batch_tokens,
        recompute=options.recompute,
    )


def _check_uninterrupted(outcome: Outcome) -> None:
    """Raise what tells `main` that a signal ended training."""
    from isoflop.sweep.interrupts import Terminated

    if outcome.interrupted:
        raise Terminated if outcome.terminated else KeyboardInterrupt


def settled_study(path: Path, out: Path | None, results: Path) -> tuple[Study, Folders]:
    """Return the study of a file, in the precision that its runs have, and its folders."""
    from isoflop import sweep

    study = load_study(path)
    folders = sweep.Folders.of(study, out, results)
    return sweep.settled(study, folders.root, results).study, folders


def report(
    study: StudyFile, out: Out = None, results: Results = RESULTS, cache: Cache = CACHE
) -> None:
    """Write figures, their tables and one self-contained page from the runs so far."""
    from isoflop.sweep import Folders
    from isoflop.sweep.report import report_study

    asked = load_study(study)
    page = report_study(asked, Folders.of(asked, out, results, cache), study)
    print(quoted(f"page: {page}"))


def export(
    study: StudyFile,
    to: Annotated[Path, arg(metavar="FOLDER", help="Gets a folder named as the study.")] = RESULTS,
    out: Out = None,
    dataset: Annotated[
        Path | None, arg(metavar="FOLDER", help="Write a dataset for the Hugging Face hub instead.")
    ] = None,
) -> None:
    """Write a study's records, speeds and figures where they can be committed or shared."""
    from isoflop.sweep.report import FIGURES, export_study

    asked, folders = settled_study(study, out, to)
    if dataset is not None:
        from isoflop.interop.dataset import export_dataset
        from isoflop.results import StudyResults

        for path in export_dataset(StudyResults(asked, folders), dataset):
            print(quoted(f"wrote {path}"))
        return
    written = list(export_study(asked, folders.root, to))
    figures = [path for path in written if path.parent.name == FIGURES]
    for path in written:
        if path not in figures:
            print(quoted(f"wrote {path}"))
    if figures:
        print(quoted(f"wrote {len(figures)} files in {figures[0].parent}"))


def clean(
    study: StudyFile,
    out: Out = None,
    everything: Annotated[bool, arg(help="Also those of the best runs.")] = False,
) -> None:
    """Free disk: delete checkpoints of runs that have a record. Records and metrics stay."""
    from isoflop import sweep
    from isoflop.terminal.tables import size

    asked, folders = settled_study(study, out, RESULTS)
    freed = sweep.clean(asked, folders.root, everything=everything)
    print(f"freed {size(freed.bytes)}: checkpoints of {freed.runs} runs, {freed.kept} kept")


def rebuild(
    study: StudyFile,
    variant: Annotated[
        str | None, Positional, arg(metavar="[VARIANT]", help="The only one to rebuild.")
    ] = None,
    out: Out = None,
    workers: Workers = None,
    device: Device = "cpu",
    results: Results = RESULTS,
    cache: Cache = CACHE,
) -> int:
    """Train the best models of a study again where their checkpoints are gone, and compare.

    Best is the lowest validation loss of each variant and budget, as `isoflop clean` keeps. After
    Ctrl-C the same command goes on.
    """
    from isoflop import sweep
    from isoflop.sweep.models import described

    asked, folders = settled_study(study, out, results)
    models = sweep.best_models(asked, folders.root, results, variant)
    for model in models:
        if model.at_hand:
            print(quoted(f"{model.variant}: its checkpoint is in {model.folder.path}"))
    gone = [model for model in models if not model.at_hand]
    if not gone:
        return 0
    folders = sweep.Folders(folders.root, results, cache)
    made, interrupted = sweep.rebuild(asked, folders, gone, sweep.Execution(workers, device))
    for one in made:
        print(quoted(described(one)))
    if interrupted:
        raise KeyboardInterrupt
    return 0 if sum(one.record.state == "finished" for one in made) == len(gone) else 1
