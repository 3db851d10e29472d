"""How fast this machine trains, measured in seconds, for the expected times of runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import count
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isoflop.config import AttentionKernel, ModelConfig, Routed, RunConfig
from isoflop.costs import parameters, train_flops_per_token
from isoflop.hardware import use_threads
from isoflop.model import build
from isoflop.training.optimisation.parametrisation import initialise
from isoflop.training.step import Trainer
from isoflop.variants import period

PROBE_BLOCKS = 4
"""Blocks that a measured model keeps: what a step costs per FLOP hardly depends on their number."""
PROBE_TOKENS = 4096
"""Tokens at most of a measured step, at least one sequence."""
PROBE_FLOPS = 5e10
"""FLOPs of a measured step above which it takes too long."""
SIZES = 3


def measure_speed(
    configs: Sequence[RunConfig],
    *,
    threads: int = 1,
    seconds: float = 0.5,
    sizes: int = SIZES,
    most_flops: float = PROBE_FLOPS,
    most_tokens: int = PROBE_TOKENS,
    device: str = "cpu",
) -> Callable[[RunConfig], float]:
    """Measure some of the runs' steps and return the training FLOP/s to expect of each run.

    Up to `sizes` models of each kind (same depth, attention, feed-forward, sequence length and
    precision) are measured with few blocks and tokens, uncompiled. Between them the speed is
    interpolated over log parameters, beyond them it stays. Runs that are compiled are faster.

    Args:
        configs: runs of a plan; the result knows their kinds.
        threads: of one run.
        seconds: spent on each measured model after its first step, which is not timed.
        sizes: models measured of each kind: the smallest, the largest, others between; at least 2.
        most_flops: FLOPs of a measured step above which only a kind's smallest model is measured.
        most_tokens: of a measured step; at least one sequence.
        device: where the steps are made.

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
            probes = _representatives(members, sizes, most_flops, most_tokens)
            points[kind] = (
                list(probes),
                [_measure(probe, seconds, device) for probe in probes.values()],
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


def own_step(
    config: RunConfig,
    *,
    device: str = "cpu",
    attention: AttentionKernel | None = None,
    **how: Any,
) -> Callable[[], None]:
    """Return a run's step, which waits for the device and raises where it is not finite.

    Args:
        config: the run.
        device: `cpu` or `cuda`.
        attention: what attends all keys; None for the rule.
        how: what else `Trainer` is told.
    """
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    model.attend_with(attention)
    trainer = Trainer(model.to(device), config, **how)
    tokens, index = random_tokens(config).to(device), count()

    def step() -> None:
        if not trainer.step(tokens, next(index), 1e-3).finite:
            raise RuntimeError("a step was not finite")

    return step


def random_tokens(config: RunConfig) -> Tensor:
    """Return a batch of random tokens, of shape (B, T + 1)."""
    shape = (config.sequences_per_step, config.data.sequence_length + 1)
    generator = torch.Generator().manual_seed(config.seed)
    return torch.randint(config.model.vocabulary, shape, generator=generator)


def _representatives(
    configs: Sequence[RunConfig], sizes: int, most_flops: float, most_tokens: int
) -> dict[float, RunConfig]:
    """Return probes of the smallest and the largest affordable run and of some between, by log
    size, ascending."""
    by_size = sorted({_log_size(config): config for config in configs}.items())
    probes = [(size, _probe(config, most_tokens)) for size, config in by_size]
    affordable = [(size, probe) for size, probe in probes if _step_flops(probe) <= most_flops]
    few = affordable or probes[:1]
    places = {round(i * (len(few) - 1) / (sizes - 1)) for i in range(sizes)}
    return dict(few[place] for place in sorted(places))


def _probe(config: RunConfig, most_tokens: int) -> RunConfig:
    """Return a run whose step is like that of `config` but cheaper."""
    sequences = max(1, most_tokens // config.data.sequence_length)
    return config.model_copy(
        update={
            "model": _fewer_blocks(config.model),
            "sequences_per_step": min(config.sequences_per_step, sequences),
        }
    )


def _fewer_blocks(model: ModelConfig) -> ModelConfig:
    """Return a model of few blocks in which the same share is routed."""
    every = period(model.own)
    if isinstance(model.depth, Routed):
        if model.depth.blocks is not None:
            return model
        every = math.lcm(every, model.depth.every)
    blocks = every * max(1, PROBE_BLOCKS // every)
    return model.model_copy(update={"blocks": min(model.blocks, blocks)})


def _measure(probe: RunConfig, seconds: float, device: str) -> float:
    """Return the FLOP/s of a run's step."""
    step = own_step(probe, device=device, compiled=False)
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
            model.block,
            config.data.sequence_length,
            config.recipe.precision,
        )
    )


def _log_size(config: RunConfig) -> float:
    return math.log(parameters(config.model).total)
