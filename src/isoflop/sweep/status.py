"""Where a study stands, from what is on disk and what the grid asks for next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from isoflop.config import Frozen, RunRecord, State, Study
from isoflop.costs import parameters
from isoflop.planning import (
    Bracket,
    Edge,
    PlannedRun,
    achieved_flops,
    brackets,
    edges,
    next_runs,
)
from isoflop.planning.assignment import Assignment, assign
from isoflop.runs import RunFolder
from isoflop.sweep.ledger import Ledger
from isoflop.sweep.precision import settled


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


class StudyStatus(Frozen):
    """All runs that a study has and, as far as the grid knows now, needs."""

    study: str
    rows: tuple[RunRow, ...]
    """By budget, in the order of the variants, by size, then by seed."""
    brackets: tuple[Bracket, ...]
    edges: tuple[Edge, ...]
    """Sides of minima that lack sizes for good."""
    foreign: int
    """Records in the study's folder of runs that it, as it is now, would not train."""

    @property
    def counts(self) -> Mapping[State, int]:
        """Number of runs in each state that occurs."""
        return Counter(row.state for row in self.rows)

    @property
    def complete(self) -> bool:
        """Whether every run that the study needs has its record."""
        return all(row.state in ("finished", "diverged", "failed") for row in self.rows)


def status(study: Study, root: Path, results: Path | None = None) -> StudyStatus:
    """Return where a study stands.

    Args:
        study: what is asked.
        root: the study's folder; need not exist.
        results: folder of committed results, None for none.

    Raises:
        ValueError: a record cannot be read, or the study cannot be planned.
    """
    ledger = Ledger(study, root, results)
    found = assign(study, ledger.records)
    known = found.all
    rows = [
        _recorded(record, known[record.run_id], ledger.is_taken_up(record.run_id))
        for record in ledger.records
        if record.run_id in known
    ]
    rows += [
        _unrecorded(run, ledger.store.folder(run.config.run_id))
        for run in next_runs(study, ledger.records)
    ]
    order = {variant.name: place for place, variant in enumerate(study.variants)}
    rows.sort(key=lambda r: (r.budget_flops, order[r.variant], r.parameters, r.seed))
    return StudyStatus(
        study=study.name,
        rows=tuple(rows),
        brackets=tuple(brackets(study, ledger.records)),
        edges=tuple(edges(study, ledger.records)),
        foreign=sum(not ledger.is_taken_up(run_id) for run_id in found.foreign),
    )


def _recorded(record: RunRecord, variant: str, taken_up: bool) -> RunRow:
    validation = record.evaluation("validation")
    config = record.config
    assert config.budget_flops is not None, "runs of a study have a budget"
    share = record.train_flops[config.convention] / achieved_flops(config)
    return RunRow(
        run_id=record.run_id,
        variant=variant,
        budget_flops=config.budget_flops,
        parameters=record.parameters.total,
        seed=config.seed,
        state=record.state,
        step=round(share * config.steps),
        steps=config.steps,
        train_loss=record.train_loss,
        validation_loss=None if validation is None else validation.loss,
        reason=record.reason,
        taken_up=taken_up,
    )


def _unrecorded(run: PlannedRun, folder: RunFolder) -> RunRow:
    config = run.config
    rows, _ = folder.read_metrics()
    last = rows[-1] if rows else {}
    loss = last.get("loss")
    attempts = folder.attempts_made()
    # Lines of metrics that make no sense are no reason to show nothing.
    plain = isinstance(loss, float) and math.isfinite(loss)
    return RunRow(
        run_id=config.run_id,
        variant=run.variant,
        budget_flops=run.budget_flops,
        parameters=parameters(config.model).total,
        seed=config.seed,
        state=folder.state(),
        step=int(last.get("step", 0)),
        steps=config.steps,
        train_loss=loss if plain else None,
        validation_loss=None,
        reason=attempts[-1].reason if attempts else None,
        taken_up=False,
    )


def own_runs(
    study: Study, root: Path, results: Path, file: Path
) -> tuple[list[RunRecord], Assignment]:
    """Return the records of a study's runs, those that check others too, and whose they are.

    Args:
        study: what was studied; its precision is as `settled` finds it.
        root: its folder.
        results: where committed records lie.
        file: where the study is written, for the command that trains it.

    Raises:
        ValueError: no run that fits use has a record.
    """
    study = settled(study, root, results).study
    records = Ledger(study, root, results).records
    runs = assign(study, records)
    if not runs.variant_of:
        raise ValueError(
            f"no run of {study.name} has a record in {root} or {results / study.name}; "
            f"train it first: isoflop run {file}"
        )
    return [record for record in records if record.run_id in runs.all], runs
