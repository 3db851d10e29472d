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
from typing import Any, cast

from isoflop.config import Environment, PrecisionChoice, RunConfig
from isoflop.hardware import choose_precision
from isoflop.sweep.local.pool import Child

MOST_SECONDS = 120.0
"""Longest wait for all to be prepared, and then for what they measured."""
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

Measured = Callable[[], Any]
"""What measures, once it is prepared."""


def measure_apart(
    configs: Sequence[RunConfig], *, device: str, threads: int, environment: Mapping[str, str]
) -> PrecisionChoice:
    """Return which precision is faster, from a process forked from the server that trains.

    Of the runs the middle one by size is measured, in the environment variables of a run.

    Raises:
        ValueError: the process ended without an answer, or takes too long.
    """
    choose = partial(choose_precision, list(configs), device=device, threads=threads)
    try:
        (found,) = told([environment], partial, choose)
    except ValueError as error:
        raise ValueError(
            f"which precision is faster here could not be measured: {error}; expected that, or "
            'precision = "fp32" or "bf16" under [recipe]'
        ) from None
    return cast(PrecisionChoice, found)


def environment_apart(device: str) -> Environment:
    """Return the environment of runs here, from a process forked from the server that trains.

    Raises:
        ValueError: the process ended without an answer.
    """
    try:
        (found,) = told([{}], partial, _environment, device)
    except ValueError as error:
        raise ValueError(f"the versions here could not be asked for: {error}") from None
    return cast(Environment, found)


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
    given = list(configs), threads, device
    try:
        found = told(slots[: len(configs)], partial, _speeds, *given, seconds=PATIENCE_SECONDS)
    except ValueError:
        # What goes wrong here goes wrong in training, too, which tells it better.
        return None
    return [fmean(of_all) for of_all in zip(*found, strict=True)] if found else None


def told(
    environments: Sequence[Mapping[str, str]],
    prepare: Callable[..., Measured],
    *given: object,
    seconds: float = MOST_SECONDS,
) -> list[Any]:
    """Return what is measured in a process of each environment.

    All measure at the same time, once the last of them has prepared it; `partial` for `prepare`
    prepares nothing. Nothing is waited for before torch, which may be on its way, is in the server.
    If one of them is killed, all begin anew, once.

    Raises:
        ValueError: one of them cannot, or takes too long.
    """
    for again in (True, False):
        children = [Child(_working, dict(one), prepare, given, daemon=True) for one in environments]
        try:
            for child in children:
                child.line.recv()
            _heard(children, MOST_SECONDS)
            for child in children:
                child.line.send(None)
            return _heard(children, seconds)
        except (EOFError, OSError):
            if not again:
                raise ValueError("its process ended without a word") from None
        finally:
            for child in children:
                child.kill()
    raise AssertionError("the second time returns or raises")


def _heard(children: Sequence[Child], seconds: float) -> list[Any]:
    """Return the next word of each, within so many seconds; a ValueError where it tells of one."""
    until, heard = time.monotonic() + seconds, []
    for child in children:
        in_time = child.line.poll(max(0.0, until - time.monotonic()))
        word = child.line.recv() if in_time else "it takes too long"
        if isinstance(word, str):
            raise ValueError(word)
        heard.append(word)
    return heard


def _working(
    environment: Mapping[str, str],
    prepare: Callable[..., Measured],
    given: tuple[object, ...],
    line: Connection,
) -> None:
    """Say that the process is there, then that it is prepared, and what it measured; its entry."""
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    # Nobody may listen any more, where the study was given up meanwhile.
    with suppress(OSError, EOFError):
        line.send(None)
        try:
            measured = prepare(*given)
            line.send(None)
            line.recv()
            line.send(measured())
        except Exception as error:
            line.send(f"{type(error).__name__}: {error}")


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
