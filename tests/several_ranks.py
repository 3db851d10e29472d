"""Ranks of one run, each a process forked from one that has imported torch."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from isoflop import storage
from isoflop.config import RunConfig
from isoflop.model import build
from isoflop.sweep.local.pool import start_server
from isoflop.training import Trainer, initialise, joined
from isoflop.training.ranks import Ranks
from isoflop.training.state import state_of

PATIENCE_SECONDS = 300.0
MakeRun = Callable[[str, bool], RunConfig]
"""Of a name; the second says whether all ranks are to hold as many sequences of a step."""


def start_ranks(
    world: int, target: Callable[..., object], *args: object, said: Path | None = None
) -> list[BaseProcess]:
    """Start `target(*args)` in so many processes, as torchrun would; `said` takes their words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(world):
        told = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank}
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        process = start_server().Process(target=_rank, args=(told, target, args, said))
        process.start()
        started.append(process)
    return started


def run_ranks(world: int, target: Callable[..., object], *args: object) -> None:
    """Run `target(*args)` on so many ranks, to their end."""
    assert ended(start_ranks(world, target, *args)) == [0] * world


def ended(ranks: list[BaseProcess]) -> list[int | None]:
    """Wait for all and return their exit codes."""
    for process in ranks:
        process.join(PATIENCE_SECONDS)
    return [process.exitcode for process in ranks]


def _rank(
    told: dict[str, object],
    target: Callable[..., object],
    args: tuple[object, ...],
    said: Path | None,
) -> None:
    # As a process that a shell starts; the server they come from is deaf to both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if said is not None:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ |= {name: str(value) for name, value in told.items()}
    torch.set_num_threads(1)
    code = target(*args)
    raise SystemExit(code if isinstance(code, int) else 0)


def learn(config: RunConfig, ranks: Ranks, steps: int, sharded: bool = False) -> dict[str, Any]:
    """Train on random tokens and return all that each step measured, and the state at the end."""
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    trainer = Trainer(
        model, config, compiled=False, micro_batch=2, ranks=replace(ranks, sharded=sharded)
    )
    measured = []
    for index in range(steps):
        # Texts in which no choice of an expert or a token is a tie but for rounding.
        generator = torch.Generator().manual_seed(100 + index)
        tokens = torch.randint(256, (config.sequences_per_step, 17), generator=generator)
        result = trainer.step(tokens, index, 1.0)
        measured.append([result.loss, result.gradient_norm, result.predictor_norm])
        routing = [value for values in result.routing.values() for value in values]
        measured[-1] += [*result.span_losses, *routing]
    ranks.check_alike(list(model.parameters()), steps)
    return {
        "measured": measured,
        "weights": {k: v.tolist() for k, v in state_of(trainer).items()},
    }


def learn_all(make: MakeRun, names: tuple[str, ...], steps: int, out: Path, sharded: bool) -> None:
    """What a rank does: learn each of these with the others."""
    with joined("cpu", 60) as ranks:
        for name in names:
            found = learn(make(name, sharded), ranks, steps, sharded)
            if ranks.leads:
                storage.write_json(out / f"{name}.json", found)


def assert_learned_alike(
    make: MakeRun,
    names: tuple[str, ...],
    steps: int,
    out: Path,
    sharded: bool = False,
    weights_apart: float = 1e-4,
) -> None:
    """Check that two ranks learn what one does, in runs that `make` makes of names.

    Weights may be further apart than losses: AdamW moves one whose gradient is nearly none by its
    sign, which rounding may decide.
    """
    run_ranks(2, learn_all, make, names, steps, out, sharded)
    for name in names:
        found = json.loads((out / f"{name}.json").read_text())
        alone = learn(make(name, sharded), Ranks(), steps)
        measured, expected = torch.tensor(found["measured"]), torch.tensor(alone["measured"])
        torch.testing.assert_close(measured[:, 0], expected[:, 0], rtol=1e-5, atol=0, msg=name)
        torch.testing.assert_close(measured, expected, rtol=1e-3, atol=1e-4, msg=name)
        for key, weights in alone["weights"].items():
            here = torch.tensor(found["weights"][key])
            torch.testing.assert_close(here, torch.tensor(weights), rtol=1e-3, atol=weights_apart)
