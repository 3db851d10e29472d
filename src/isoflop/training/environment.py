"""What a run computes with, and a fingerprint of the code that decides its bits."""

from __future__ import annotations

import hashlib
import platform
import shutil
from functools import cache
from pathlib import Path

import torch

from isoflop.config import Environment, RunConfig
from isoflop.hardware import machine
from isoflop.version import __version__

COMPILE_FROM_FLOPS = 2e12
"""Compiling blocks takes about 20 s once per width; from this budget on a run earns it back."""

_DECISIVE = (
    "config/base.py",
    "config/model.py",
    "config/run.py",
    "data",
    "ops",
    "model",
    "evaluation",
    "training",
    "costs.py",
)
"""What a study is, and how files are read, decides which runs there are, not what one computes."""


def environment(device: str, threads: int, compiled: bool) -> Environment:
    """Return the present environment."""
    return Environment(
        isoflop=__version__,
        torch=torch.__version__,
        python=platform.python_version(),
        machine=machine(),
        device=device,
        threads=threads,
        compiled=compiled,
        code=code_fingerprint(),
    )


def can_compile() -> bool:
    """Return whether torch.compile has the C++ compiler that it needs on a CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def compiles_by_default(config: RunConfig) -> bool:
    """Return whether a run is compiled where nobody says: if it earns that back, and it can be."""
    return (config.budget_flops or 0) >= COMPILE_FROM_FLOPS and can_compile()


@cache
def code_fingerprint() -> str:
    """Return twelve hexadecimal digits over the sources that decide what a run computes."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in _DECISIVE:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
