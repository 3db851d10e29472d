"""How fast a run goes: on a named accelerator at a given utilisation, or as it was measured."""

from __future__ import annotations

from collections.abc import Callable

from isoflop.config import Frozen, RunConfig

Speed = Callable[[RunConfig], float]
"""Training FLOP/s that one run achieves, counted in the run's own convention."""


class Accelerator(Frozen):
    """What a device's maker states."""

    peak_flops: float
    """Dense bf16 matrix products, FLOP/s."""
    memory_bytes: float


ACCELERATORS: dict[str, Accelerator] = {
    "A100-40G": Accelerator(peak_flops=312e12, memory_bytes=40e9),
    "A100-80G": Accelerator(peak_flops=312e12, memory_bytes=80e9),
    "H100-PCIe": Accelerator(peak_flops=756e12, memory_bytes=80e9),
    "H100-SXM": Accelerator(peak_flops=989e12, memory_bytes=80e9),
    "H200": Accelerator(peak_flops=989e12, memory_bytes=141e9),
    "L40S": Accelerator(peak_flops=362e12, memory_bytes=48e9),
    "RTX4090": Accelerator(peak_flops=165e12, memory_bytes=24e9),
    "TPUv4": Accelerator(peak_flops=275e12, memory_bytes=32e9),
    "TPUv5e": Accelerator(peak_flops=197e12, memory_bytes=16e9),
    "TPUv5p": Accelerator(peak_flops=459e12, memory_bytes=95e9),
}


def accelerator(name: str) -> Accelerator:
    """Return a known accelerator, whatever the case of its name.

    Raises:
        ValueError: If there is none of that name.
    """
    for known, device in ACCELERATORS.items():
        if known.lower() == name.lower():
            return device
    raise ValueError(f"accelerator is {name!r}; expected one of {', '.join(ACCELERATORS)}")


def accelerator_speed(name: str, utilisation: float = 0.4, devices: int = 1) -> Speed:
    """Return the speed of runs on a number of accelerators each.

    Args:
        name: A key of `ACCELERATORS`.
        utilisation: Achieved FLOP/s over the peak, above 0 and at most 1.
        devices: Accelerators that share one run.

    Raises:
        ValueError: If the name is unknown or a number is out of range.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation}; expected above 0 and at most 1")
    if devices < 1:
        raise ValueError(f"devices is {devices}; expected at least 1")
    achieved = accelerator(name).peak_flops * utilisation * devices
    return lambda config: achieved
