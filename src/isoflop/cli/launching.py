"""Starts the ranks of a command on this machine, and starts them again where one was lost."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from isoflop.cli.main import ASKED, FAILED, INTERRUPTED, TERMINATED, USAGE
from isoflop.hardware import usable_cores
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.config import RunConfig
    from isoflop.runs import RunFolder

ENDS = (USAGE, INTERRUPTED, TERMINATED)
"""Exit codes of a rank after which no other attempt is made."""


def launch_run(config: RunConfig, folder: RunFolder, ranks: int) -> int:
    """Train a run on several ranks of this machine, again from its checkpoint where one is lost."""
    from isoflop.sweep.schedule.attempts import given_up

    if not 2 <= ranks <= config.sequences_per_step:
        raise ValueError(
            f"--ranks is {ranks}; expected 2 to {config.sequences_per_step}, the sequences of a "
            "step that they share"
        )

    def again(why: str) -> bool:
        if folder.record() is not None:
            return False
        goes_on = given_up(folder.attempts_made()) is None
        then = "starting all again from the newest checkpoint" if goes_on else "giving up"
        print(quoted(f"isoflop: {why}; {then}"), file=sys.stderr)
        return goes_on

    return launch(ranks, ASKED, again)


def launch(
    ranks: int, arguments: Sequence[str], again: Callable[[str], bool] = lambda _: False
) -> int:
    """Run `isoflop ARGUMENTS` on so many ranks of this machine and return the exit code.

    They are started by the elastic agent that torchrun uses. One that ends or is lost ends the
    others; a new agent starts all of them again as long as `again` says so, told why.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores().count // ranks)))
    while True:
        codes = _attempt(ranks, arguments)
        ends = [code for code in codes if code in ENDS]
        if not codes or ends:
            return ends[0] if ends else 0
        lost = next((code for code in codes if code < 0), codes[0])
        how = signal.Signals(-lost).name if lost < 0 else f"exit code {lost}"
        if not again(f"a rank ended by {how}"):
            return FAILED


def _attempt(ranks: int, arguments: Sequence[str]) -> list[int]:
    """Run all ranks to their end and return the exit codes of those that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What went wrong, ranks say themselves.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        # Ranks that are started again in place meet what is left in the agent's store.
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "isoflop", *arguments)
    except ChildFailedError as error:
        return [one.exitcode for one in error.failures.values()]
    except SignalException as error:
        return [INTERRUPTED if error.sigval == signal.SIGINT else TERMINATED]
    return []
