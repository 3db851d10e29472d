"""Measures in processes of their own what training will be like: the scheduler imports no torch."""

from __future__ import annotations

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
from isoflop.hardware import choose_precision
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
