"""What the processor calls itself."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


def machine() -> str:
    """Return architecture and processor model."""
    return f"{platform.machine()} {_processor()}"


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
