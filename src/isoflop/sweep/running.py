"""The entry of the room: check what a study rests on, then train what it needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from isoflop.config import PrecisionChoice, Study
from isoflop.data import TokenStore, prepare, train_tokens
from isoflop.hardware import usable_cores
from isoflop.planning import PlannedRun, bound, next_runs, planned_warnings
from isoflop.planning.assignment import assign
from isoflop.planning.memory import memory_warnings
from isoflop.sweep.display import Display
from isoflop.sweep.forecast import Forecast, Rate
from isoflop.sweep.ledger import Ledger, save_study
from isoflop.sweep.measuring import Measurer, measure_apart
from isoflop.sweep.others import others, shared_words
from isoflop.sweep.pool import start_server
from isoflop.sweep.precision import Settled, kept_precision, settle, slow_here
from isoflop.sweep.scheduler import Outcome, Planner, Scheduler, Training
from isoflop.sweep.speeds import measured_speeds
from isoflop.sweep.worker import Train, train_run

Device = Literal["cpu", "cuda"]

STALL_SECONDS = 1800.0
"""Silence after which a run counts as hanging. A run gives a sign after each step and each batch
that it evaluates; the longest silence is the first step, which compiles, and may take minutes."""


def run_study(
    study: Study,
    root: Path,
    cache: Path,
    *,
    workers: int | None = None,
    device: Device = "cpu",
    threads: int = 1,
    compiled: bool | None = None,
    checkpoint_seconds: float | None = None,
    memory_bytes: int | None = None,
    stall_seconds: float = STALL_SECONDS,
    results: Path | None = None,
    console: Console | None = None,
    planner: Planner = next_runs,
    train: Train = train_run,
    measure: Measurer = measure_apart,
) -> Outcome:
    """Train what a study needs, going on from wherever it stands, and return when it is done.

    Ctrl-C or SIGTERM saves a checkpoint of every run under way and returns; a second Ctrl-C kills
    the workers and raises KeyboardInterrupt. Either way the same call goes on. Several processes
    may train one study in one folder: they share the runs.

    A study whose precision is `auto` gets what is faster here when it is started first, and keeps
    it; see `isoflop.sweep.precision`.

    Args:
        study: what is asked.
        root: the study's folder, `runs/NAME`.
        cache: where prepared corpora and compiled code lie.
        workers: runs trained at a time; None for one per `threads` cores, or per CUDA device.
        device: where to train.
        threads: of each run on the CPU.
        compiled: use torch.compile; None decides for each run.
        checkpoint_seconds: time between checkpoints of a run; None as in `isoflop.training.train`.
        memory_bytes: limit of the memory of each run on a CPU; None for none.
        stall_seconds: silence after which a run counts as hanging; that attempt then failed.
        results: folder of committed results; records in it are taken up.
        console: where progress goes; None for standard error.
        planner: says which runs have no record yet; asked again whenever a run ends.
        train: trains one run; must be importable from another process.
        measure: measures which precision is faster here.

    Raises:
        ValueError: the study cannot be planned, its data is missing or changed, a record cannot be
            read, or its precision cannot be measured; before any training.
        OSError: the disk is full or broken; runs under way were asked to stop.
        KeyboardInterrupt: the second Ctrl-C.
    """
    slots = _slots(workers, device, threads)
    _check_limits(memory_bytes, stall_seconds, device)
    ledger = Ledger(study, root, results)
    kept = kept_precision(study, root, results)
    # What is to be measured has the sizes of the runs, which are the same in any precision.
    study = study.with_precision("fp32") if kept is None else kept.study
    needed = planner(study, ledger.records)
    with Display(console or Console(stderr=True)) as display:
        data_sha256, store, free = "", None, 0
        if needed:
            free = _tell_others(study, ledger, needed, display)
            if device == "cpu":
                display.say(f"{study.name}: {_at_a_time(len(slots), threads)}")
            # It imports torch meanwhile.
            start_server()
            display.say(f"{study.name}: preparing {', '.join(study.data.corpora)}")
            store = prepare(study.data, cache)
            data_sha256 = store.sha256
            sizes = [run.config for run in planner(study, [])]
            look = partial(measure, sizes, device=device, threads=threads, environment=slots[0])
            study = _settled(study, root, kept, look, display)
            needed = planner(study, ledger.records)
            _check_data(study, ledger, needed, data_sha256)
            for warning in planned_warnings(needed, train_tokens(store, study.data)):
                display.say(f"warning: {warning}")
        _tell_changes(study, save_study(study, root), ledger, display)
        options = {
            "cache": cache,
            "device": device,
            "threads": threads,
            "compiled": compiled,
            "checkpoint_seconds": checkpoint_seconds,
            "memory_bytes": memory_bytes,
        }
        training = Training(train, options, device, cache, data_sha256, stall_seconds, slots)
        for warning in memory_warnings(needed, memory_bytes):
            display.say(f"warning: {warning}")
        forecast = _forecast(study, needed, training, store if free else None, planner, threads)
        return Scheduler(study, ledger, needed, training, forecast, display, planner).run()


def _tell_others(study: Study, ledger: Ledger, needed: list[PlannedRun], display: Display) -> int:
    """Say who else trains the study; return how many of the runs nobody works on."""
    holders = others(ledger.store, needed)
    free = len(needed) - len(holders)
    if holders:
        display.say(f"{study.name}: {shared_words(holders, free, socket.gethostname())}")
    return free


def _forecast(
    study: Study,
    needed: list[PlannedRun],
    training: Training,
    store: TokenStore | None,
    planner: Planner,
    threads: int,
) -> Forecast:
    """Return what to expect of a study's runs, from steps that are measured now."""
    workers = len(training.slots)
    if store is None or training.train is not train_run:
        return Forecast(workers)
    configs = [run.config for run in needed]
    speeds = measured_speeds(configs, training.slots, threads=threads, device=training.device)
    rates = [Rate(*one) for one in zip(needed, speeds or (), strict=False)]
    held_out_tokens = int(store.manifest["splits"]["test"]["tokens"])
    if planner is not next_runs:
        return Forecast(workers, rates, held_out_tokens=held_out_tokens)
    usual = bound(study)
    return Forecast(
        workers,
        rates,
        runs=len(next_runs(study, [])) + usual.usual_runs,
        added_flops=usual.usual_flops / max(1, usual.usual_runs),
        held_out_tokens=held_out_tokens,
    )


def _slots(workers: int | None, device: Device, threads: int) -> list[dict[str, str]]:
    """Return the environment variables of each worker that may run at a time."""
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    if device == "cpu":
        return [{}] * (workers or max(1, usable_cores().count // threads))
    import torch

    devices = torch.cuda.device_count()
    if not devices:
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(devices)))
    names = visible.split(",")[:devices]
    return [{"CUDA_VISIBLE_DEVICES": names[i % devices]} for i in range(workers or devices)]


def _at_a_time(workers: int, threads: int) -> str:
    """Return how many runs are trained at a time, and why."""
    runs = "1 run" if workers == 1 else f"{workers} runs"
    each = "one thread each" if threads == 1 else f"{threads} threads each"
    return f"{runs} at a time, {each}: {usable_cores().words}"


def _settled(
    study: Study,
    root: Path,
    kept: Settled | None,
    look: Callable[[], PrecisionChoice],
    display: Display,
) -> Study:
    """Return the study in the precision that it has from now on, and tell which and why.

    Raises:
        ValueError: it is to be settled now, and nothing can be measured.
    """
    if kept is None:
        now = settle(study, root, look())
        display.say(f"{study.name}: {now.words}")
        return now.study
    display.say(f"{study.name}: {kept.words}")
    try:
        slow = slow_here(kept, look())
    except ValueError as error:
        slow = str(error)
    if slow is not None:
        display.say(f"warning: {slow}")
    return kept.study


def _check_limits(memory_bytes: int | None, stall_seconds: float, device: Device) -> None:
    if memory_bytes is not None and memory_bytes < 1:
        raise ValueError(f"the limit of memory is {memory_bytes} bytes; expected more")
    if memory_bytes is not None and device != "cpu":
        raise ValueError("a limit of memory is for runs on the CPU; leave --memory-gib out")
    if not stall_seconds > 0:
        raise ValueError(f"the longest silence of a run is {stall_seconds} s; expected more")


def _check_data(study: Study, ledger: Ledger, needed: list[PlannedRun], data_sha256: str) -> None:
    """Refuse to go on with a study on other data than it was begun on."""
    own = assign(study, ledger.records).all
    begun = {r.run_id: r.data_sha256 for r in ledger.records if r.run_id in own}
    for run in needed:
        pinned = ledger.store.folder(run.config.run_id).pinned()
        if pinned is not None:
            begun[run.config.run_id] = pinned.data_sha256
    for run_id, sha256 in begun.items():
        if sha256 != data_sha256:
            source = "committed " if ledger.is_taken_up(run_id) else ""
            raise ValueError(
                f"the data of study {study.name!r} changed: {source}run {run_id} was trained on "
                f"SHA-256 {sha256}, now the data has {data_sha256}; restore the data, or start "
                "afresh by giving the study another name"
            )


def _tell_changes(study: Study, changes: list[str], ledger: Ledger, display: Display) -> None:
    if not changes:
        return
    kept = len(assign(study, ledger.records).all)
    display.say(f"{study.name} changed since it was run last: {'; '.join(changes)}")
    display.say(f"{kept} of the runs recorded so far are part of it as it is now")
    if any(change.startswith("recipe.precision: ") for change in changes):
        display.say(
            f"its runs are trained in {study.recipe.precision} from now on; those in another "
            "precision stay where they are and are no part of it"
        )
