"""The machine: whether it is idle, what memory a call holds, how fast it multiplies matrices."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from isoflop.config import Precision
from isoflop.hardware import use_threads

BUSY_CORES = 0.15
"""Cores in use by others above which a measurement would not be worth its ink."""
SAMPLE_SECONDS = 1.0
GEMM_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}
"""Sides of the square matrices whose product is timed."""
GEMM_SECONDS = 0.3
"""Time spent on each size."""

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}

Given = ParamSpec("Given")
Found = TypeVar("Found")

_STAT = Path("/proc/stat")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_IDLE, _WAITING, _COUNTED = 3, 4, 8


def busy() -> str | None:
    """Return why a measurement now would be wrong, None when the machine is idle.

    Cores used by this process itself do not count. Time that a hypervisor takes away does.
    """
    before = _used_seconds()
    if before is None:
        return f"{_STAT} is missing here, so nothing tells whether other processes are at work"
    own, started = time.process_time(), time.perf_counter()
    time.sleep(SAMPLE_SECONDS)
    after = _used_seconds()
    assert after is not None
    others = after - before - (time.process_time() - own)
    cores = others / (time.perf_counter() - started)
    if cores <= BUSY_CORES:
        return None
    return f"other processes use {cores:.2f} cores of this machine (at most {BUSY_CORES} is idle)"


def check_device(device: str) -> None:
    """Raise a ValueError where torch sees no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")


def in_fresh_process(
    function: Callable[Given, Found], *given: Given.args, **named: Given.kwargs
) -> Found:
    """Return what a function gives in a process that did nothing before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *given, **named).result()


def grown_bytes(call: Callable[[], object], device: str = "cpu") -> int | None:
    """Return the most memory that a call held above what was held before, None where untold.

    On a CPU that is of the whole process, as the system counts it. `ru_maxrss` would also count
    the process that started this one.

    Args:
        call: what is measured.
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - held
    with suppress(OSError, AttributeError):
        # Freed memory goes back to the system, so that it does not count as held.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _told_bytes("VmRSS")
    try:
        # Sets the peak back to what is held now (proc(5)).
        _CLEAR.write_text("5")
    except OSError:
        return None
    call()
    after = _told_bytes("VmHWM")
    return None if before is None or after is None else after - before


def _told_bytes(name: str) -> int | None:
    """Return a number of bytes from the process's table in kilobytes, None where it has none."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def gemm_peak(
    precision: Precision,
    threads: int,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the best FLOP/s of a square matrix product, over several sizes.

    Args:
        precision: of the factors.
        threads: cores to use.
        device: `cpu` or `cuda`.
        clock: in seconds.
    """
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    best = 0.0
    with use_threads(threads):
        for size in GEMM_SIZES[device]:
            left, right, out = (
                torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(3)
            )
            torch.mm(left, right, out=out)
            until = time.perf_counter() + GEMM_SECONDS
            while time.perf_counter() < until:
                wait()
                started = clock()
                torch.mm(left, right, out=out)
                wait()
                best = max(best, 2.0 * size**3 / max(clock() - started, 1e-9))
    return best


def clock_of(threads: int) -> Callable[[], float]:
    """Return the clock of this process where one thread of it works, else the wall's.

    The former stands while other processes are at work.
    """
    return time.process_time if threads == 1 else time.perf_counter


def _used_seconds() -> float | None:
    """Return processor seconds that all cores have been at work since the machine started."""
    try:
        first = _STAT.read_text().split("\n", 1)[0]
    except OSError:
        return None
    # cpu user nice system idle iowait irq softirq steal guest ...; guests are counted in user.
    ticks = [int(value) for value in first.split()[1 : 1 + _COUNTED]]
    return (sum(ticks) - ticks[_IDLE] - ticks[_WAITING]) / os.sysconf("SC_CLK_TCK")
