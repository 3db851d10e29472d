"""Whether steps are compiled: if it pays, if it can be done here, and if it computes the same."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.config import RunConfig

COMPILE_FROM_FLOPS = 2e12
"""Compiling blocks takes about 20 s once per width; from this budget on a run earns it back."""

ROUNDINGS = 64
"""Units of roundoff by which a compiled function may differ from the eager one: 20 of a fast
exponential on either side, and those of sums of some dozens of terms."""


def has_compiler(device: str = "cpu") -> bool:
    """Return whether what torch.compile needs is installed: a C++ compiler, Triton on a GPU."""
    if device == "cuda":
        return find_spec("triton") is not None
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


@cache
def compiling_fault(device: str = "cpu") -> str | None:
    """Return in one clause why nothing is compiled here, or None where compiling is right.

    Torch generates code for what it takes the processor to be, and where its libraries are told
    otherwise (`ATEN_CPU_CAPABILITY=avx2` where there is AVX-512) the code computes nonsense, in
    silence. So a few functions and their gradients are compiled and compared with eager ones: some
    seconds once in a cache folder of torch, then less than one per process.
    """
    if not has_compiler(device):
        needed = (
            "Triton (pip install triton)" if device == "cuda" else "C++ compiler (g++ or clang++)"
        )
        return f"there is no {needed}"
    try:
        # Torch's warnings of its own insides are no fault, even where warnings are errors.
        with warnings.catch_warnings(action="ignore"):
            right = _computes_the_same(device)
    except Exception as error:
        # Whatever the compiler stumbles over, steps run without it.
        reason = " ".join(str(error).split())[:200]
        return f"torch.compile fails ({type(error).__name__}: {reason})"
    return None if right else "torch.compile computes wrong numbers"


def compiles_by_default(config: RunConfig, device: str = "cpu") -> bool:
    """Return whether a run is compiled where nobody says: if it earns that back, and it can be.

    Warns where it would pay, and what torch compiles here is wrong or fails.
    """
    if (config.budget_flops or 0) < COMPILE_FROM_FLOPS or not has_compiler(device):
        return False
    fault = compiling_fault(device)
    if fault is not None:
        warnings.warn(f"{fault}: steps run eagerly, which is slower", stacklevel=2)
    return fault is None


def _computes_the_same(device: str) -> bool:
    """Return whether functions and their gradients have the values that eager ones have."""
    compiled = torch.compile(_probe, dynamic=False)
    # Neither a multiple of any vector's length, so that remainders are computed too.
    row = torch.linspace(-9.0, 9.0, 37 * 67, device=device).view(67, 37).T.contiguous()
    for dtype in (torch.float32, torch.bfloat16):
        found, expected = (_values_and_gradient(one, row.to(dtype)) for one in (compiled, _probe))
        for ours, eager in zip(found, expected, strict=True):
            apart = (ours.double() - eager.double()).norm()
            allowed = ROUNDINGS * torch.finfo(dtype).eps / 2 * eager.double().norm()
            # A NaN is no less than anything.
            if not bool(apart <= allowed):
                return False
    return True


def _probe(x: Tensor) -> list[Tensor]:
    """What blocks and readouts are made of besides products, which torch does not generate."""
    rms_norm = F.rms_norm(x, x.shape[-1:], eps=1e-6)
    return [F.silu(x), x.softmax(-1), rms_norm, x.logsumexp(-1), x.sigmoid().exp()]


def _values_and_gradient(function: Callable[[Tensor], list[Tensor]], x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    values = function(leaf)
    total = torch.stack([value.float().mean() for value in values]).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return [value.detach() for value in (*values, gradient)]
