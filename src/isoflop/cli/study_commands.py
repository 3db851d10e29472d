"""The subcommands on a study, from its file to its report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from isoflop.cli.options import (
    CACHE,
    RESULTS,
    RUNS,
    STALL_MINUTES,
    Cache,
    ConfigFile,
    Device,
    Json,
    MemoryGib,
    Out,
    Results,
    StallMinutes,
    StudyFile,
    Workers,
    bytes_of,
)
from isoflop.text import quoted


def init(
    path: Annotated[Path, Positional, arg(metavar="[PATH]", help="Where to write it.")] = Path(
        "study.toml"
    ),
) -> None:
    """Write a commented study to start from, and its JSON Schema for editors beside it."""
    from isoflop.cli.starter import write_starter

    for written in write_starter(path):
        print(quoted(f"wrote {written}"))
    print(quoted(f"next: isoflop plan {path}"))


def costs(
    config: ConfigFile,
    json: Json = False,
) -> None:
    """Show parameters, FLOPs and cache bytes; of a study, at the sizes expected to be best."""
    from isoflop.cli.costing import cost_rows
    from isoflop.cli.tables import cost_tables, show, show_json
    from isoflop.config.load import load

    rows = cost_rows(load(config))
    if json:
        show_json([row.model_dump(mode="json") for row in rows])
    else:
        show(cost_tables(rows))


def plan(
    study: StudyFile,
    accelerator: Annotated[
        str | None, arg(metavar="NAME", help="Device to plan for, in place of this machine.")
    ] = None,
    utilisation: Annotated[float, arg(help="Achieved over peak FLOP/s of the device.")] = 0.4,
    workers: Workers = None,
    memory_gib: MemoryGib = None,
    cache: Cache = CACHE,
    json: Json = False,
) -> None:
    """Show what a study would train and what that takes, before any training."""
    from isoflop.cli.planned import plan_json, plan_tables
    from isoflop.cli.plans import plan_study
    from isoflop.cli.tables import show, show_json
    from isoflop.config.load import load_study

    asked = load_study(study)
    made, timing = plan_study(
        asked,
        RUNS / asked.name,
        RESULTS,
        accelerator,
        utilisation,
        workers,
        cache,
        bytes_of(memory_gib),
    )
    if json:
        show_json(plan_json(made, timing))
    else:
        show(plan_tables(made, timing))


def run(
    study: StudyFile,
    out: Out = None,
    workers: Workers = None,
    device: Device = "cpu",
    memory_gib: MemoryGib = None,
    stall_minutes: StallMinutes = STALL_MINUTES,
    results: Results = RESULTS,
    cache: Cache = CACHE,
) -> int:
    """Train what a study needs. After Ctrl-C the same command goes on where it stopped."""
    from isoflop.cli.settling import settled_study
    from isoflop.cli.standing import edge_words
    from isoflop.config.load import load_study
    from isoflop.sweep import run_study
    from isoflop.sweep import status as find
    from isoflop.sweep.interrupts import Terminated

    asked = load_study(study)
    root = out or RUNS / asked.name
    outcome = run_study(
        asked,
        root,
        cache,
        workers=workers,
        device=device,
        memory_bytes=bytes_of(memory_gib),
        stall_seconds=60 * stall_minutes,
        results=results,
    )
    if outcome.interrupted:
        raise Terminated if outcome.terminated else KeyboardInterrupt
    print(
        f"{outcome.finished} runs finished, {outcome.diverged} diverged, {outcome.failed} failed, "
        f"{outcome.left} left"
    )
    begun, _ = settled_study(study, out, results)
    for edge in find(begun, root, results).edges:
        print(quoted(edge_words(edge)))
    if outcome.failed or outcome.left:
        print(quoted(f"what went wrong: isoflop status {study}"))
        return 1
    print(quoted(f"next: isoflop report {study}"))
    return 0


def search(
    study: StudyFile,
    out: Out = None,
    workers: Workers = None,
    memory_gib: MemoryGib = None,
    stall_minutes: StallMinutes = STALL_MINUTES,
    results: Results = RESULTS,
    cache: Cache = CACHE,
) -> int:
    """Train the trials of [search], the same for every variant, and show which was best."""
    from isoflop.cli.searching import found_trials, search_study, search_table, start_search
    from isoflop.cli.tables import show
    from isoflop.config.load import load_study
    from isoflop.sweep.interrupts import Terminated

    asked = load_study(study)
    root = out or RUNS / asked.name
    asked = start_search(asked, root, results)
    outcome = search_study(
        asked,
        root,
        results,
        cache,
        workers,
        memory_bytes=bytes_of(memory_gib),
        stall_seconds=60 * stall_minutes,
    )
    if outcome.interrupted:
        raise Terminated if outcome.terminated else KeyboardInterrupt
    show([search_table(found_trials(asked, root, results))])
    return 1 if outcome.left else 0


def status(
    study: StudyFile, out: Out = None, results: Results = RESULTS, json: Json = False
) -> None:
    """Show how far a study is, where its minima lie, and which runs failed."""
    from isoflop.cli.settling import settled_study
    from isoflop.cli.standing import status_json, status_tables
    from isoflop.cli.tables import show, show_json
    from isoflop.sweep import status as find

    asked, root = settled_study(study, out, results)
    found = find(asked, root, results)
    if json:
        show_json(status_json(found))
    else:
        show(status_tables(found, f"isoflop run {study}"))


def report(
    study: StudyFile, out: Out = None, results: Results = RESULTS, cache: Cache = CACHE
) -> None:
    """Write figures, their tables and one self-contained page from the runs so far."""
    from isoflop.cli.reporting import report_study
    from isoflop.config.load import load_study

    asked = load_study(study)
    page = report_study(asked, out or RUNS / asked.name, results, cache, study)
    print(quoted(f"page: {page}"))


def export(
    study: StudyFile,
    to: Annotated[Path, arg(metavar="FOLDER", help="Gets a folder named as the study.")] = RESULTS,
    out: Out = None,
) -> None:
    """Write a study's records, speeds and figures where they can be committed or shared."""
    from isoflop.cli.reporting import export_figures, export_routed, export_speeds
    from isoflop.cli.searching import export_search
    from isoflop.cli.settling import settled_study
    from isoflop.sweep import export as write
    from isoflop.sweep import export_choice

    asked, root = settled_study(study, out, to)
    print(quoted(f"wrote {write(asked, root, to)}"))
    for written in (
        export_choice(asked, root, to),
        export_search(asked, root, to),
        export_speeds(asked, root, to),
    ):
        if written is not None:
            print(quoted(f"wrote {written}"))
    for written in export_routed(asked, root, to):
        print(quoted(f"wrote {written}"))
    figures = export_figures(asked, root, to)
    if figures:
        print(quoted(f"wrote {len(figures)} files in {figures[0].parent}"))


def clean(
    study: StudyFile,
    out: Out = None,
    everything: Annotated[bool, arg(help="Also those of the best runs.")] = False,
) -> None:
    """Free disk: delete checkpoints of runs that have a record. Records and metrics stay."""
    from isoflop.cli.settling import settled_study
    from isoflop.cli.tables import size
    from isoflop.sweep import clean as discard

    asked, root = settled_study(study, out, RESULTS)
    freed = discard(asked, root, everything=everything)
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
    from isoflop.cli.rebuilding import described, expectation
    from isoflop.cli.settling import settled_study
    from isoflop.sweep import best_models
    from isoflop.sweep import rebuild as train_again

    asked, root = settled_study(study, out, results)
    models = best_models(asked, root, results, variant)
    for model in models:
        if model.at_hand:
            print(quoted(f"{model.variant}: its checkpoint is in {model.folder.path}"))
    gone = [model for model in models if not model.at_hand]
    if not gone:
        return 0
    if device == "cpu":
        print(expectation(gone, workers), file=sys.stderr)
    made, interrupted = train_again(asked, root, cache, gone, workers=workers, device=device)
    for one in made:
        print(quoted(described(one)))
    if interrupted:
        raise KeyboardInterrupt
    return 0 if sum(one.record.state == "finished" for one in made) == len(gone) else 1
