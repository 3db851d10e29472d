"""What a run computes with, and a fingerprint of the code that decides its bits."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

import torch

from isoflop.config import Environment
from isoflop.hardware import machine
from isoflop.version import __version__

_DECISIVE = (
    "frozen.py",
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


def environment(device: str, threads: int, compiled: bool, ranks: int = 1) -> Environment:
    """Return the present environment."""
    return Environment(
        isoflop=__version__,
        torch=torch.__version__,
        python=platform.python_version(),
        machine=machine(),
        device=device,
        threads=threads,
        ranks=ranks,
        compiled=compiled,
        code=code_fingerprint(),
    )


def settle(pinned: Environment) -> None:
    """Set what torch computes with: threads as pinned, products in float32 as float32.

    TF32 would make fp32 runs of a GPU other runs than those of a CPU.
    """
    torch.set_num_threads(pinned.threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


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
