"""A run killed and gone on with, and what causal decisions owe to later tokens."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from isoflop.check.comparing import Check, Found, Place, apart
from isoflop.check.steps import ATTENTIONS, DEPTHS, LENGTH, VOCABULARY, small_run
from isoflop.config import DataConfig, RunConfig, decisions
from isoflop.evaluation.future import future_change
from isoflop.model import build
from isoflop.runs import Progress, RunFolder
from isoflop.training import initialise, load_model, train

STEPS, KILLED_AT = 12, 7
WORDS = ("the", "state", "of", "union", "law", "peace", "year", "war", "we", "shall")


def _corpus(folder: Path) -> Path:
    """Write some text to train on."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(20):
        (folder / f"{index}.txt").write_text(" ".join(generator.choice(WORDS, 200)))
    return folder


def _until_killed(config: RunConfig, folder: Path, cache: Path, device: str) -> None:
    """Train in a process of its own, which a signal ends that nothing can handle."""

    def watch(progress: Progress) -> None:
        if progress.step >= KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    train(
        config, RunFolder(folder), cache=cache, device=device, watch=watch, checkpoint_seconds=0.0
    )


def _resumed(place: Place) -> Found:
    with TemporaryDirectory(prefix="isoflop-check-") as name:
        home = Path(name)
        data = DataConfig(corpus=str(_corpus(home / "text")), sequence_length=LENGTH)
        config = small_run(place, STEPS, depth=DEPTHS[1]).model_copy(update={"data": data})
        folders = [home / "whole", home / "killed"]
        train(config, RunFolder(folders[0]), cache=home / "cache", device=place.device)
        process = multiprocessing.get_context("spawn").Process(
            target=_until_killed, args=(config, folders[1], home / "cache", place.device)
        )
        process.start()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"the run to be killed ended by itself, with {process.exitcode}")
        train(config, RunFolder(folders[1]), cache=home / "cache", device=place.device)
        whole, killed = (
            list(load_model(RunFolder(folder)).state_dict().values()) for folder in folders
        )
        return Found(apart(killed, whole), 0.0)


def _leak(place: Place) -> Found:
    generator = np.random.default_rng(0)
    windows = generator.integers(0, VOCABULARY, (8, LENGTH))
    changed: dict[str, float] = {}
    for attention in ATTENTIONS:
        for depth in DEPTHS:
            config = small_run(place, depth=depth, attention=attention)
            model = build(config.model)
            initialise(model, config.recipe, seed=0)
            model.to(place.device)
            for decision in decisions(depth):
                if decision != "top_k":
                    found = future_change(model, windows, decision)
                    changed[f"{attention.kind}, {decision}"] = found.changed
    worst = max(changed, key=lambda name: changed[name])
    return Found(changed[worst], 0.0, f"most of {len(changed)} decisions: {worst}")


CHECKS = (
    Check(
        "killed and gone on with",
        "weights with those of an undisturbed run, bit for bit",
        "runs may differ in the last bits after a stop here; leave seeds to tell that noise",
        _resumed,
        in_every_precision=False,
    ),
    Check(
        "causal decisions",
        "share of logits that change with later tokens",
        "do not trust losses under causal decisions; report it with `isoflop check --json`",
        _leak,
        in_every_precision=False,
    ),
)
