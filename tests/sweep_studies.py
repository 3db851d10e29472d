"""Tiny studies, trainers that take no time, and what they leave behind."""

from __future__ import annotations

import io
import math
import os
import random
import signal
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from given import FP32, record_of
from isoflop.config import (
    DataConfig,
    Grid,
    PrecisionChoice,
    PrecisionSpeed,
    PrecisionSpeeds,
    RunConfig,
    RunRecord,
    ShapeFamily,
    Study,
    TopK,
    Variant,
)
from isoflop.costs import parameters
from isoflop.data import prepare
from isoflop.runs import RunFolder, RunStore
from isoflop.storage import StorageError
from isoflop.sweep import Execution, Folders, Outcome, run_study

BASELINE = Variant(name="Baseline")
ROUTED = Variant(name="MoD", depth=TopK(capacity=0.25))
STARTS = "starts.txt"
LONGER = 1.375e8
"""Budget of a brief study that is to be stopped on its way: 77, 40 and 20 steps of the baseline."""


def write_corpus(path: Path) -> Path:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(50)]
    path.write_text("\n\n".join(" ".join(draw.choices(words, k=80)) for _ in range(200)))
    return path


def tiny(corpus: Path, *variants: Variant, budget: float = 3e8, **fields: object) -> Study:
    """Return a study of three sizes per variant, of 168, 88 and 44 steps, and up to one more."""
    known: dict[str, object] = {
        "name": "tiny",
        "budgets_flops": (budget,),
        "tokens_per_step": 64,
        "evaluation_tokens": 512,
        "recipe": FP32,
        "data": DataConfig(
            corpus=str(corpus), sequence_length=16, validation_fraction=0.2, test_fraction=0.2
        ),
        "shape": ShapeFamily(width_step=4, head_width=4, hidden_step=4, width_per_block=4),
        "grid": Grid(sizes=3, margin=1, added_at_most=1, centre_parameters=12000),
        "variants": variants or (BASELINE,),
    }
    return Study.model_validate({**known, **fields})


def brief(corpus: Path, *variants: Variant, budget: float = 6.75e7) -> Study:
    """Return a tiny study that is really trained, in 38, 20 and 10 steps, and needs no more runs.

    Args:
        corpus: its text.
        variants: its variants; the baseline alone if left out.
        budget: such that whole steps come within 1% of it; `LONGER` does that for `ROUTED`, too.
    """
    grid = Grid(sizes=3, margin=1, added_at_most=0, centre_parameters=12000)
    return tiny(corpus, *variants, budget=budget, grid=grid)


def size(config: RunConfig) -> int:
    return parameters(config.model).total


def is_large(config: RunConfig) -> bool:
    """Return whether a run is of the largest of the first three sizes."""
    return 18000 < size(config) < 25000


# --- machines


def machine(bf16_gain: float, name: str = "x86_64 Made Up") -> PrecisionChoice:
    """What a machine says on which bf16 is so many times as fast as fp32."""
    speeds = PrecisionSpeeds(
        rows=64,
        width=16,
        hidden=48,
        attended=16,
        head_width=4,
        attention_share=0.25,
        fp32=PrecisionSpeed(product_flops=9.2e10, attention_flops=4e10),
        bf16=PrecisionSpeed(product_flops=9.2e10 * bf16_gain, attention_flops=4e10 * bf16_gain),
    )
    return PrecisionChoice(
        precision=speeds.faster, machine=name, device="cpu", threads=1, torch="0", speeds=speeds
    )


def unmeasured(*_: object, **__: object) -> PrecisionChoice:
    """Take no time to say which precision is faster."""
    return machine(1 / 32)


# --- trainers, to be found by name in another process; each notes its start beside the cache


def starts(cache: Path) -> list[str]:
    """Return the run ids that were started, in order."""
    path = cache.parent / STARTS
    return path.read_text().split() if path.exists() else []


def _begin(config: RunConfig, cache: Path) -> int:
    """Note a start and return how many there were of this run."""
    with (cache.parent / STARTS).open("a") as file:
        file.write(f"{config.run_id}\n")
    return starts(cache).count(config.run_id)


def instant(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    cache = Path(str(options["cache"]))
    _begin(config, cache)
    return _finish(config, folder, cache)


def better_at_twice_the_rate(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    """Leave a record by which 1.6e-2 is 0.1 nats better than any other rate."""
    cache = Path(str(options["cache"]))
    _begin(config, cache)
    above = 0.0 if config.recipe.learning_rate == 1.6e-2 else 0.1
    loss = 1 + above + abs(math.log(size(config) / 12000))
    return _finish(config, folder, cache, loss=loss)


def _finish(
    config: RunConfig,
    folder: RunFolder,
    cache: Path,
    state: str = "finished",
    loss: float | Literal["usual"] = "usual",
) -> RunRecord:
    with folder.claim():
        folder.create(config)
        record = record_of(
            config,
            loss,
            state=state,
            data_sha256=prepare(config.data, cache).sha256,
            reason=None if state == "finished" else "loss nan at step 3",
        )
        folder.write_record(record)
    return record


def raises_when_large(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    if is_large(config):
        _begin(config, Path(str(options["cache"])))
        raise RuntimeError("no such\nkernel \x1b[31m")
    return instant(config, folder, **options)


def killed_when_large(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    if is_large(config):
        _begin(config, Path(str(options["cache"])))
        os.kill(os.getpid(), signal.SIGKILL)
    return instant(config, folder, **options)


def diverges_when_large(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    cache = Path(str(options["cache"]))
    _begin(config, cache)
    return _finish(config, folder, cache, "diverged" if is_large(config) else "finished")


def forgets(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    _begin(config, Path(str(options["cache"])))
    return record_of(config)


def finds_the_disk_full(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    raise StorageError(folder.path, OSError(28, "No space left on device"))


def never(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    raise AssertionError("no run is to be trained")


def deaf(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    """Go on for ever, whatever is asked."""
    with folder.claim():
        _begin(config, Path(str(options["cache"])))
        while True:
            time.sleep(0.1)


def train_study(
    study: Study, root: Path, cache: Path, *, results: Path | None = None, **options: Any
) -> Outcome:
    """Train a study in a folder; options are of `Execution`, and others of `run_study`."""
    known = {field.name for field in fields(Execution)}
    execution = Execution(**{name: options.pop(name) for name in known & options.keys()})
    # Where none are named there are no committed results, and not those of this repository.
    folders = Folders(root, results or root / "results", cache)
    return run_study(study, folders, execution, **options)


class Place:
    """Where a study is trained in no time, and what was said meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "runs" / "tiny"
        self.results = folder / "results"
        self.cache = folder / "cache"
        self.store = RunStore(self.root)
        self.said = ""

    def run(self, study: Study, **options: Any) -> Outcome:
        """Train a study; what is said is added to `said` as it is."""
        place = self

        class Said(io.StringIO):
            def write(self, text: str) -> int:
                place.said += text
                return len(text)

        known = {
            "console": Console(file=Said(), width=60),
            "workers": 2,
            "results": self.results,
            "train": instant,
            "measure": unmeasured,
        }
        return train_study(study, self.root, self.cache, **{**known, **options})
