"""Measures isoflop on one GPU: a JSON file for each part as it goes, a table of goals at the end.

    python measure.py OUT [--device cuda|cpu] [--tiny] [--only PART ...]

Each part has a process of its own, so that what breaks or overruns leaves the others. With
`--device cpu --tiny` all of it is walked, at sizes that mean nothing, for the tests. What is to be
published is measured without either, on an idle GPU: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from goals import table

Told = dict[str, Any]
Keep = Callable[[Told], None]
"""Takes what a part has found so far."""


@dataclass(frozen=True)
class Scale:
    """What is measured, and for how long."""

    device: str = "cuda"
    # What the goals are about comes first: what is cut off is the rest.
    sizes: tuple[float, ...] = (300e6, 124e6, 1e9)
    largest: float = 3e9
    lengths: tuple[int, ...] = (16_384, 32_768, 65_536, 131_072, 8192)
    block: int = 512
    heads: int = 16
    head_width: int = 128
    seconds: float = 4.0
    run_seconds: float = 30.0
    tokenizer: str = "bpe:32000"
    new_tokens: int = 128

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU that is measured."""
        return self.device == "cuda"


TINY = Scale(
    sizes=(2e5,),
    largest=3e5,
    lengths=(128, 256),
    block=16,
    heads=2,
    head_width=16,
    seconds=0.1,
    run_seconds=2.0,
    tokenizer="bytes",
    new_tokens=4,
)


def check(scale: Scale, keep: Keep) -> None:
    """`isoflop check` on the device."""
    from isoflop.check import every_check, outcomes

    found: list[Told] = []
    for outcome in outcomes(every_check(scale.device), scale.device, ("fp32", "bf16")):
        found.append(outcome.model_dump(mode="json"))
        keep({"checks": found, "failed": [one for one in found if not one["passed"]]})


def train(scale: Scale, keep: Keep, sizes: tuple[float, ...] = ()) -> None:
    """What `isoflop bench train --sizes` tells."""
    from isoflop.bench.scale import bench_scale, scale_environment
    from isoflop.hardware import usable_cores

    bench_scale(
        sizes or scale.sizes,
        scale_environment(scale.device, usable_cores().count),
        precision="bf16" if scale.gpu else "fp32",
        seconds=scale.seconds,
        force=True,
        keep=lambda report: keep(report.model_dump(mode="json")),
    )


def memory(scale: Scale, keep: Keep) -> None:
    """The same of the largest published model."""
    train(scale, keep, (scale.largest,))


def attention(scale: Scale, keep: Keep) -> None:
    """Block attention beside full attention, forward and backward."""
    rows: list[Told] = []
    for length in scale.lengths:
        rows.append(attention_row(scale, length))
        keep({"block_size": scale.block, "top_k": 3, "head_width": scale.head_width, "rows": rows})


def attention_row(scale: Scale, length: int) -> Told:
    """What attention of one length takes."""
    import torch

    from isoflop.bench.scale import fresh
    from isoflop.ops import block_attention, causal_attention

    size = (1, scale.heads, length, scale.head_width)
    like = {"device": scale.device, "dtype": torch.bfloat16 if scale.gpu else torch.float32}
    inputs = [torch.randn(size, **like, requires_grad=True) for _ in range(3)]

    def seconds(function: Callable[..., torch.Tensor]) -> float:
        started = time.perf_counter()
        gradients = torch.autograd.grad(function(*inputs).sum(), inputs)
        # Reading a value waits for the device.
        float(gradients[0].flatten()[0])
        return time.perf_counter() - started

    row: Told = {"length": length}
    by_block = partial(block_attention, block_size=scale.block, top_k=3)
    for name, function in (("full", causal_attention), ("block", by_block)):
        fresh(scale.device)
        try:
            times, until = [seconds(function)], time.perf_counter() + scale.seconds / 4
            while len(times) < 4 or time.perf_counter() < until:
                times.append(seconds(function))
        except Exception as error:
            row[f"{name}_error"] = reason(error)
            continue
        row[f"{name}_seconds"] = median(times[1:])
        row[f"{name}_peak_bytes"] = torch.cuda.max_memory_allocated() if scale.gpu else None
    if "full_seconds" in row and "block_seconds" in row:
        row["times_as_fast"] = row["full_seconds"] / row["block_seconds"]
    return row


def generation(scale: Scale, keep: Keep) -> None:
    """Tokens a second at batch 1 and 16, after a prompt."""
    import torch

    from isoflop.bench.scale import VARIANTS, scale_config
    from isoflop.generation import Engine
    from isoflop.model import build
    from isoflop.training import random_tokens

    rows: list[Told] = []
    for name, depth in VARIANTS.items():
        config = scale_config(scale.sizes[0], depth, scale.device, "fp32")
        model = build(config.model, seed=0).to(scale.device).eval()
        if scale.gpu:
            model = model.bfloat16()
        for batch in (1, 16):
            engine = Engine(model)
            prompt = random_tokens(config)[:1, : config.data.sequence_length // 2]
            ids = engine.prefill(prompt.repeat(batch, 1).tolist()).argmax(-1).tolist()
            started = time.perf_counter()
            for _ in range(scale.new_tokens):
                ids = engine.step(ids).argmax(-1).tolist()
            speed = batch * scale.new_tokens / (time.perf_counter() - started)
            rows.append({"variant": name, "batch": batch, "tokens_per_second": speed})
            keep({"size": scale.sizes[0], "torch": torch.__version__, "rows": rows})


def run(scale: Scale, keep: Keep) -> None:
    """A run of a published shape, for a while, as `isoflop train` makes it."""
    from isoflop.bench.scale import VARIANTS, scale_config
    from isoflop.config import DataConfig
    from isoflop.costs import parameters
    from isoflop.runs import RunFolder
    from isoflop.training import Interrupted
    from isoflop.training import train as train_run

    size = min(scale.sizes)
    config = scale_config(
        size, VARIANTS["MoD 12.5%"], scale.device, "bf16" if scale.gpu else "fp32"
    )
    data = DataConfig(
        corpus="sotu",
        tokenizer=scale.tokenizer,
        sequence_length=config.data.sequence_length,
    )
    config = config.model_copy(update={"data": data, "steps": 10_000})
    losses: list[float] = []
    began: list[float] = []

    def stop() -> bool:
        began.append(time.perf_counter())
        return began[-1] - began[0] > scale.run_seconds

    with TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        try:
            train_run(
                config,
                folder,
                cache=Path(place) / "cache",
                device=scale.device,
                stop=stop,
                watch=lambda progress: losses.append(progress.loss),
            )
        except Interrupted as error:
            ended = str(error)
        seconds, pinned = began[-1] - began[0], folder.pinned()
    keep(
        {
            "parameters": parameters(config.model).total,
            "ended": ended,
            "losses": losses,
            "seconds_of_steps": seconds,
            "tokens_per_second": (len(losses) - 1) * config.tokens_per_step / seconds,
            "pinned": None if pinned is None else pinned.environment.model_dump(mode="json"),
        }
    )


PARTS = {
    "check": (check, 65.0),
    "train": (train, 110.0),
    "attention": (attention, 45.0),
    "generation": (generation, 30.0),
    "run": (run, 75.0),
    "memory": (memory, 35.0),
}
"""Each with its seconds, six minutes in all; what one does not use is left to those after it."""


def reason(error: BaseException) -> str:
    """Return an error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def written(out: Path, name: str, told: Told) -> None:
    """Write what a part told, whole or not at all."""
    half = out / f"{name}.json.part"
    half.write_text(json.dumps(told, indent=1))
    os.replace(half, out / f"{name}.json")


def measure(scale: Scale, out: Path, name: str) -> int:
    """Measure a part in this process, writing what it tells as it goes; 1 where it fails."""
    import torch

    started = time.perf_counter()
    device = torch.cuda.get_device_name() if scale.gpu else "cpu"
    told: Told = {"device": device, "torch": torch.__version__, "python": sys.version.split()[0]}

    def keep(found: Told) -> None:
        told.update(found, seconds=time.perf_counter() - started)
        written(out, name, told)

    try:
        PARTS[name][0](scale, keep)
        if told.get("failed"):
            raise ValueError(f"{len(told['failed'])} checks failed")
    except Exception as error:
        keep({"error": reason(error)})
        return 1
    return 0


def in_process(arguments: list[str], out: Path, name: str, seconds: float) -> Told:
    """Measure a part in a process of its own; return what it told, until it ended or was cut."""
    path = out / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, __file__, *arguments, "--part", name]
    part = subprocess.Popen(command, start_new_session=True)
    failed = None
    try:
        code = part.wait(seconds)
        failed = f"ended with exit code {code}" if code else None
    except subprocess.TimeoutExpired:
        failed = f"cut after {seconds:.0f} s"
    finally:
        if part.poll() is None:
            os.killpg(part.pid, signal.SIGKILL)
            part.wait()
    told: Told = json.loads(path.read_text()) if path.exists() else {}
    if failed and "error" not in told:
        told["error"] = failed
        written(out, name, told)
    return told


def main(arguments: list[str]) -> int:
    """Measure the parts that are asked for; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part is not None:
        scale = replace(TINY if given.tiny else Scale(), device=given.device)
        return measure(scale, given.out, given.part)
    # So that a part ends with what asked for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found: dict[str, Told] = {}
    passed = [str(given.out), "--device", given.device, *(["--tiny"] if given.tiny else [])]
    until = time.perf_counter()
    for name in given.only:
        started = time.perf_counter()
        # Tests share their machine.
        until += PARTS[name][1] * (10 if given.tiny else 1)
        found[name] = in_process(passed, given.out, name, until - started)
        failed = f", FAILED: {found[name]['error']}" if "error" in found[name] else ""
        print(f"{name}: {time.perf_counter() - started:.0f} s{failed}", flush=True)
        (given.out / "table.txt").write_text(table(found) + "\n")
    print(table(found))
    return 1 if any("error" in told for told in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
