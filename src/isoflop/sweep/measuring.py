"""Measures precisions in a process of its own, since the scheduler imports no torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Protocol

from isoflop.config import PrecisionChoice, RunConfig
from isoflop.hardware import choose_precision
from isoflop.sweep.pool import start_server

MOST_SECONDS = 120.0
"""Wait for the figures, torch's import included."""


class Measurer(Protocol):
    """What measures which precision is faster."""

    def __call__(
        self,
        configs: Sequence[RunConfig],
        *,
        device: str,
        threads: int,
        environment: Mapping[str, str],
    ) -> PrecisionChoice:
        """Return what `choose_precision` finds, in a process with these variables."""


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
    context = start_server()
    line, theirs = context.Pipe(duplex=False)
    arguments = (theirs, list(configs), device, threads, dict(environment))
    process = context.Process(target=_measure, args=arguments, daemon=True)
    try:
        process.start()
        theirs.close()
        said = line.recv() if line.poll(MOST_SECONDS) else "it takes too long"
    except EOFError:
        said = "its process ended without a word"
    finally:
        line.close()
        theirs.close()
        if process.pid is not None:
            process.kill()
            process.join()
    if isinstance(said, PrecisionChoice):
        return said
    raise ValueError(
        f"which precision is faster here could not be measured: {said}; expected that, or "
        'precision = "fp32" or "bf16" under [recipe]'
    )


def _measure(
    line: Connection,
    configs: list[RunConfig],
    device: str,
    threads: int,
    environment: Mapping[str, str],
) -> None:
    """Send what was found, or what went wrong; the entry of the process."""
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    found: PrecisionChoice | str
    try:
        found = choose_precision(configs, device=device, threads=threads)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    # Nobody may listen any more, where the study was given up meanwhile.
    with suppress(OSError):
        line.send(found)
