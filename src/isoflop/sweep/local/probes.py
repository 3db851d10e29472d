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

from isoflop.config import PrecisionChoice, RunConfig
from isoflop.hardware import choose_precision
from isoflop.sweep.local.pool import Child

MOST_SECONDS = 120.0
"""Wait for the figures of precisions, torch's import included."""
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

    Args:
        configs: runs of a study, of which the middle one by size is measured.
        device: what they are trained on.
        threads: of each on the CPU.
        environment: variables of the process, as of a run.

    Raises:
        ValueError: the process ended without an answer, or takes too long.
    """
    measure = partial(_choice, list(configs), device, threads)
    probe = Child(_work, measure, dict(environment), daemon=True)
    try:
        said = _hear(probe, MOST_SECONDS, late="it takes too long")
    except EOFError:
        said = "its process ended without a word"
    finally:
        probe.kill()
    if isinstance(said, PrecisionChoice):
        return said
    raise ValueError(
        f"which precision is faster here could not be measured: {said}; expected that, or "
        'precision = "fp32" or "bf16" under [recipe]'
    )


def measured_speeds(
    configs: Sequence[RunConfig],
    slots: Sequence[Mapping[str, str]],
    *,
    threads: int,
    device: str,
) -> list[float] | None:
    """Return the training FLOP/s of each run; None where it could not be measured in seconds.

    As many processes as will train do the same at once, and the mean counts: so each is as slow as
    it will be with the others beside it.

    Args:
        configs: runs whose speed is asked for, of which some are measured.
        slots: environment variables of each worker that may train at a time.
        threads: of each on a CPU.
        device: where the steps are made.
    """
    measure = partial(_speeds, list(configs), threads, device)
    probes = [Child(_work, measure, dict(slot), daemon=True) for slot in slots[: len(configs)]]
    told: list[Any] = []
    # One that is gone, or slower than anybody waits for, leaves the study without an expectation.
    with suppress(EOFError, OSError):
        try:
            # Before it is asked, torch may be on its way into the server, which takes its time.
            for probe in probes:
                _hear(probe, None)
            until = time.monotonic() + PATIENCE_SECONDS
            told = [_hear(probe, max(0.0, until - time.monotonic())) for probe in probes]
        finally:
            for probe in probes:
                probe.kill()
    if not told or None in told:
        return None
    return [fmean(of_all) for of_all in zip(*told, strict=True)]


def _hear(probe: Child, seconds: float | None, *, late: Any = None) -> Any:
    """Return what a process says next within a time, else `late`; EOFError where it is gone."""
    return probe.line.recv() if probe.line.poll(seconds) else late


def _work(
    measure: Callable[[Connection], None], environment: Mapping[str, str], line: Connection
) -> None:
    """Measure; the entry of the process."""
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    # Nobody may listen any more, where the study was given up meanwhile.
    with suppress(OSError):
        measure(line)


def _choice(configs: list[RunConfig], device: str, threads: int, line: Connection) -> None:
    """Send which precision is faster, or what went wrong."""
    found: PrecisionChoice | str
    try:
        found = choose_precision(configs, device=device, threads=threads)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    line.send(found)


def _speeds(configs: list[RunConfig], threads: int, device: str, line: Connection) -> None:
    """Send an empty list at the start, and then the speeds of runs."""
    from isoflop.training import measure_speed

    line.send([])
    # What goes wrong here goes wrong in training, too, which tells it better.
    with suppress(Exception):
        speed = measure_speed(
            configs,
            threads=threads,
            seconds=PROBE_SECONDS,
            sizes=PROBE_SIZES,
            most_flops=PROBE_FLOPS,
            most_tokens=PROBE_TOKENS,
            device=device,
        )
        line.send([speed(config) for config in configs])
