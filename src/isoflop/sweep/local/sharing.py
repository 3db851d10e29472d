"""How many runs share a CUDA device: measured memory bounds it, measured steps decide."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from isoflop.config import RunConfig
from isoflop.hardware import usable_cores
from isoflop.memory import USED, estimate_memory
from isoflop.planning import PlannedRun
from isoflop.sweep.local.probes import Measured, told

MOST = 16
"""Runs that share a device at most."""
WORTH = 1.1
"""Gain in speed of all together from which on twice as many share a device."""
OF_A_PROCESS = 2**30
"""Bytes of a device that a process takes besides its run: its context and libraries."""
ROOM = 2
"""Memory kept for a run over that of the largest known, as the grid may add larger ones."""
WARM_UP_STEPS = 3
MEASURED_SECONDS = 2.0


def runs_per_device(
    runs: Sequence[PlannedRun], slots: Sequence[Mapping[str, str]], *, threads: int
) -> tuple[int, str]:
    """Return how many of a study's runs share each device, and why no more.

    Whole steps of so many fit what is free on the first device, and there are runs and cores for
    all. Then the run of the middle size is trained by one process, two, four and so on at once,
    uncompiled, for as long as all together get faster by it.

    Args:
        runs: that are to be trained, one at least.
        slots: environment variables of a worker on each device.
        threads: of each run.
    """
    configs = sorted((run.config for run in runs), key=_bytes)
    try:
        (free,) = told([slots[0]], _free)
    except ValueError as error:
        return 1, f"what is free on the device could not be asked: {error}"
    bounds = {
        f"{MOST} are the most": MOST,
        "there are no more runs": len(runs) // len(slots),
        "there are no more cores": usable_cores().count // threads // len(slots),
        "more may not fit its memory": int(free / (OF_A_PROCESS + ROOM * _bytes(configs[-1]))),
    }
    bound = min(bounds, key=lambda name: bounds[name])
    found, speed, tried = 1, 0.0, 1
    while tried <= bounds[bound]:
        middle = configs[len(configs) // 2]
        try:
            now = sum(told([slots[0]] * tried, stepping, middle, threads, "cuda"))
        except ValueError as error:
            return found, f"{tried} at a time could not be measured: {error}"
        if now < WORTH * speed:
            return found, f"{tried} together are {now / speed:.3g} times as fast"
        found, speed, tried = tried, now, 2 * tried
    return found, bound


def _bytes(config: RunConfig) -> int:
    return estimate_memory(config).total_bytes


def _free() -> Measured:
    import torch

    torch.zeros(1, device="cuda")
    return lambda: USED["cuda"] * torch.cuda.mem_get_info()[0]


def stepping(config: RunConfig, threads: int, device: str) -> Measured:
    """Make first steps of a run, and return what tells its steps a second."""
    import torch

    from isoflop.training import own_step

    def measured() -> float:
        steps, began = 0, time.perf_counter()
        while not steps or time.perf_counter() < began + MEASURED_SECONDS:
            step()
            steps += 1
        return steps / (time.perf_counter() - began)

    torch.set_num_threads(threads)
    step = own_step(config, device=device, compiled=False)
    for _ in range(WARM_UP_STEPS):
        step()
    return measured
