"""What this machine and this environment have, what they lack, and how to get it."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from isoflop.config import Frozen
from isoflop.hardware.cores import machine, usable_cores

FAST = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Features of processors that products of matrices are faster with."""

DEVELOPING = ("dev", "docs", "extras", "notebook")
"""Extras that only the repository has a use for."""


class Part(Frozen):
    """One thing that may be here."""

    name: str
    found: str | None
    """What is here; None where it is missing."""
    hint: str = ""
    """How to get it."""


def parts() -> Iterator[Part]:
    """Yield Python, the processor, devices, then each extra; nothing is measured."""
    yield Part(name="Python", found=platform.python_version())
    told = f"{machine()}, {usable_cores().count} cores usable{_features()}"
    yield Part(name="processor", found=told)
    if find_spec("torch") is not None:
        import torch

        yield Part(name="torch", found=f"{torch.__version__}, {torch.get_num_threads()} threads")
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        hint = "isoflop trains on the CPU; a GPU needs its driver and a torch with CUDA or ROCm"
        yield Part(name="GPU", found=", ".join(names) or None, hint=hint)
    # A distribution may be called lm_eval where what requires it says lm-eval.
    named = ((re.sub("[-_.]+", "-", str(one.name)), one) for one in metadata.distributions())
    here = {name.lower(): one.version for name, one in named}
    extras: dict[str, list[str]] = {}
    for line in metadata.requires("isoflop") or ():
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra == ['\"]([\w-]+)", line)
        if name and extra and extra[1] not in DEVELOPING and name[0] != "isoflop":
            extras.setdefault(extra[1], []).append(name[0].lower())
    for extra_name, needed in extras.items():
        missing = ", ".join(name for name in needed if name not in here)
        found = None if missing else ", ".join(f"{name} {here[name]}" for name in needed)
        hint = f'lacks {missing}: pip install "isoflop[{extra_name}]"' if missing else ""
        yield Part(name=f"extra {extra_name}", found=found, hint=hint)


def _features() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    words = " ".join(re.findall("(?m)^(?:flags|Features).*", text)).split()
    found = ", ".join(one for one in FAST if one in words)
    return f", with {found}" if found else ""
