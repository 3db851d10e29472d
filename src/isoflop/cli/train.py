"""`isoflop train`: one run to its end, on one process or on ranks that are started here."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from isoflop.cli.main import ASKED, FAILED, INTERRUPTED, TERMINATED, USAGE
from isoflop.cli.options import (
    RESULTS,
    RUNS,
    ConfigFile,
    NumberOfRanks,
    OfStep,
    Out,
    Results,
    bytes_of,
    tell,
)
from isoflop.config import RunConfig
from isoflop.config.load import load
from isoflop.hardware import usable_cores
from isoflop.hardware.ranks import place
from isoflop.notation import count
from isoflop.text import quoted, typed

if TYPE_CHECKING:
    from isoflop.config import RunRecord
    from isoflop.runs import Progress, RunFolder
    from isoflop.training.loop import RunExecutionKeywords

ENDS = (USAGE, INTERRUPTED, TERMINATED)
"""Exit codes of a rank after which no other attempt is made."""
SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True, kw_only=True)
class Train(OfStep):
    """Train one model: a run file, or one run of a study. After Ctrl-C it goes on.

    With --ranks, or started by torchrun or srun, several processes train it together.
    """

    config: ConfigFile
    run_id: Annotated[str | None, Positional, arg(metavar="[RUN_ID]")] = None
    """Which run of a study."""
    out: Out = None
    results: Results = RESULTS
    threads: Annotated[int | None, arg(metavar="INT", help="CPU threads of torch.")] = None
    ranks: NumberOfRanks = None
    rank_timeout: Annotated[float, arg(metavar="SECONDS")] = 600.0
    """That a rank waits for the others before it gives up."""
    shard: Literal["auto", "yes", "no"] = "auto"
    """Whether each rank holds a part of the blocks; auto where the whole is too much."""

    def __call__(self) -> int:
        from isoflop.runs import RunStore
        from isoflop.sweep import Folders
        from isoflop.sweep.plan import run_of
        from isoflop.tracking import tracking

        found, shared, study = load(self.config), None, "single"
        if isinstance(found, RunConfig):
            run, folder = found, RunStore(self.out or RUNS / study).folder(found.run_id)
        elif self.run_id is None:
            raise ValueError(
                f"{self.config} is a study; name one of the runs that "
                f"`{typed('plan', self.config)}` lists, or train all of it: "
                f"{typed('run', self.config)}"
            )
        else:
            folders = Folders.of(found, self.out, self.results)
            run, folder = run_of(found, folders, self.run_id)
            shared, study = found.shares_up_to, found.name
        here = place()
        followed = here.rank == 0 if here else not self.ranks
        kind = self.track if followed else None
        with tracking(folder.path.parent.parent, kind, study, run.run_id):
            return self._train(run, folder, shared)

    def _train(self, config: RunConfig, folder: RunFolder, shares_up_to: float | None) -> int:
        """Train a run to its end, print its outcome, and return the exit code."""
        from isoflop.memory import sequences_held
        from isoflop.planning import check_capacity
        from isoflop.sweep.interrupts import Terminated, stop_signals

        how: RunExecutionKeywords = {
            "device": self.device,
            "threads": self.threads,
            "memory_bytes": bytes_of(self.memory_gib),
            "micro_batch_tokens": self.micro_batch_tokens,
            "recompute": self.recompute,
            "shares_up_to": shares_up_to,
            "shard": "auto" if self.shard == "auto" else self.shard == "yes",
        }
        check_capacity(config.model.depth, config.data.sequence_length, "model.")
        if isinstance(self.micro_batch_tokens, int):
            sequences_held(config, self.micro_batch_tokens)
        here = place()
        if self.ranks is not None and here is None:
            # Who is one of several knows its place, so that none of them starts others.
            return launch_run(config, folder, self.ranks)
        if here is None or here.rank == 0:
            tell(f"run {config.run_id} in {folder.path}")
        # Torch takes seconds to load, which nobody should wait for to read of a mistake.
        from isoflop.training import Interrupted, follow, joined, train

        with stop_signals() as wish, joined(self.device, self.rank_timeout) as ranks:
            how |= {"ranks": ranks}
            try:
                if not ranks.leads:
                    follow(config, folder, cache=self.cache, stop=lambda: wish.to_stop, **how)
                    return 0
                self._tell_if_slow(config, folder)
                record = train(
                    config,
                    folder,
                    cache=self.cache,
                    stop=lambda: wish.to_stop,
                    watch=_lines(),
                    tell=lambda now: tell(f"preparing the corpus: {now.words}"),
                    **how,
                )
            except Interrupted as error:
                # Another rank was asked where this one was not.
                by_key = not wish.by_sigterm and (wish.to_stop or ranks.world == 1)
                if not ranks.leads:
                    return INTERRUPTED if by_key else TERMINATED
                raise KeyboardInterrupt if by_key else Terminated from error
        return _outcome(record, folder)

    def _tell_if_slow(self, config: RunConfig, folder: RunFolder) -> None:
        """Warn of a run that is to be trained in a precision that is slow here."""
        from isoflop.trained import slow_precision

        if folder.record() is not None or self.device == "cuda":
            return
        threads = self.threads or usable_cores().count
        slow = slow_precision(config, device=self.device, threads=threads)
        if slow is not None:
            told = f'{slow}; precision = "fp32" under [recipe] makes it another run, and a fast one'
            tell(f"warning: {told}")


def _lines() -> Callable[[Progress], None]:
    """Return a function to be told of each step, which tells of it now and then."""
    last = time.monotonic()

    def watch(step: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES or step.step == step.steps:
            last = time.monotonic()
            speed = f"{count(step.tokens_per_second)} tokens/s"
            tell(f"step {step.step:,} of {step.steps:,}, loss {step.loss:.4f}, {speed}")

    return watch


def _outcome(record: RunRecord, folder: RunFolder) -> int:
    """Print what came of a run and return the exit code."""
    told = [f"{record.state}: {record.reason}" if record.reason else record.state]
    for one in record.evaluations:
        per_byte = "" if one.bits_per_byte is None else f", {one.bits_per_byte:.4f} bits/byte"
        weights = ", averaged weights" if one.weights == "average" else ""
        told.append(
            f"{one.split} loss {one.loss:.4f} nats/token{per_byte} ({one.decision}{weights})"
        )
    if folder.checkpoints.is_dir():
        told.append(f"checkpoint: {folder.checkpoints}")
    print("\n".join(map(quoted, told)))
    return 0 if record.state == "finished" else 1


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
        tell(f"isoflop: {why}; {then}")
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
