"""Where a study stands, from what is on disk and what the grid asks for next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from isoflop.config import Frozen, RunConfig, State, Study
from isoflop.costs import parameters
from isoflop.estimate import Power
from isoflop.planning import (
    Bracket,
    Edge,
    PlannedRun,
    achieved_flops,
    bound,
    brackets,
    edges,
    next_runs,
)
from isoflop.planning.grid import foreseen_runs
from isoflop.planning.search import first_checks
from isoflop.runs import Progress, RunFolder
from isoflop.sweep.ledger import Folders, Ledger
from isoflop.sweep.precision import kept_precision, settled
from isoflop.sweep.schedule.forecast import Forecast, Going
from isoflop.text import typed


class Whereabouts(Frozen):
    """Who trains a run now, wherever that is, and how it goes."""

    host: str | None
    """None, as the process, where its owner could not write it down."""
    pid: int | None
    """Of the process that others hear of: who started the one that trains."""
    silent_seconds: float
    """Since its owner renewed its claim, by the file system's clock."""
    tokens_per_second: float | None
    seconds_left: float | None
    """Of its steps, at the speed of the last ones; None before its first."""


SPEED_STEPS = 20
"""Last steps of a run whose mean time tells its speed."""


class RunRow(Frozen):
    """One run of a study."""

    run_id: str
    variant: str
    budget_flops: float
    parameters: int
    """Total parameters."""
    seed: int
    state: State
    step: int
    """Optimiser steps done, as far as the metrics tell."""
    steps: int
    train_loss: float | None
    """Nats per token: of the last step, or the mean over the last twentieth once there is a record.
    """
    validation_loss: float | None
    """Under the headline decision; None unless finished."""
    reason: str | None
    """Why the run diverged or failed, or its last attempt did."""
    taken_up: bool
    """Whether the record comes from committed results and not from the study's folder."""
    at: Whereabouts | None = Field(default=None, exclude_if=lambda at: at is None)
    """Where it is trained now; not written of other runs."""


class StudyStatus(Frozen):
    """All runs that a study has and, as far as the grid knows now, needs."""

    study: str
    rows: tuple[RunRow, ...]
    """By budget, in the order of the variants, by size, then by seed."""
    brackets: tuple[Bracket, ...]
    edges: tuple[Edge, ...]
    """Sides of minima that lack sizes for good."""
    stale: tuple[str, ...] = Field(default=(), exclude_if=lambda lines: not lines)
    """Why no grid is trained, a line for each variant whose learning rate is not to be kept."""
    foreign: int
    """Records in the study's folder of runs that it, as it is now, would not train."""
    seconds_left: float | None = Field(default=None, exclude_if=lambda seconds: seconds is None)
    """Until all that it needs, and what the grid usually adds, is trained by as many as train now,
    at the speeds of its runs; not written while nobody trains or nothing was timed."""
    power: Power | None = None
    """What it will resolve by the noise of its runs so far, where that was asked for and is known.
    """

    @property
    def counts(self) -> Mapping[State, int]:
        """Number of runs in each state that occurs."""
        return Counter(row.state for row in self.rows)

    @property
    def complete(self) -> bool:
        """Whether every run that the study needs has its record."""
        done = all(row.state in ("finished", "diverged", "failed") for row in self.rows)
        return done and not self.stale


def status(
    study: Study,
    root: Path,
    results: Path | None = None,
    *,
    power: bool = False,
    ledger: Ledger | None = None,
) -> StudyStatus:
    """Return where the study whose folder is `root`, which need not exist, stands.

    What it will resolve is told where `power` is asked for, which takes a second or two. Whoever
    looks often gives a `ledger` of this study and folder, which is refreshed.

    Raises:
        ValueError: a record cannot be read, or the study cannot be planned.
    """
    ledger = ledger or Ledger(study, root, results)
    ledger.refresh()
    assigned = ledger.runs
    known = {one.run_id: (one.config, assigned.all[one.run_id]) for one in ledger.own}
    for run in next_runs(study, ledger.records):
        known[run.config.run_id] = run.config, run.variant
    configs = {run_id: config for run_id, (config, _) in known.items()}
    rows = [
        RunRow(
            run_id=run_id,
            variant=variant,
            budget_flops=config.budget_flops or 0.0,
            parameters=parameters(config.model).total,
            seed=config.seed,
            steps=config.steps,
            taken_up=ledger.is_taken_up(run_id),
            **_standing(ledger, run_id),
        )
        for run_id, (config, variant) in known.items()
    ]
    order = {variant.name: place for place, variant in enumerate(study.variants)}
    rows.sort(key=lambda r: (r.budget_flops, order[r.variant], r.parameters, r.seed))
    resolved = None
    if power:
        from isoflop.sweep.power import study_power  # fits take a second to load

        resolved = study_power(study, ledger)
    return StudyStatus(
        power=resolved,
        study=study.name,
        rows=tuple(rows),
        brackets=tuple(brackets(study, ledger.records)),
        edges=tuple(edges(study, ledger.records)),
        seconds_left=_seconds_left(ledger, rows, configs),
        stale=tuple(one.stale for one in first_checks(study, ledger.records) if one.stale),
        foreign=sum(not ledger.is_taken_up(run_id) for run_id in assigned.foreign),
    )


class Lookout:
    """Looks at a study again and again, and reads the records that others committed once.

    Raises:
        ValueError: as `status`, and as `settled`, which is asked where the study never started.
    """

    def __init__(self, study: Study, folders: Folders) -> None:
        self._study, self.folders = study, folders
        now = settled(study, folders.root, folders.results).study
        self.ledger = Ledger(now, folders.root, folders.results)

    def look(self) -> StudyStatus:
        """Return where the study stands; see `status`."""
        root, results = self.folders.root, self.folders.results
        kept = kept_precision(self._study, root, results)
        if kept is not None and kept.study != self.ledger.study:
            self.ledger = Ledger(kept.study, root, results)
        return status(self.ledger.study, root, results, ledger=self.ledger)


def _seconds_left(
    ledger: Ledger, rows: Sequence[RunRow], configs: Mapping[str, RunConfig]
) -> float | None:
    """Return the time until all runs are done, by the speeds of those that ran here or do now."""
    going, rates, waiting = [], [], []
    for row in rows:
        run = PlannedRun(row.variant, configs[row.run_id], "initial")
        record = ledger.get(row.run_id)
        if record and record.seconds and not row.taken_up:
            rates.append((run, record.spent_flops / record.seconds))
        elif row.at:
            speed, share = row.at.tokens_per_second or 0.0, row.step / row.steps
            now = Progress(row.step, row.steps, row.train_loss or 0.0, speed) if row.step else None
            going.append(Going(run, progress=now, from_share=share))
            tokens = run.config.steps * run.config.tokens_per_step
            rates += [(run, achieved_flops(run.config) / tokens * speed)] if speed else []
        elif record is None:
            waiting.append(run)
    if not (going and rates):
        return None
    foreseen = foreseen_runs(ledger.study)
    added = max(0, len(foreseen) + bound(ledger.study).usual_runs - len(rows))
    usual = fmean(run.budget_flops for run in foreseen)
    return Forecast(len(going), rates, added_flops=usual).seconds_left(going, waiting, added)


def _standing(ledger: Ledger, run_id: str) -> dict[str, Any]:
    """Return what the record of a run tells, or its folder where there is none."""
    record = ledger.get(run_id)
    if record is not None:
        validation = record.evaluation("validation")
        share = record.train_flops[record.config.convention] / achieved_flops(record.config)
        return {
            "state": record.state,
            "step": round(share * record.config.steps),
            "train_loss": record.train_loss,
            "validation_loss": None if validation is None else validation.loss,
            "reason": record.reason,
        }
    folder = ledger.store.folder(run_id)
    rows, _ = folder.read_metrics()
    last = rows[-1] if rows else {}
    loss, attempts = last.get("loss"), folder.attempts_made()
    return {
        "state": folder.state(),
        "step": int(last.get("step", 0)),
        # Lines of metrics that make no sense are no reason to show nothing.
        "train_loss": loss if isinstance(loss, float) and math.isfinite(loss) else None,
        "validation_loss": None,
        "reason": attempts[-1].reason if attempts else None,
        "at": _whereabouts(folder, rows),
    }


def _whereabouts(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> Whereabouts | None:
    lease = folder.lease()
    if lease is None:
        return None
    told = [row.get("seconds") for row in rows[-SPEED_STEPS:]]
    took = [one for one in told if isinstance(one, int | float) and one > 0]
    speed = left = None
    if took:
        config, per_step = folder.config(), fmean(took)
        speed = config.tokens_per_step / per_step
        left = (config.steps - int(rows[-1]["step"])) * per_step
    return Whereabouts(
        host=lease.holder and lease.holder.host,
        pid=lease.holder and lease.holder.pid,
        silent_seconds=max(0.0, folder.file_time() - lease.renewed),
        tokens_per_second=speed,
        seconds_left=left,
    )


def trained(study: Study, root: Path, results: Path, file: Path) -> Ledger:
    """Return the records of a study, in its precision as `settled` finds it.

    Its `file` is named in the command that trains it, which is told where there are none.

    Raises:
        ValueError: no run that fits use has a record.
    """
    ledger = Ledger(settled(study, root, results).study, root, results)
    if not ledger.runs.variant_of:
        raise ValueError(
            f"no run of {study.name} has a record in {root} or {results / study.name}; "
            f"train it first: {typed('run', file)}"
        )
    return ledger
