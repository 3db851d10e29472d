"""What a study will take, before anything is trained: its first runs and a bound on the rest."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from isoflop.config import Frozen, RunConfig, Study
from isoflop.costs import forward_flops, parameters
from isoflop.planning.cell import PlannedRun
from isoflop.planning.grid import Bound, bound, next_runs
from isoflop.planning.recipe import achieved_flops, ladder
from isoflop.planning.warnings import estimate_memory, run_warnings, short_flops

Speed = Callable[[RunConfig], float]
"""Training FLOP/s that one run achieves, counted in the run's own convention."""


class Accelerator(Frozen):
    """What a device's maker states."""

    peak_flops: float
    """Dense bf16 matrix products, FLOP/s."""
    memory_bytes: float


ACCELERATORS: dict[str, Accelerator] = {
    "A100-40G": Accelerator(peak_flops=312e12, memory_bytes=40e9),
    "A100-80G": Accelerator(peak_flops=312e12, memory_bytes=80e9),
    "H100-PCIe": Accelerator(peak_flops=756e12, memory_bytes=80e9),
    "H100-SXM": Accelerator(peak_flops=989e12, memory_bytes=80e9),
    "H200": Accelerator(peak_flops=989e12, memory_bytes=141e9),
    "L40S": Accelerator(peak_flops=362e12, memory_bytes=48e9),
    "RTX4090": Accelerator(peak_flops=165e12, memory_bytes=24e9),
    "TPUv4": Accelerator(peak_flops=275e12, memory_bytes=32e9),
    "TPUv5e": Accelerator(peak_flops=197e12, memory_bytes=16e9),
    "TPUv5p": Accelerator(peak_flops=459e12, memory_bytes=95e9),
}


def accelerator(name: str) -> Accelerator:
    """Return a known accelerator, whatever the case of its name.

    Raises:
        ValueError: If there is none of that name.
    """
    for known, device in ACCELERATORS.items():
        if known.lower() == name.lower():
            return device
    raise ValueError(f"accelerator is {name!r}; expected one of {', '.join(ACCELERATORS)}")


def accelerator_speed(name: str, utilisation: float = 0.4, devices: int = 1) -> Speed:
    """Return the speed of runs on a number of accelerators each.

    Args:
        name: A key of `ACCELERATORS`.
        utilisation: Achieved FLOP/s over the peak, above 0 and at most 1.
        devices: Accelerators that share one run.

    Raises:
        ValueError: If the name is unknown or a number is out of range.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation}; expected above 0 and at most 1")
    if devices < 1:
        raise ValueError(f"devices is {devices}; expected at least 1")
    achieved = accelerator(name).peak_flops * utilisation * devices
    return lambda config: achieved


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
    """Estimated memory of training with a whole step held at a time; see `estimate_memory`."""
    seconds: float | None
    """Expected time of training; None where no speed is given."""
    warnings: tuple[str, ...]


class Plan(Frozen):
    """The first runs of a study, their totals, and what may be added."""

    study: str
    convention: str
    scaling: bool
    """Whether the study names its sizes, so that nothing will be added."""
    rows: tuple[PlannedRow, ...]
    bound: Bound
    workers: int
    """Runs that are trained at a time."""
    warnings: tuple[str, ...]
    """What concerns the study as a whole."""

    @property
    def total_flops(self) -> float:
        """Achieved training FLOPs of the first runs."""
        return sum(row.achieved_flops for row in self.rows)

    @property
    def busy_seconds(self) -> float | None:
        """Time of the first runs, one after the other; None where no speed is given."""
        seconds = _known([row.seconds for row in self.rows])
        return None if seconds is None else sum(seconds)

    @property
    def elapsed_seconds(self) -> float | None:
        """Time until the first runs are done, `workers` at a time, started in order."""
        seconds = _known([row.seconds for row in self.rows])
        return None if seconds is None else makespan(seconds, self.workers)

    @property
    def bound_seconds(self) -> float | None:
        """Time until everything is done if all that may be added is, at the mean speed so far."""
        return self._with_added(self.bound.flops)

    @property
    def usual_seconds(self) -> float | None:
        """Like `bound_seconds` for what is usually added."""
        return self._with_added(self.bound.usual_flops)

    def _with_added(self, flops: float) -> float | None:
        busy, elapsed = self.busy_seconds, self.elapsed_seconds
        if busy is None or elapsed is None:
            return None
        return elapsed + busy * flops / self.total_flops / self.workers


def make_plan(
    study: Study,
    *,
    train_tokens: int | None = None,
    speed: Speed | None = None,
    workers: int = 1,
    memory_bytes: float | None = None,
) -> Plan:
    """Plan a study without reading its corpus or touching a device.

    Args:
        study: What is asked.
        train_tokens: Tokens that an epoch goes through; None where the corpus is not at hand.
        speed: FLOP/s of a run, from a measurement or `accelerator_speed`; None for no times.
            It is the speed of one of `workers` runs while all of them are going.
        workers: Runs trained at a time.
        memory_bytes: Memory that one run may use; None for no warnings about it.

    Raises:
        ValueError: If a first run cannot be trained within its budget, or a number is out of
            range.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; expected at least 1")
    if train_tokens is not None and train_tokens < 1:
        raise ValueError(f"train_tokens is {train_tokens}; expected at least 1")
    rows = tuple(_row(run, train_tokens, speed, memory_bytes) for run in next_runs(study, []))
    return Plan(
        study=study.name,
        convention=study.convention,
        scaling=study.scaling is not None,
        rows=rows,
        bound=bound(study),
        workers=workers,
        warnings=_study_warnings(study, train_tokens),
    )


def _row(
    run: PlannedRun, train_tokens: int | None, speed: Speed | None, memory_bytes: float | None
) -> PlannedRow:
    config = run.config
    epochs = None if train_tokens is None else config.tokens / train_tokens
    flops = achieved_flops(config)
    return PlannedRow(
        variant=run.variant,
        budget_flops=run.budget_flops,
        seed=config.seed,
        learning_rate=config.recipe.learning_rate,
        run_id=config.run_id,
        width=config.model.width,
        blocks=config.model.blocks,
        heads=config.model.heads,
        parameters=parameters(config.model).total,
        tokens=config.tokens,
        tokens_per_step=config.tokens_per_step,
        steps=config.steps,
        epochs=epochs,
        achieved_flops=flops,
        forward_flops_per_token=forward_flops(
            config.model, config.data.sequence_length, config.convention
        ).per_token,
        memory_bytes=estimate_memory(config).total_bytes,
        seconds=None if speed is None else flops / _positive(speed(config)),
        warnings=run_warnings(config, train_tokens, memory_bytes),
    )


def _study_warnings(study: Study, train_tokens: int | None) -> tuple[str, ...]:
    warnings = []
    if train_tokens is None:
        corpora = ", ".join(study.data.corpora)
        warnings.append(f"the corpus ({corpora}) is not at hand: epochs are not known")
    for budget in study.budgets_flops:
        for variant in study.variants:
            sizes = len(ladder(study, variant, budget).initial)
            if sizes < study.grid.sizes:
                warnings.append(
                    f"{variant.name!r} at {short_flops(budget)} FLOPs has {sizes} sizes within "
                    f"the grid's bounds instead of {study.grid.sizes}"
                )
    return tuple(warnings)


def _positive(flops_per_second: float) -> float:
    if not flops_per_second > 0:
        raise ValueError(f"speed is {flops_per_second} FLOP/s; expected a positive number")
    return flops_per_second


def _known(seconds: Sequence[float | None]) -> list[float] | None:
    known = [value for value in seconds if value is not None]
    return known if len(known) == len(seconds) else None


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of the runs ends if each starts on the first worker that is free."""
    free = [0.0] * workers
    for duration in seconds:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)
