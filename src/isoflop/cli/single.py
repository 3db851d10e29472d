"""`isoflop train`: one run, from a file of its own or from a study."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from isoflop.cli.progress import watching
from isoflop.cli.settling import slow_precision
from isoflop.config import RunConfig, RunRecord, Study
from isoflop.hardware import usable_cores
from isoflop.planning import check_capacity, next_runs
from isoflop.runs import RunFolder, RunStore
from isoflop.sweep import Ledger, settled
from isoflop.sweep.interrupts import Terminated, stop_signals
from isoflop.text import quoted


def train_one(
    config: RunConfig,
    folder: RunFolder,
    *,
    cache: Path,
    device: str,
    threads: int | None,
    memory_bytes: int | None,
) -> int:
    """Train a run to its end, print its outcome, and return the exit code.

    Raises:
        ValueError: the run cannot be trained.
        KeyboardInterrupt: a signal asked to stop; there is a checkpoint to go on from.
        MemoryError: the run needs more than `memory_bytes`.
    """
    check_capacity(config.model.depth, config.data.sequence_length, "model.")
    print(quoted(f"run {config.run_id} in {folder.path}"), file=sys.stderr)
    # Torch takes seconds to load, which nobody should wait for to read of a mistake.
    from isoflop.training import Interrupted, train

    _tell_if_slow(config, folder, device, threads)
    with stop_signals() as wish, watching() as watch:
        try:
            record = train(
                config,
                folder,
                cache=cache,
                device=device,
                threads=threads,
                memory_bytes=memory_bytes,
                stop=lambda: wish.to_stop,
                watch=watch,
            )
        except Interrupted as error:
            raise Terminated if wish.by_sigterm else KeyboardInterrupt from error
    for line in _outcome(record, folder):
        print(quoted(line))
    return 0 if record.state == "finished" else 1


def _tell_if_slow(config: RunConfig, folder: RunFolder, device: str, threads: int | None) -> None:
    """Warn of a run that is to be trained in a precision that is slow here."""
    if folder.record() is not None or device == "cuda":
        return
    slow = slow_precision(config, device=device, threads=threads or usable_cores().count)
    if slow is not None:
        told = f'{slow}; precision = "fp32" under [recipe] makes it another run, and a fast one'
        print(quoted(f"warning: {told}"), file=sys.stderr)


def run_of(study: Study, root: Path, results: Path, run_id: str) -> tuple[RunConfig, RunFolder]:
    """Return one of a study's runs and its folder; its precision is as `settled` finds it.

    Raises:
        ValueError: the study has no such run so far.
    """
    study = settled(study, root, results).study
    records = Ledger(study, root, results).records
    known = {record.run_id: record.config for record in records}
    for run in (*next_runs(study, []), *next_runs(study, records)):
        known[run.config.run_id] = run.config
    if run_id not in known:
        near = difflib.get_close_matches(run_id, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`isoflop plan` lists them"
        raise ValueError(f"study {study.name} has no run {run_id!r}; {hint}")
    return known[run_id], RunStore(root).folder(run_id)


def _outcome(record: RunRecord, folder: RunFolder) -> Iterator[str]:
    yield f"{record.state}: {record.reason}" if record.reason else record.state
    for one in record.evaluations:
        yield (
            f"{one.split} loss {one.loss:.4f} nats/token, {one.bits_per_byte:.4f} bits/byte "
            f"({one.decision})"
        )
    if folder.checkpoints.is_dir():
        yield f"checkpoint: {folder.checkpoints}"
