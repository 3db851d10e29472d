"""The entry of the room: check what a study rests on, then train what it needs."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

from rich.console import Console

from isoflop.config import PrecisionChoice, Study
from isoflop.data import TokenStore, prepare, train_tokens
from isoflop.hardware import usable_cores
from isoflop.memory import sequences_held
from isoflop.planning import PlannedRun, bound, next_runs, planned_warnings
from isoflop.planning.grid import foreseen_runs
from isoflop.planning.search import first_checks
from isoflop.planning.warnings import memory_warnings
from isoflop.sweep.ledger import Folders, Ledger, save_study
from isoflop.sweep.local.pool import LocalPool, start_server
from isoflop.sweep.local.probes import environment_apart, measure_apart, measured_speeds
from isoflop.sweep.local.sharing import runs_per_device
from isoflop.sweep.local.worker import Train, train_run
from isoflop.sweep.precision import Settled, kept_precision, settle, slow_here
from isoflop.sweep.schedule.display import Display
from isoflop.sweep.schedule.executor import Execution
from isoflop.sweep.schedule.forecast import Forecast
from isoflop.sweep.schedule.scheduler import Outcome, Planner, Scheduler

ALIKE = {"isoflop", "torch", "code"}
"""Of the environment, in which all workers on a study are alike."""


def run_study(
    study: Study,
    folders: Folders | None = None,
    execution: Execution = Execution(),  # noqa: B008 - frozen
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
        ValueError: the study cannot be planned or not be trained so, its data is missing or
            changed, a record cannot be read, or its precision cannot be measured; before any
            training.
        OSError: the disk is full or broken; runs under way were asked to stop.
        KeyboardInterrupt: the second Ctrl-C.
    """
    folders = folders or Folders.of(study)
    slots = execution.slots()
    home = folders.settled_in or folders.root
    kept = kept_precision(study, home, folders.results)
    # What is to be measured has the sizes of the runs, which are the same in any precision.
    study = study.with_precision("fp32") if kept is None else kept.study
    beside = planner is not next_runs
    ledger = Ledger(study, folders.root, folders.results, beside=beside)
    needed = planner(study, ledger.records)
    if isinstance(execution.micro_batch_tokens, int):
        for run in needed:
            sequences_held(run.config, execution.micro_batch_tokens)
    if planner is next_runs:
        execution = replace(execution, shares_up_to=study.shares_up_to)
    with Display(console or Console(stderr=True)) as display:
        store, free = None, 0
        if needed:
            free = _tell_start(ledger, needed, execution, display)
            start_server()  # It imports torch meanwhile.
            display.say(f"{study.name}: preparing {', '.join(study.data.corpora)}")
            name = study.name
            store = prepare(
                study.data, folders.cache, tell=lambda now: display.say(f"{name}: {now.words}")
            )
            configs = [run.config for run in planner(study, [])]
            how = {"device": execution.device, "threads": execution.threads}
            look = partial(measure, configs, **how, environment=slots[0])
            study = ledger.study = _settled(study, home, kept, look, display)
            if execution.shift is not None and not execution.shift.mixed:
                _check_alike(ledger, execution)
            needed = planner(study, ledger.records)
            _check_data(ledger, needed, store.sha256)
            for warning in planned_warnings(needed, train_tokens(store, study.data)):
                display.say(f"warning: {warning}")
            if free and needed and execution.picks_sharing:
                execution = _sharing(study, needed, execution, display)
        _tell_changes(ledger, save_study(study, folders.root), display)
        for warning in memory_warnings(needed, execution.memory_bytes):
            display.say(f"warning: {warning}")
        expected = store if free and train is train_run and execution.alone else None
        forecast = _forecast(study, needed, execution, expected, planner)
        pool = execution.executor or LocalPool(train, execution, folders.cache)
        sha256 = "" if store is None else store.sha256
        outcome = Scheduler(ledger, planner, pool, forecast, display, execution, sha256).run()
    tried = first_checks(study, ledger.records) if planner is next_runs else ()
    return replace(outcome, stale=tuple(one.stale for one in tried if one.stale))


def _tell_start(
    ledger: Ledger, needed: list[PlannedRun], execution: Execution, display: Display
) -> int:
    """Say who trains how much of the study; return how many of the runs nobody else works on."""
    folders = [ledger.store.folder(run.config.run_id) for run in needed]
    claimed = [folder for folder in folders if folder.is_claimed()]
    name, free = ledger.study.name, len(needed) - len(claimed)
    if claimed:
        holders = dict.fromkeys(one for folder in claimed if (one := folder.holder()) is not None)
        here = socket.gethostname()
        pids = [f"{one.pid}" if one.host == here else f"{one.pid} on {one.host}" for one in holders]
        who = f"other processes (pid {', '.join(pids)})" if pids else "other processes"
        rest = f"; this one takes the {free} that nobody works on"
        if not free:
            rest = ", and nothing is left to start: waiting"
        display.say(f"{name}: {who} train {len(claimed)} of its runs{rest}")
    if execution.device == "cpu" and execution.executor is None:
        each = "one thread" if execution.threads == 1 else f"{execution.threads} threads"
        runs = _runs(len(execution.slots()))
        display.say(f"{name}: {runs} at a time, {each} each: {usable_cores().words}")
    return free


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _sharing(
    study: Study, needed: list[PlannedRun], execution: Execution, display: Display
) -> Execution:
    """Return how runs are trained where so many share a CUDA device as measurements here say."""
    devices = execution.slots()
    each, why = runs_per_device(needed, devices, threads=execution.threads)
    display.say(f"{study.name}: {_runs(each)} per device, as measured here just now: {why}")
    return replace(execution, workers=each * len(devices))


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
    foreseen = foreseen_runs(study) if planner is next_runs else []
    return Forecast(
        len(slots),
        list(zip(needed, speeds or (), strict=False)),
        runs=len(foreseen) + bound(study).usual_runs if foreseen else 0,
        added_flops=fmean(run.budget_flops for run in foreseen) if foreseen else 0.0,
        held_out_tokens=int(store.manifest["splits"]["test"]["tokens"]),
    )


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


def _check_alike(ledger: Ledger, execution: Execution) -> None:
    """Refuse to work on runs whose others were begun with other code or another torch."""
    pinned = next(filter(None, (folder.pinned() for folder in ledger.store.folders())), None)
    if pinned is None:
        return
    here = environment_apart(execution.device)
    changed = pinned.differences(here)
    told = [
        f"{name} {changed[name][0]}, here {changed[name][1]}" for name in ALIKE & changed.keys()
    ]
    if told:
        raise ValueError(
            f"the runs of {ledger.study.name} were begun with {', '.join(sorted(told))}; install "
            "the same here, or give --mixed: then records tell which run was trained with what"
        )


def _check_data(ledger: Ledger, needed: list[PlannedRun], data_sha256: str) -> None:
    """Refuse to go on with a study on other data than it was begun on."""
    begun = {record.run_id: record.data_sha256 for record in ledger.own}
    for run in needed:
        pinned = ledger.store.folder(run.config.run_id).pinned()
        if pinned is not None:
            begun[run.config.run_id] = pinned.data_sha256
    for run_id, sha256 in begun.items():
        if sha256 != data_sha256:
            source = "committed " if ledger.is_taken_up(run_id) else ""
            raise ValueError(
                f"the data of study {ledger.study.name!r} changed: {source}run {run_id} was "
                f"trained on SHA-256 {sha256}, now the data has {data_sha256}; restore the data, "
                "or start afresh by giving the study another name"
            )


def _tell_changes(ledger: Ledger, changes: list[str], display: Display) -> None:
    if not changes:
        return
    study = ledger.study
    display.say(f"{study.name} changed since it was run last: {'; '.join(changes)}")
    display.say(f"{len(ledger.own)} of the runs recorded so far are part of it as it is now")
    if any(change.startswith("recipe.precision: ") for change in changes):
        display.say(
            f"its runs are trained in {study.recipe.precision} from now on; those in another "
            "precision stay where they are and are no part of it"
        )
