"""How fast this machine trains, measured in seconds, for a plan's expected times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from isoflop.bench.cases import Case
from isoflop.bench.steps import prepare_step
from isoflop.config import ModelConfig, Routed, RunConfig
from isoflop.costs import parameters, train_flops_per_token
from isoflop.hardware import use_threads

PROBE_BLOCKS = 4
"""Blocks that a measured model keeps: what a step costs per FLOP hardly depends on their number."""
PROBE_TOKENS = 4096
"""Tokens at most of a measured step, at least one sequence."""
PROBE_FLOPS = 5e10
"""FLOPs of a measured step above which only a kind's smallest model is measured."""
SIZES = 3
"""Models measured of each kind: the smallest, the largest that is affordable, one between."""


def measure_speed(
    configs: Sequence[RunConfig], *, threads: int = 1, seconds: float = 0.5
) -> Callable[[RunConfig], float]:
    """Measure some of the runs' steps and return the training FLOP/s to expect of each run.

    Up to `SIZES` models of each kind (same depth, attention, feed-forward, sequence length and
    precision) are measured with few blocks and tokens, uncompiled. Between them the speed is
    interpolated over log parameters, beyond them it stays. Runs that are compiled are faster.

    Args:
        configs: runs of a plan; the result knows their kinds.
        threads: of one run.
        seconds: spent on each measured model after its first step, which is not timed.

    Returns:
        A function from a run to FLOP/s in the run's own convention.

    Raises:
        ValueError: the number of threads is not positive; from the returned function, a run of a
            kind that was not measured.
    """
    kinds: dict[str, list[RunConfig]] = {}
    for config in configs:
        kinds.setdefault(_kind(config), []).append(config)
    points: dict[str, tuple[list[float], list[float]]] = {}
    with use_threads(threads):
        for kind, members in kinds.items():
            chosen = _representatives(members)
            points[kind] = (
                [_log_size(config) for config in chosen],
                [_measure(_probe(config), seconds) for config in chosen],
            )

    def speed(config: RunConfig) -> float:
        known = points.get(_kind(config))
        if known is None:
            raise ValueError(
                f"no speed was measured for a model with depth {config.model.depth.kind!r} and "
                f"sequences of {config.data.sequence_length} tokens; expected one like those given"
            )
        return float(np.interp(_log_size(config), *known))

    return speed


def _representatives(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the smallest, a middle and the largest affordable run, ascending and distinct."""
    by_size = sorted({_log_size(config): config for config in configs}.items())
    ordered = [config for _, config in by_size]
    affordable = [config for config in ordered if _step_flops(_probe(config)) <= PROBE_FLOPS]
    few = affordable or ordered[:1]
    places = {round(i * (len(few) - 1) / (SIZES - 1)) for i in range(SIZES)}
    return [few[place] for place in sorted(places)]


def _probe(config: RunConfig) -> RunConfig:
    """Return a run whose step is like that of `config` but cheaper."""
    sequences = max(1, PROBE_TOKENS // config.data.sequence_length)
    return config.model_copy(
        update={
            "model": _fewer_blocks(config.model),
            "sequences_per_step": min(config.sequences_per_step, sequences),
        }
    )


def _fewer_blocks(model: ModelConfig) -> ModelConfig:
    """Return a model of few blocks in which the same share is routed."""
    every = 1
    if isinstance(model.depth, Routed):
        if model.depth.blocks is not None:
            return model
        every = model.depth.every
    blocks = every * max(1, PROBE_BLOCKS // every)
    return model.model_copy(update={"blocks": min(model.blocks, blocks)})


def _measure(probe: RunConfig, seconds: float) -> float:
    """Return the FLOP/s of a run's step."""
    step = prepare_step(Case(variant="probe", config=probe, compiled=False))
    step()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return _step_flops(probe) / median(times)


def _step_flops(config: RunConfig) -> float:
    return config.tokens_per_step * train_flops_per_token(
        config.model, config.data.sequence_length, config.convention
    )


def _kind(config: RunConfig) -> str:
    """Return what two runs share whose speeds lie on one curve."""
    model = config.model
    return repr(
        (
            model.attention,
            model.depth,
            model.feed_forward,
            config.data.sequence_length,
            config.recipe.precision,
        )
    )


def _log_size(config: RunConfig) -> float:
    return math.log(parameters(config.model).total)
