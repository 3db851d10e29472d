"""A check, what it finds, and how far two results are apart."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isoflop.config import Frozen, Precision
from isoflop.config.own import fault
from isoflop.hardware import use_threads

TOLERANCE: dict[Precision, float] = {"fp32": 1e-5, "bf16": 2e-2}
"""Relative difference that roundoff explains: some hundred units of it."""


@dataclass(frozen=True)
class Place:
    """Where and in which precision something is computed."""

    device: str
    precision: Precision


@dataclass(frozen=True)
class Found:
    """What a check found."""

    difference: float | None
    """Largest relative difference; None where nothing is compared."""
    tolerance: float | None
    note: str = ""
    """What else there is to say, such as a speed."""
    wrong: bool = False
    """Whether it failed where nothing is compared."""


@dataclass(frozen=True)
class Check:
    """Something that is compared."""

    name: str
    compared: str
    """What with what, in words."""
    hint: str
    """What to do where it fails."""
    find: Callable[[Place], Found]
    in_every_precision: bool = True
    raised: str | None = None
    """What to do where it raises, if not `hint`."""
    vital: bool = False
    """Whether those after it are not made where it raises."""


class Outcome(Frozen):
    """A check as it went."""

    name: str
    precision: Precision | None
    """None where it plays no part."""
    compared: str
    difference: float | None
    tolerance: float | None
    note: str
    seconds: float
    passed: bool
    hint: str | None
    """What to do; None where it passed."""


def outcomes(
    checks: Iterable[Check], device: str, precisions: Sequence[Precision]
) -> Iterator[Outcome]:
    """Make checks and yield how each went.

    A check that raises has failed, and the error is its note; with ISOFLOP_DEBUG set it is raised.

    Args:
        checks: what is compared.
        device: `cpu` or `cuda`.
        precisions: in which; a check in which it plays no part is made once.
    """
    for check in checks:
        for precision in precisions if check.in_every_precision else precisions[:1]:
            started, hint, vital = time.perf_counter(), check.hint, False
            try:
                # What is compared is small: threads would only wait for each other.
                with use_threads(1):
                    found = check.find(Place(device, precision))
                passed = not found.wrong
                if found.difference is not None:
                    if not math.isfinite(found.difference):
                        raise FloatingPointError(f"apart by {found.difference}; {found.note}")
                    passed &= found.tolerance is not None and found.difference <= found.tolerance
            except FloatingPointError as error:
                found, passed, vital = Found(None, None, str(error)), False, check.vital
            except Exception as error:
                if os.environ.get("ISOFLOP_DEBUG"):
                    raise
                found, passed = Found(None, None, f"fails{fault(error)}"), False
                hint, vital = check.raised or check.hint, check.vital
            yield Outcome(
                name=check.name,
                precision=precision if check.in_every_precision else None,
                compared=check.compared,
                difference=found.difference,
                tolerance=found.tolerance,
                note=found.note,
                seconds=time.perf_counter() - started,
                passed=passed,
                hint=None if passed else hint,
            )
            if vital:
                return


def by_size(x: float) -> tuple[bool, float]:
    """Return a key for `max`, by which NaN is largest; alone it drops one not first."""
    return not math.isfinite(x), x


def apart(found: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """Return the largest distance of two tensors over the norm of the expected one.

    One that is not finite is what is returned.
    """
    pairs = ((a.double().cpu(), b.double().cpu()) for a, b in zip(found, expected, strict=True))
    distances = (float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in pairs)
    return max(distances, key=by_size)


def values_and_slopes(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], probe: Tensor
) -> list[Tensor]:
    """Return what a function gives, and the slopes of its product with a probe by each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = function(*leaves)
    total = (value * probe.to(value.device, value.dtype)).sum()
    return [value.detach(), *torch.autograd.grad(total, leaves)]
