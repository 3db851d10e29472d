"""Measures in processes of their own what training will be like: the scheduler imports no torch."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from statistics import fmean
from typing import Any

from isoflop.config import Environment, PrecisionChoice, RunConfig
from isoflop.hardware import choose_precision, usable_cores
from isoflop.memory import USED, estimate_memory
from isoflop.planning import PlannedRun
from isoflop.sweep.local.pool import Child

MOST_SECONDS = 120.0
"""Wait for the figures of precisions."""
PROBE_SECONDS = 0.1
"""Spent on each measured model after its first step."""
PROBE_SIZES = 2
"""Models measured of each kind."""
PROBE_FLOPS = 3e9
"""FLOPs of a measured step above which only a kind's smallest model is measured."""
PROBE_TOKENS = 1024
PATIENCE_SECONDS = 15.0
"""Longest measurement of speeds, which takes about two on an idle machine; a study starts without
it, too."""
MOST_SHARING = 16
"""Runs that share a CUDA device at most."""
WORTH_SHARING = 1.1
"""Gain in speed of all runs together from which on twice as many share a device."""
OF_A_PROCESS = 2**30
"""Bytes of a CUDA device that a process takes besides its run: its context and libraries."""


def measure_apart(
    configs: Sequence[RunConfig], *, device: str, threads: int, environment: Mapping[str, str]
) -> PrecisionChoice:
    """Return which precision is faster, from a process forked from the server that trains.

    Of the runs the middle one by size is measured, in the environment variables of a run.

    Raises:
        ValueError: the process ended without an answer, or takes too long.
    """
    choose = partial(choose_precision, list(configs), device=device, threads=threads)
    (said,) = _answers(choose, [environment], MOST_SECONDS)
    if isinstance(said, PrecisionChoice):
        return said
    raise ValueError(
        f"which precision is faster here could not be measured: {said}; expected that, or "
        'precision = "fp32" or "bf16" under [recipe]'
    )


def environment_apart(device: str) -> Environment:
    """Return the environment of runs here, from a process forked from the server that trains.

    Raises:
        ValueError: the process ended without an answer.
    """
    (said,) = _answers(partial(_environment, device), [{}], MOST_SECONDS)
    if not isinstance(said, Environment):
        raise ValueError(f"the versions here could not be asked for: {said}")
    return said


def _environment(device: str) -> Environment:
    from isoflop.training import environment

    return environment(device, threads=1, compiled=False)


def measured_speeds(
    configs: Sequence[RunConfig],
    slots: Sequence[Mapping[str, str]],
    *,
    threads: int,
    device: str,
) -> list[float] | None:
    """Return the training FLOP/s of each run; None where it could not be measured in seconds.

    As many processes as will train do the same at once, and the mean counts: so each is as slow as
    it will be with the others beside it. A slot is the environment variables of a worker.
    """
    measure = partial(_speeds, list(configs), threads, device)
    told = _answers(measure, slots[: len(configs)], PATIENCE_SECONDS)
    # What goes wrong here goes wrong in training, too, which tells it better.
    if not told or not all(isinstance(one, list) for one in told):
        return None
    return [fmean(of_all) for of_all in zip(*told, strict=True)]


def runs_per_device(
    runs: Sequence[PlannedRun], slots: Sequence[Mapping[str, str]], *, threads: int
) -> int:
    """Return how many of a study's runs share each CUDA device.

    Whole steps of so many of the largest fit what is free on the first device, there are runs and
    cores for all, and twice as many are tried for as long as all together get faster by it.

    Args:
        runs: that are to be trained.
        slots: environment variables of a worker on each device.
        threads: of each run.
    """
    configs = [run.config for run in runs]
    (free,) = _answers(_free_on_device, slots[:1], MOST_SECONDS)
    if not configs or not isinstance(free, float):
        return 1
    each = OF_A_PROCESS + max(estimate_memory(config).total_bytes for config in configs)
    processes = min(len(configs), usable_cores().count // threads) / len(slots)
    found, seconds, tried = 1, math.inf, 1
    while tried <= min(MOST_SHARING, processes, free / each):
        speeds = measured_speeds(configs, [*slots[:1]] * tried, threads=threads, device="cuda")
        if speeds is None:
            break
        now = sum(run.budget_flops / speed for run, speed in zip(runs, speeds, strict=True))
        if seconds < WORTH_SHARING * now / tried:
            break
        found, seconds, tried = tried, now / tried, 2 * tried
    return found


def _free_on_device() -> float:
    import torch

    return USED["cuda"] * torch.cuda.mem_get_info()[0]


def _answers(
    work: Callable[[], Any], environments: Sequence[Mapping[str, str]], seconds: float
) -> list[Any]:
    """Return what `work` gives in a process of each environment, all at once, or why it does not.

    The wait for the answers begins once torch, which may be on its way, is in the server.
    """
    children = [Child(_answer, work, dict(one), daemon=True) for one in environments]
    try:
        for child in children:
            child.line.recv()
        until = time.monotonic() + seconds
        return [
            child.line.recv()
            if child.line.poll(max(0.0, until - time.monotonic()))
            else "it takes too long"
            for child in children
        ]
    except (EOFError, OSError):
        return ["its process ended without a word"] * len(children)
    finally:
        for child in children:
            child.kill()


def _answer(work: Callable[[], Any], environment: Mapping[str, str], line: Connection) -> None:
    """Say that the process is there, and then what comes of `work`; its entry."""
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    # Nobody may listen any more, where the study was given up meanwhile.
    with suppress(OSError):
        line.send(None)
        try:
            found = work()
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        line.send(found)


def _speeds(configs: list[RunConfig], threads: int, device: str) -> list[float]:
    from isoflop.training import measure_speed

    speed = measure_speed(
        configs,
        threads=threads,
        seconds=PROBE_SECONDS,
        sizes=PROBE_SIZES,
        most_flops=PROBE_FLOPS,
        most_tokens=PROBE_TOKENS,
        device=device,
    )
    return [speed(config) for config in configs]
