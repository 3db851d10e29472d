"""The numeric tests under every instruction set that can be forced on the processor at hand.

Results of floating-point sums depend on the instructions that compute them, so that a tolerance
that holds on one processor may be luck. What torch and its libraries take the processor for can be
lowered by variables of the environment, never raised. Each setting is first tried on a few products
and functions: where every bit is as without it, it is above the processor, or not heeded on it, and
the tests are spared.

Run by `make test-processors`; exits with 1 where a test fails under any setting.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

Setting = dict[str, str]

NUMERIC = ("ops", "model", "evaluation", "generation", "contracts", "training")
# They kill processes and measure memory; their numbers are those of other tests.
LEFT_OUT = ("test_resuming.py", "test_freed_memory.py", "test_memory_limit.py")
ONE_BY_ONE: dict[str, tuple[str, ...]] = {
    "OMP_NUM_THREADS": ("2",),
    "ATEN_CPU_CAPABILITY": ("default", "avx2", "avx512"),
    "ONEDNN_MAX_CPU_ISA": (
        "SSE41",
        "AVX2",
        "AVX512_CORE",
        "AVX512_CORE_BF16",
        "AVX512_CORE_AMX",
    ),
    "MKL_ENABLE_INSTRUCTIONS": ("SSE4_2", "AVX2", "AVX512"),
    # What `MKL_ENABLE_INSTRUCTIONS` does on Intel's processors alone, this does on others too.
    "MKL_CBWR": ("COMPATIBLE",),
}
LOWEST = {name: values[0] for name, values in ONE_BY_ONE.items()}
SECONDS = 900
"""Of one setting's tests, beyond which they count as failed."""


def settings() -> list[Setting]:
    """Return no setting, each variable's values one at a time, and the lowest of all together."""
    single = [{name: value} for name, values in ONE_BY_ONE.items() for value in values]
    return [{}, *single, LOWEST]


def fingerprint() -> str:
    """Return a digest of the bits that products, sums and functions have in this process."""
    import torch
    import torch.nn.functional as F

    digest = hashlib.sha256()
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for rows, inner, columns in ((3, 17, 5), (123, 345, 77), (256, 1024, 256)):
            a = torch.randn(rows, inner, generator=generator).to(dtype)
            b = torch.randn(inner, columns, generator=generator).to(dtype)
            found = [a @ b, a.exp(), a.softmax(-1), F.silu(a), a.sum(), a.t().sum(0)]
            q, k, v = torch.randn(3, 2, 3, 65, 14, generator=generator).to(dtype)
            leaf = q.requires_grad_()
            attended = F.scaled_dot_product_attention(leaf, k, v, is_causal=True)
            found += [attended.detach(), *torch.autograd.grad(attended.sum(), leaf)]
            for tensor in found:
                digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def bits_under(setting: Setting) -> str | None:
    """Return the fingerprint of a new process under `setting`; None where that is above here.

    Torch, asked for instructions that the processor has not, uses them and dies of it.

    Raises:
        CalledProcessError: the process failed for another reason.
    """
    command = [sys.executable, __file__, "fingerprint"]
    done = subprocess.run(command, env=_with(setting), capture_output=True, text=True)
    if done.returncode == -signal.SIGILL:
        return None
    done.check_returncode()
    return done.stdout.strip()


def tests_under(setting: Setting) -> tuple[bool, str]:
    """Run the numeric tests; return whether all passed, and pytest's last line with failures."""
    here = os.path.dirname(os.path.abspath(__file__))
    places = [os.path.join(here, name) for name in NUMERIC]
    left_out = [f"--ignore={os.path.join(here, 'training', name)}" for name in LEFT_OUT]
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-rfE"]
    try:
        done = subprocess.run(
            [*command, *left_out, *places],
            env=_with(setting),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False, f"not done after {SECONDS} s"
    lines = done.stdout.splitlines() or done.stderr.splitlines() or ["pytest said nothing"]
    failed = [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, "\n  ".join([lines[-1].strip("= "), *failed])


def check(
    chosen: Iterable[Setting],
    bits: Callable[[Setting], str | None] = bits_under,
    tests: Callable[[Setting], tuple[bool, str]] = tests_under,
) -> int:
    """Run the tests under each setting that changes bits, and say a line of each.

    Returns:
        The exit code: 0 where every test passed, else 1.
    """
    seen: dict[str, str] = {}
    worst = 0
    for setting in chosen:
        name = " ".join(f"{key}={value}" for key, value in setting.items()) or "as it is"
        found = bits(setting)
        if found is None:
            print(f"{name}: not run, this processor has no such instructions", flush=True)
            continue
        if found in seen:
            print(f"{name}: not run, every bit is as under: {seen[found]}", flush=True)
            continue
        seen[found] = name
        began = time.monotonic()
        passed, said = tests(setting)
        worst = max(worst, 0 if passed else 1)
        said = re.sub(r" in [0-9.]+s.*", "", said, count=1)
        print(
            f"{name}: {'' if passed else 'FAILED: '}{said} ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    return worst


def _with(setting: Setting) -> dict[str, str]:
    """Return this environment without any of the variables, with one thread, and with those set."""
    kept = {name: value for name, value in os.environ.items() if name not in ONE_BY_ONE}
    return kept | {"OMP_NUM_THREADS": "1"} | setting


if __name__ == "__main__":
    if sys.argv[1:] == ["fingerprint"]:
        print(fingerprint())
    else:
        sys.exit(check(settings()))
