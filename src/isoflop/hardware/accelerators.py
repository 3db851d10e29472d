"""Accelerators: what their makers state, and what share of their peak training reaches on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from isoflop import storage
from isoflop.config import EveryToken, Frozen, FullAttention, ModelConfig, Precision, RunConfig
from isoflop.costs import parameters, train_flops_per_token

ASSUMED_UTILISATION = 0.4
"""Share of its peak that a device is taken to reach where nothing was measured."""
AS_LONG = 2
"""Factor between the sequences of two runs up to which one tells of the other's utilisation."""

Kind = Literal["dense", "MoD"]
Speed = Callable[[RunConfig], float]
"""Training FLOP/s that one run achieves, counted in the run's own convention."""


class Accelerator(Frozen):
    """What a device's maker states."""

    peak_flops: float
    """Dense bf16 matrix products, FLOP/s."""
    memory_bytes: float
    names: tuple[str, ...] = ()
    """What torch calls it."""


def _made(peak: float, memory: float, *names: str) -> Accelerator:
    return Accelerator(peak_flops=peak, memory_bytes=memory, names=names)


ACCELERATORS: dict[str, Accelerator] = {
    "A100-40G": _made(312e12, 40e9, "NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
    "A100-80G": _made(312e12, 80e9, "NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
    "H100-PCIe": _made(756e12, 80e9, "NVIDIA H100 PCIe"),
    "H100-SXM": _made(989e12, 80e9, "NVIDIA H100 80GB HBM3"),
    "H200": _made(989e12, 141e9, "NVIDIA H200"),
    "L40S": _made(362e12, 48e9, "NVIDIA L40S"),
    "RTX4090": _made(165e12, 24e9, "NVIDIA GeForce RTX 4090"),
    "TPUv4": _made(275e12, 32e9),
    "TPUv5e": _made(197e12, 16e9),
    "TPUv5p": _made(459e12, 95e9),
}


def accelerator(name: str) -> Accelerator:
    """Return a known accelerator, whatever the case of its name, also as torch calls it.

    Raises:
        ValueError: If there is none of that name.
    """
    for known, device in ACCELERATORS.items():
        if known.lower() == name.lower() or name in device.names:
            return device
    raise ValueError(f"accelerator is {name!r}; expected one of {', '.join(ACCELERATORS)}")


class MeasuredStep(Frozen):
    """What a measured training step tells of others on such a device."""

    kind: Kind
    parameters: int = Field(gt=0)
    """Total parameters."""
    sequence_length: int
    dtype: Precision
    device: str
    """As torch calls it; cpu for no accelerator."""
    achieved_flops: float = Field(gt=0)
    """FLOP/s counted in full squares of attention, whatever is masked."""

    @property
    def utilisation(self) -> float | None:
        """FLOP/s over the maker's peak; None for a device that is not known."""
        try:
            return self.achieved_flops / accelerator(self.device).peak_flops
        except ValueError:
            return None


def kind_of(model: ModelConfig) -> Kind | None:
    """Return the kind of a model of which steps are measured, None for another."""
    if model.own or not isinstance(model.attention, FullAttention):
        return None
    return "dense" if isinstance(model.depth, EveryToken) else "MoD"


def measured_steps(path: Path) -> tuple[MeasuredStep, ...]:
    """Return the steps on known accelerators in a file of `isoflop bench train --sizes`.

    Raises:
        ValueError: it is no such file, or has none.
    """
    rows = found.get("rows") if isinstance(found := storage.read_json(path), dict) else None
    try:
        steps = tuple(
            MeasuredStep.model_validate({name: row[name] for name in MeasuredStep.model_fields})
            for row in rows or ()
        )
    except (KeyError, TypeError, ValueError):
        steps = ()
    known = tuple(step for step in steps if step.utilisation is not None)
    if not known:
        devices = ", ".join(sorted({step.device for step in steps})) or "no device"
        raise ValueError(
            f"{path} has steps of {devices}; expected what `isoflop bench train --sizes ... "
            "--device cuda --out FOLDER` wrote on a known accelerator"
        )
    return known


def measured_share(config: RunConfig, steps: Sequence[MeasuredStep]) -> float | None:
    """Return the share of its peak, by FLOPs in full squares, that a device reaches in a run.

    Interpolated over log parameters between steps of its kind and precision, whose sequences are
    about as long; beyond them it stays. None where no such step was measured.
    """
    kind, length = kind_of(config.model), config.data.sequence_length
    points = sorted(
        (math.log(step.parameters), step.utilisation)
        for step in steps
        if step.utilisation is not None
        and (step.kind, step.dtype) == (kind, config.recipe.precision)
        and length <= AS_LONG * step.sequence_length <= AS_LONG**2 * length
    )
    if not points:
        return None
    sizes, shares = ([point[axis] for point in points] for axis in (0, 1))
    return float(np.interp(math.log(parameters(config.model).total), sizes, shares))


def accelerator_speed(
    name: str, utilisation: float = ASSUMED_UTILISATION, steps: Sequence[MeasuredStep] = ()
) -> Speed:
    """Return the speed of runs on an accelerator each, at a share of its peak FLOP/s.

    Where no measured step tells of a run the share is `utilisation`, in the run's convention.

    Raises:
        ValueError: If the name is unknown or the share is not above 0 and at most 1.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation}; expected above 0 and at most 1")
    peak = accelerator(name).peak_flops

    def speed(config: RunConfig) -> float:
        share = measured_share(config, steps)
        if share is None:
            return utilisation * peak
        per_token = partial(train_flops_per_token, config.model, config.data.sequence_length)
        return share * peak * per_token(config.convention) / per_token("full")

    return speed
