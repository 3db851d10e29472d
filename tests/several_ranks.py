"""Ranks of one run, each a process forked from one that has imported torch."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from isoflop.sweep.local.pool import start_server

PATIENCE_SECONDS = 300.0


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
    import torch

    # As a process that a shell starts; the server they come from is deaf to both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if said is not None:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ |= {name: str(value) for name, value in told.items()}
    torch.set_num_threads(1)
    code = target(*args)
    raise SystemExit(code if isinstance(code, int) else 0)
