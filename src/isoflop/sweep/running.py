"""The entry of the room: check what a study rests on, then train what it needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from isoflop.config import PrecisionChoice, RunConfig, Study
from isoflop.data import TokenStore, prepare, train_tokens
from isoflop.hardware import usable_cores
from isoflop.planning import PlannedRun, bound, next_runs, planned_warnings
from isoflop.planning.assignment import assign
from isoflop.planning.warnings import memory_warnings
from isoflop.runs import Holder, RunStore
from isoflop.sweep.ledger import Folders, Ledger, save_study
from isoflop.sweep.local.pool import LocalPool, start_server
from isoflop.sweep.local.probes import measure_apart, measured_speeds
from isoflop.sweep.local.worker import Job, Train, train_run
from isoflop.sweep.precision import Settled, kept_precision, settle, slow_here
from isoflop.sweep.schedule.display import Display
from isoflop.sweep.schedule.forecast import Forecast, Rate
from isoflop.sweep.schedule.scheduler import Outcome, Planner, Scheduler, Training

Device = Literal["cpu", "cuda"]

STALL_SECONDS = 1800.0
"""Silence after which a run counts as hanging. A run gives a sign after each step and each batch
that it evaluates; the longest silence is the first step, which compiles, and may take minutes."""


@dataclass(frozen=True)
class Execution:
    """How runs are trained, which is no part of what they are."""

    workers: int | None = None
    """Runs trained at a time; None for one per `threads` cores, or per CUDA device."""
    device: Device = "cpu"
    threads: int = 1
    """Of each run on the CPU."""
    compiled: bool | None = None
    """Whether torch.compile is used; None decides for each run."""
    checkpoint_seconds: float | None = None
    """Time between checkpoints of a run; None as in `isoflop.training.train`."""
    memory_bytes: int | None = None
    """Limit of the memory of each run on a CPU; None for none."""
    stall_seconds: float = STALL_SECONDS
    """Silence after which a run counts as hanging; that attempt then failed."""

    def slots(self) -> list[dict[str, str]]:
        """Return the environment variables of each worker that may run at a time.

        Raises:
            ValueError: a value is out of its range, or there is no such device.
        """
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if self.device == "cpu":
            at_once = self.workers or max(1, usable_cores().count // self.threads)
            found: list[dict[str, str]] = [{}] * at_once
        else:
            found = _cuda_slots(self.workers)
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ValueError(f"the limit of memory is {self.memory_bytes} bytes; expected more")
        if self.memory_bytes is not None and self.device != "cpu":
            raise ValueError("a limit of memory is for runs on the CPU; leave --memory-gib out")
        if not self.stall_seconds > 0:
            raise ValueError(
                f"the longest silence of a run is {self.stall_seconds} s; expected more"
            )
        return found

    @property
    def at_a_time(self) -> str:
        """How many runs are trained at a time on the CPU, and why."""
        workers = len(self.slots())
        runs = "1 run" if workers == 1 else f"{workers} runs"
        each = "one thread each" if self.threads == 1 else f"{self.threads} threads each"
        return f"{runs} at a time, {each}: {usable_cores().words}"


def run_study(
    study: Study,
    folders: Folders | None = None,
    execution: Execution = Execution(),
    *,
    console: Console | None = None,
    planner: Planner = next_runs,
    train: Train = train_run,
    measure: Callable[..., PrecisionChoice] = measure_apart,
) -> Outcome:
    """Train what a study needs, going on from wherever it stands, and return when it is done.

    Ctrl-C or SIGTERM saves a checkpoint of every run under way and returns; a second Ctrl-C kills
    the workers and raises KeyboardInterrupt. Either way the same call goes on. Several processes
    may train one study in one folder: they share the runs.

    Args:
        study: what is asked; its precision is settled here where it is `auto`.
        folders: where it lives; the usual ones if left out.
        execution: how its runs are trained.
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
    folders = folders or Folders.of(study)
    slots = execution.slots()
    ledger = Ledger(study, folders.root, folders.results)
    kept = kept_precision(study, folders.root, folders.results)
    # What is to be measured has the sizes of the runs, which are the same in any precision.
    study = study.with_precision("fp32") if kept is None else kept.study
    needed = planner(study, ledger.records)
    with Display(console or Console(stderr=True)) as display:
        store, free = None, 0
        if needed:
            free = _tell_start(study, ledger, needed, execution, display)
            start_server()  # It imports torch meanwhile.
            display.say(f"{study.name}: preparing {', '.join(study.data.corpora)}")
            store = prepare(study.data, folders.cache)
            configs = [run.config for run in planner(study, [])]
            how = {"device": execution.device, "threads": execution.threads}
            look = partial(measure, configs, **how, environment=slots[0])
            study = _settled(study, folders.root, kept, look, display)
            needed = planner(study, ledger.records)
            _check_data(study, ledger, needed, store.sha256)
            for warning in planned_warnings(needed, train_tokens(store, study.data)):
                display.say(f"warning: {warning}")
        _tell_changes(study, save_study(study, folders.root), ledger, display)
        for warning in memory_warnings(needed, execution.memory_bytes):
            display.say(f"warning: {warning}")
        expected = store if free and train is train_run else None
        forecast = _forecast(study, needed, execution, expected, planner)
        training = _training(train, execution, folders.cache, store)
        return Scheduler(study, ledger, needed, training, forecast, display, planner).run()


def _tell_start(
    study: Study,
    ledger: Ledger,
    needed: list[PlannedRun],
    execution: Execution,
    display: Display,
) -> int:
    """Say who trains how much of the study; return how many of the runs nobody else works on."""
    holders = holders_of(ledger.store, needed)
    free = len(needed) - len(holders)
    if holders:
        display.say(f"{study.name}: {shared_words(holders, free, socket.gethostname())}")
    if execution.device == "cpu":
        display.say(f"{study.name}: {execution.at_a_time}")
    return free


def holders_of(store: RunStore, needed: Sequence[PlannedRun]) -> list[Holder | None]:
    """Return who holds each needed run that is claimed; None for a holder that did not sign."""
    folders = [store.folder(run.config.run_id) for run in needed]
    return [folder.holder() for folder in folders if folder.is_claimed()]


def shared_words(holders: Sequence[Holder | None], free: int, here: str) -> str:
    """Return in a sentence who trains what, and what this process does.

    Args:
        holders: of each run that is claimed; at least one.
        free: needed runs that nobody works on.
        here: name of this host, which is not said.
    """
    known = dict.fromkeys(holder for holder in holders if holder is not None)
    names = [f"{one.pid}" + ("" if one.host == here else f" on {one.host}") for one in known]
    several = len(names) > 1
    if several:
        who = f"{len(names)} other processes (pids {', '.join(names[:-1])} and {names[-1]}) train"
    else:
        who = f"another process{f' (pid {names[0]})' if names else ''} trains"
    runs = "1 run" if len(holders) == 1 else f"{len(holders)} runs"
    if free:
        left = "the one" if free == 1 else f"the {free}"
        return f"{who} {runs} of this study; this one takes {left} that nobody works on"
    return (
        f"{who} {runs} of this study, and nothing is left to start: waiting for "
        f"{'their' if several else 'its'} {runs}"
    )


def _forecast(
    study: Study,
    needed: list[PlannedRun],
    execution: Execution,
    store: TokenStore | None,
    planner: Planner,
) -> Forecast:
    """Return what to expect of a study's runs, from steps that are measured now on its data."""
    slots = execution.slots()
    if store is None:
        return Forecast(len(slots))
    configs = [run.config for run in needed]
    speeds = measured_speeds(configs, slots, threads=execution.threads, device=execution.device)
    rates = [Rate(*one) for one in zip(needed, speeds or (), strict=False)]
    held_out_tokens = int(store.manifest["splits"]["test"]["tokens"])
    if planner is not next_runs:
        return Forecast(len(slots), rates, held_out_tokens=held_out_tokens)
    usual = bound(study)
    return Forecast(
        len(slots),
        rates,
        runs=len(next_runs(study, [])) + usual.usual_runs,
        added_flops=usual.usual_flops / max(1, usual.usual_runs),
        held_out_tokens=held_out_tokens,
    )


def _training(
    train: Train, execution: Execution, cache: Path, store: TokenStore | None
) -> Training:
    """Return the local pool, and what is noted of runs that cannot be trained."""
    executor = LocalPool(
        execution.slots(),
        partial(_job, train, execution, cache),
        limited=execution.memory_bytes is not None,
    )
    sha256 = "" if store is None else store.sha256
    return Training(executor, execution.device, sha256, execution.stall_seconds)


def _job(
    train: Train,
    execution: Execution,
    cache: Path,
    config: RunConfig,
    folder: Path,
    slot: Mapping[str, str],
) -> Job:
    """Return what a process of the local pool is to do."""
    options = {
        "cache": cache,
        "device": execution.device,
        "threads": execution.threads,
        "compiled": execution.compiled,
        "checkpoint_seconds": execution.checkpoint_seconds,
        "memory_bytes": execution.memory_bytes,
    }
    # Shared by all runs: those of one width and kind compile to the same code.
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(cache.absolute() / "compiled"), **slot}
    return Job(config, folder, train, options, environment, os.getpid())


def _cuda_slots(workers: int | None) -> list[dict[str, str]]:
    import torch

    devices = torch.cuda.device_count()
    if not devices:
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(devices)))
    names = visible.split(",")[:devices]
    return [{"CUDA_VISIBLE_DEVICES": names[i % devices]} for i in range(workers or devices)]


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
