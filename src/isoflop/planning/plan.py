"""What a study will take, before anything is trained: its first runs and a bound on the rest.

Also what its models cost, as rows.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from pydantic import Field

from isoflop.config import (
    STALE_NATS,
    Convention,
    Frozen,
    ModelConfig,
    ParameterCount,
    Recompute,
    RunConfig,
    Study,
)
from isoflop.costs import cache_bytes, forward_flops, parameters, train_flops_per_token
from isoflop.estimate import Power
from isoflop.hardware.accelerators import Speed
from isoflop.memory import USED, estimate_memory, fitting_step, smallest_step
from isoflop.planning.cell import PlannedRun, cells
from isoflop.planning.grid import Bound, bound, foreseen_runs, next_runs
from isoflop.planning.recipe import achieved_flops
from isoflop.planning.scaling import scaling_runs
from isoflop.planning.sizes import FEWEST_SIZES
from isoflop.planning.warnings import run_warnings, short_flops, what_would_fit


def parents(runs: Iterable[RunConfig]) -> dict[str, RunConfig]:
    """Return by run id the longest shorter run whose stable steps a run begins with, if any."""
    found: dict[str, RunConfig] = {}
    longest: dict[str, RunConfig] = {}
    named = {run.run_id: run for run in runs if run.stable_steps}
    for run_id, run in sorted(named.items(), key=lambda one: (one[1].steps, one[0])):
        stem = run.stem
        if stem in longest:
            found[run_id] = longest[stem]
        longest[stem] = run
    return found


class PlannedRow(Frozen):
    """One of the first runs of a study, and what it takes."""

    variant: str
    budget_flops: float
    """Nominal training FLOPs."""
    seed: int
    learning_rate: float
    run_id: str
    width: int
    blocks: int
    heads: int
    parameters: int
    """Total parameters."""
    tokens: int
    tokens_per_step: int
    steps: int
    epochs: float | None
    """Passes over the training split; None where its size is not known."""
    achieved_flops: float
    """Training FLOPs of the whole steps, in the study's convention."""
    forward_flops_per_token: float
    memory_bytes: int
    """Estimated memory of training; see `isoflop.memory`."""
    micro_batch: int | None
    """Sequences that are held at a time, as many as fit; None where a step is held whole."""
    recompute: Recompute
    """What blocks compute again in their backward pass: as little as can be."""
    seconds: float | None
    """Expected time of training, in its own steps; None where no speed is given."""
    steps_per_second: float | None
    does_not_fit: str | None
    """What would hold it, where the memory there is cannot; None where it fits."""
    warnings: tuple[str, ...]
    parent: str | None = Field(default=None, exclude_if=lambda run_id: run_id is None)
    """Run whose first steps are this one's too (`Study.reuse`); not written where there is none."""
    parent_step: int = Field(default=0, exclude_if=lambda steps: not steps)
    """How many these are."""


class Plan(Frozen):
    """The first runs of a study, their totals, and what may be added."""

    study: str
    convention: str
    scaling: bool
    """Whether the study names its sizes, so that nothing will be added."""
    rows: tuple[PlannedRow, ...]
    bound: Bound
    device: str
    """`cuda` or `cpu`, on which one run each is trained."""
    workers: int
    """Runs that are trained at a time."""
    warnings: tuple[str, ...]
    """What concerns the study as a whole."""
    power: Power | None = None
    """What it will resolve; None where no recorded run tells the noise."""
    start: str | None = Field(default=None, exclude_if=lambda words: words is None)
    """The checkpoint that its runs start from, in words; not written where there is none."""

    @property
    def compares(self) -> bool:
        """Whether minima of two variants are to be compared."""
        sizes = {(row.variant, row.parameters) for row in self.rows}
        counts = Counter(variant for variant, _ in sizes)
        return not self.scaling and len(counts) > 1 and min(counts.values()) > 2

    @property
    def total_flops(self) -> float:
        """Achieved training FLOPs of the first runs."""
        return sum(row.achieved_flops for row in self.rows)

    @property
    def spent_flops(self) -> float:
        """Those of them that are spent, as shared steps are made once."""
        return sum(row.achieved_flops * (1 - row.parent_step / row.steps) for row in self.rows)

    @property
    def _seconds(self) -> list[float]:
        """Of each first run, in the order of their start; none where no speed is given."""
        rows = sorted(self.rows, key=lambda row: -row.budget_flops)
        return [row.seconds for row in rows if row.seconds is not None]

    @property
    def elapsed_seconds(self) -> float | None:
        """Time until the first runs are done, `workers` at a time, the longest started first."""
        return makespan(self._seconds, self.workers) if self._seconds else None

    @property
    def idle_share(self) -> float | None:
        """Share of that time in which workers wait for the last runs."""
        elapsed = self.elapsed_seconds
        return 1 - sum(self._seconds) / (self.workers * elapsed) if elapsed else None

    @property
    def bound_seconds(self) -> float | None:
        """Time until everything is done if all that may be added is, at the mean speed so far."""
        return self._with_added(self.bound.flops)

    @property
    def usual_seconds(self) -> float | None:
        """Like `bound_seconds` for what is usually added."""
        return self._with_added(self.bound.usual_flops)

    @property
    def gpu_hours(self) -> dict[str, float] | None:
        """Hours of one device that the first runs take, these with what is usually added, and at
        most; None on a CPU, and where no speed is given."""
        if self.device != "cuda" or not self._seconds:
            return None
        hours = sum(self._seconds) / 3600
        added = {"first": 0.0, "usual": self.bound.usual_flops, "at_most": self.bound.flops}
        return {name: hours * (1 + flops / self.spent_flops) for name, flops in added.items()}

    def _with_added(self, flops: float) -> float | None:
        elapsed = self.elapsed_seconds
        if elapsed is None:
            return None
        return elapsed + sum(self._seconds) * flops / self.spent_flops / self.workers


def make_plan(
    study: Study,
    *,
    train_tokens: int | None = None,
    speed: Speed | None = None,
    workers: int = 1,
    memory_bytes: float | None = None,
    device: str = "cuda",
) -> Plan:
    """Plan a study without reading its corpus or touching a device.

    Args:
        study: What is asked.
        train_tokens: Tokens that an epoch goes through; None where the corpus is not at hand.
        speed: FLOP/s of a run, from a measurement or `hardware.accelerators`; None for no times.
            It is the speed of one of `workers` runs while all of them are going.
        workers: Runs trained at a time.
        memory_bytes: Memory that one run may use; None for as much as a whole step needs.
        device: `cuda` or `cpu`, on which it is used.

    Raises:
        ValueError: If a first run cannot be trained within its budget, or a number is out of
            range.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; expected at least 1")
    if train_tokens is not None and train_tokens < 1:
        raise ValueError(f"train_tokens is {train_tokens}; expected at least 1")
    runs = foreseen_runs(study)
    shared = parents(run.config for run in runs) if study.reuse else {}
    rows = tuple(_row(run, train_tokens, speed, memory_bytes, device, shared) for run in runs)
    return Plan(
        study=study.name,
        convention=study.convention,
        scaling=study.scaling is not None,
        rows=rows,
        bound=bound(study),
        device=device,
        workers=workers,
        warnings=tuple(_study_warnings(study, train_tokens, shared)),
        start=study.start and study.start.words,
    )


def _row(
    run: PlannedRun,
    train_tokens: int | None,
    speed: Speed | None,
    memory_bytes: float | None,
    device: str,
    shared: Mapping[str, RunConfig],
) -> PlannedRow:
    config, model = run.config, run.config.model
    flops, parent = achieved_flops(config), shared.get(config.run_id)
    parent_step = 0 if parent is None else parent.stable_steps
    own = flops * (1 - parent_step / config.steps)
    per_second = None if speed is None else speed(config)
    if per_second is not None and not per_second > 0:
        raise ValueError(f"speed is {per_second} FLOP/s; expected a positive number")
    forward = forward_flops(model, config.data.sequence_length, config.convention)
    step, unfit = estimate_memory(config, device=device), None
    if memory_bytes is not None:
        fitting = fitting_step(config, USED[device] * memory_bytes, device)
        step = fitting or smallest_step(config, device)
        unfit = None if fitting else what_would_fit(step, memory_bytes, device)
    same = ("seed", "run_id", "tokens", "tokens_per_step", "steps")
    return PlannedRow(
        variant=run.variant,
        budget_flops=run.budget_flops,
        learning_rate=config.recipe.learning_rate,
        width=model.width,
        blocks=model.blocks,
        heads=model.heads,
        parameters=parameters(model).total,
        epochs=None if train_tokens is None else config.tokens / train_tokens,
        achieved_flops=flops,
        forward_flops_per_token=forward.per_token,
        memory_bytes=step.total_bytes,
        micro_batch=None if step.sequences == config.sequences_per_step else step.sequences,
        recompute=step.recompute,
        seconds=None if per_second is None else own / per_second,
        steps_per_second=None if per_second is None else config.steps * per_second / flops,
        does_not_fit=unfit,
        warnings=tuple(run_warnings(config, train_tokens)),
        parent=parent and parent.run_id,
        parent_step=parent_step,
        **{name: getattr(config, name) for name in same},
    )


def _study_warnings(
    study: Study, train_tokens: int | None, shared: Mapping[str, RunConfig]
) -> Iterator[str]:
    if study.reuse and not shared:
        yield "reuse = true, but no two of these runs differ in length alone: nothing is shared"
    if train_tokens is None:
        corpora = ", ".join(study.data.corpora)
        yield f"the corpus ({corpora}) is not at hand: epochs are not known"
    if study.checks_first:
        why = f"rates were found with another {', '.join(study.differs)}; " if study.differs else ""
        yield (
            f"{why}the first {len(next_runs(study, []))} runs check them, and the others follow "
            f"unless a rate is over {STALE_NATS:g} nats better than its variant's own"
        )
    grid, centre = study.grid, (study.grid.sizes - 1) // 2
    sides = {"smaller": centre - grid.margin, "larger": centre + grid.margin}
    for cell in cells(study):
        where = f"{cell.variant.name!r} at {short_flops(cell.budget_flops)} FLOPs has"
        short = [side for side, rung in sides.items() if cell.ladder.rung(rung) is None]
        if (sizes := len(cell.initial)) < grid.sizes:
            yield f"{where} {sizes} sizes within the grid's bounds instead of {grid.sizes}"
        elif short and study.start is None and grid.sizes >= FEWEST_SIZES:
            yield (
                f"{where} fewer than {grid.margin} sizes {short[0]} than its expected optimum of "
                f"{cell.ladder.centre_parameters:,.0f} parameters, which a minimum there needs: "
                "the grid's bounds, or the smallest shape, leave no more"
            )


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of the runs ends if each starts on the first worker that is free."""
    free = [0.0] * max(1, min(workers, len(seconds)))
    for duration in seconds:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


class CostRow(Frozen):
    """Parameters, FLOPs per token and cache bytes of one model."""

    name: str
    budget_flops: float | None
    model: ModelConfig
    sequence_length: int
    parameters: ParameterCount
    convention: Convention
    """The one that the budget is counted in."""
    forward_flops: dict[str, float]
    """Per token, by convention."""
    train_flops: dict[str, float]
    """Per token, by convention."""
    forward_parts: dict[str, dict[str, float]]
    """Forward FLOPs per token, by convention and part."""
    cache_bytes: int
    """Key/value cache of one sequence in bf16."""


def cost_rows(config: Study | RunConfig) -> list[CostRow]:
    """Return the costs of a run's model, or of each variant at its expected optimum by budget.

    Of a scaling study, those of each variant at each size. They are the same in any precision.

    Raises:
        ValueError: a variant has no size within the bounds of the study's grid.
    """
    named: list[tuple[str, float | None, ModelConfig]]
    if isinstance(config, RunConfig):
        named = [("run", config.budget_flops, config.model)]
    elif config.scaling is not None:
        runs = scaling_runs(config.with_precision("bf16"))
        first = [run for run in runs if run.purpose == "initial"]
        named = [(run.variant, run.budget_flops, run.config.model) for run in first]
    else:
        named = [(one.variant.name, one.budget_flops, one.middle) for one in cells(config)]
    length, convention = config.data.sequence_length, config.convention
    return [_cost_row(*one, length, convention) for one in named]


def _cost_row(
    name: str, budget: float | None, model: ModelConfig, length: int, convention: Convention
) -> CostRow:
    forward = {c: forward_flops(model, length, c) for c in CONVENTIONS}
    return CostRow(
        name=name,
        budget_flops=budget,
        model=model,
        sequence_length=length,
        parameters=parameters(model),
        convention=convention,
        forward_flops={c: flops.per_token for c, flops in forward.items()},
        train_flops={c: train_flops_per_token(model, length, c) for c in CONVENTIONS},
        forward_parts={
            c: {name: part / length for name, part in flops.parts.items()}
            for c, flops in forward.items()
        },
        cache_bytes=cache_bytes(model, length),
    )
