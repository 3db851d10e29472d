"""What the machine gives: speed beside what a plan assumes, free memory and disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from isoflop.bench.cases import HEAD_WIDTH, plain_model
from isoflop.bench.machine import gemm_peak
from isoflop.check.comparing import Check, Found, Place
from isoflop.check.steps import VOCABULARY, small_run
from isoflop.config import DataConfig, RunConfig
from isoflop.costs import parameters
from isoflop.hardware import choose_precision, usable_cores
from isoflop.hardware.accelerators import ASSUMED_UTILISATION
from isoflop.training import environment, measure_speed
from isoflop.training.fitting import free_memory

LEAST_DISK = 2 * 2**30
"""Bytes free on the disk below which checkpoints of a study may not fit."""


def _probe(place: Place) -> RunConfig:
    width, length = (1024, 2048) if place.device == "cuda" else (256, 256)
    return small_run(place).model_copy(
        update={
            "model": plain_model(width, 4, HEAD_WIDTH, VOCABULARY),
            "data": DataConfig(sequence_length=length),
            "sequences_per_step": 8,
        }
    )


def _speed(place: Place) -> Found:
    threads = usable_cores().count
    # The other precision may be tens of times slower, and no study takes it.
    choice = choose_precision([_probe(place)], device=place.device, threads=threads)
    place = Place(place.device, choice.precision)
    config = _probe(place)
    speed = measure_speed(
        [config], threads=threads, seconds=1.0, device=place.device, most_tokens=16384
    )(config)
    size = parameters(config.model).total
    best = gemm_peak(place.precision, threads, place.device)
    plan = "measures anew"
    if place.device == "cuda":
        plan = f"assumes {ASSUMED_UTILISATION:.0%} of the device's peak"
    return Found(
        None,
        None,
        f"{speed / 1e9:,.0f} GFLOP/s in {place.precision} in a step of {size / 1e6:.3g}M "
        f"parameters, {speed / best:.0%} of the best product here; a plan {plan}",
    )


def _room(place: Place) -> Found:
    here = environment(place.device, usable_cores().count, False)
    memory, disk = free_memory(here), shutil.disk_usage(Path.cwd()).free
    note = f"{memory / 2**30:.3g} GiB of memory for runs, {disk / 2**30:,.0f} GiB of disk"
    return Found(float(disk < LEAST_DISK), 0.0, note)


CHECKS = (
    Check("speed", "beside what a plan assumes", "", _speed, in_every_precision=False),
    Check(
        "room",
        "free memory and disk",
        f"free some disk: {LEAST_DISK / 2**30:.0f} GiB at least",
        _room,
        in_every_precision=False,
    ),
)
