"""Measures how fast a study's runs will go, in processes of their own, before any is trained."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from statistics import fmean

from isoflop.config import RunConfig
from isoflop.sweep.pool import start_server

PROBE_SECONDS = 0.1
"""Spent on each measured model after its first step."""
PROBE_SIZES = 2
"""Models measured of each kind."""
PROBE_FLOPS = 3e9
"""FLOPs of a measured step above which only a kind's smallest model is measured."""
PROBE_TOKENS = 1024
PATIENCE_SECONDS = 15.0
"""Longest measurement, which takes about two on an idle machine; a study starts without it, too."""


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
    processes = [_Process(configs, slot, threads, device) for slot in slots[: len(configs)]]
    try:
        # Before it is asked, torch may be on its way into the server, which takes its time.
        for process in processes:
            process.hear(None)
        until = time.monotonic() + PATIENCE_SECONDS
        told = [process.hear(max(0.0, until - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.end()
    speeds = [one for one in told if one is not None]
    if not speeds or len(speeds) < len(told):
        return None
    return [fmean(of_all) for of_all in zip(*speeds, strict=True)]


class _Process:
    """A process that says that it begins, with an empty list, and then the speeds of runs."""

    def __init__(
        self, configs: Sequence[RunConfig], slot: Mapping[str, str], threads: int, device: str
    ) -> None:
        context = start_server()
        self._line, theirs = context.Pipe(duplex=False)
        arguments = (theirs, list(configs), dict(slot), threads, device)
        self._process: BaseProcess = context.Process(target=_measure, args=arguments, daemon=True)
        try:
            self._process.start()
        finally:
            theirs.close()

    def hear(self, seconds: float | None) -> list[float] | None:
        """Return what it says next within a time; None if nothing, or if it is gone."""
        with suppress(EOFError, OSError):
            if self._line.poll(seconds):
                said: list[float] = self._line.recv()
                return said
        return None

    def end(self) -> None:
        """End the process where it has not ended by itself."""
        self._line.close()
        self._process.kill()
        self._process.join()


def _measure(
    line: Connection,
    configs: list[RunConfig],
    environment: Mapping[str, str],
    threads: int,
    device: str,
) -> None:
    """Say how fast runs are; the entry of the process."""
    os.environ.update(environment)
    warnings.simplefilter("ignore")
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
