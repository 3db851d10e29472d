"""What several subcommands are told, and the folders they take by default.

A command is a frozen class: its fields are its options, its docstring is its help, and calling it
does it. Here are the classes that commands share fields by.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from tyro.conf import Positional, arg

from isoflop.config import Cap, Recompute
from isoflop.config.load import load_study
from isoflop.text import quoted
from isoflop.tracking.trackers import Kind

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from isoflop.config import Study
    from isoflop.sweep import Execution, Folders, Outcome

RUNS, RESULTS, CACHE = Path("runs"), Path("results"), Path("cache")
OF_WORKERS = ("device", "memory_gib", "micro_batch_tokens", "recompute", "workers", "stall_minutes")
"""Options that workers of a cluster are started with as they are."""

Value = TypeVar("Value", bound="DataclassInstance")

StudyFile = Annotated[Path, Positional, arg(metavar="STUDY", help="The study, as TOML or JSON.")]
ConfigFile = Annotated[
    Path, Positional, arg(metavar="STUDY|CONFIG", help="A study, or a single run.")
]
Cache = Annotated[Path, arg(metavar="FOLDER", help="Where prepared corpora lie.")]
Out = Annotated[
    Path | None, arg(metavar="FOLDER", help="Where the study lives; runs/NAME if left out.")
]
Results = Annotated[
    Path, arg(metavar="FOLDER", help="Committed records to start from, a folder per study.")
]
Workers = Annotated[
    int | None, arg(metavar="INT", help="Runs at a time; one per core or device if left out.")
]
MemoryGib = Annotated[
    float | None,
    arg(metavar="GIB", help="Memory that a run may take on a CPU; more fails it. No limit else."),
]
Device = Annotated[Literal["cpu", "cuda"], arg(help="What to train on.")]
NumberOfRanks = Annotated[
    int | None,
    arg(metavar="INT", help="Processes that share each step; they are started here."),
]
Json = Annotated[bool, arg(help="Print JSON in place of tables.")]


def tell(text: str) -> None:
    """Tell on standard error what goes on or was written, in one line."""
    print(quoted(text), file=sys.stderr, flush=True)


def taken(kind: type[Value], options: object, **others: Any) -> Value:
    """Return a value made of the options that have the names of its fields, and of others."""
    names = [one.name for one in fields(kind) if hasattr(options, one.name)]
    return kind(**{name: getattr(options, name) for name in names} | others)


def bytes_of(memory_gib: float | None) -> int | None:
    """Return a limit of memory in bytes, None for none."""
    return None if memory_gib is None else int(memory_gib * 2**30)


@dataclass(frozen=True, kw_only=True)
class OfStudy:
    """A study and where it lives."""

    study: StudyFile
    out: Out = None
    results: Results = RESULTS

    def found(self) -> tuple[Study, Folders]:
        """Return the study of the file, and its folders."""
        from isoflop.sweep import Folders

        study = load_study(self.study)
        cache = getattr(self, "cache", CACHE)
        return study, Folders.of(study, self.out, self.results, cache)

    def settled(self) -> tuple[Study, Folders]:
        """Return the study in the precision that its runs have, and its folders."""
        from isoflop import sweep

        study, folders = self.found()
        return sweep.settled(study, folders.root, folders.results).study, folders


@dataclass(frozen=True, kw_only=True)
class OfStep:
    """How steps are made, which is no part of what is trained."""

    device: Device = "cpu"
    memory_gib: MemoryGib = None
    micro_batch_tokens: Annotated[int | Literal["auto"], arg(metavar="INT|auto")] = "auto"
    """Tokens of a step held at a time; auto for what fits."""
    recompute: Annotated[Recompute | Literal["auto"], arg(metavar="auto|none|selective|full")] = (
        "auto"
    )
    """What blocks compute again, in place of keeping it; auto for as little as fits."""
    track: Annotated[Kind | None, arg(metavar="csv|tensorboard|wandb|mlflow|trackio")] = None
    """Tell a tracker of runs as they train; its files lie in tracking/ beside them."""
    cache: Cache = CACHE


@dataclass(frozen=True, kw_only=True)
class OfTraining(OfStudy, OfStep):
    """How the runs of a study are trained."""

    workers: Workers = None
    stall_minutes: Annotated[float, arg(metavar="MIN")] = 30.0
    """Without a sign of life for so long a run is killed as hung."""

    def of_workers(self) -> list[str]:
        """Return what is given here of how to train, as it is typed after `isoflop work`."""
        given = {name: getattr(self, name) for name in OF_WORKERS}
        typed = [one for one in given.items() if one[1] != getattr(OfTraining, one[0])]
        return [word for name, value in typed for word in (f"--{name}", str(value))]

    def execution(self, **others: Any) -> Execution:
        """Return how runs are executed."""
        from isoflop.sweep import Execution

        others |= {"memory_bytes": bytes_of(self.memory_gib)}
        return taken(Execution, self, stall_seconds=60 * self.stall_minutes, **others)

    def trained(self, study: Study, folders: Folders, execution: Execution) -> Outcome:
        """Train the runs of the study, told to a tracker, and return how that ended."""
        from isoflop import sweep
        from isoflop.tracking import tracking

        with tracking(folders.root, self.track, study.name):
            outcome = sweep.run_study(study, folders, execution)
        check_uninterrupted(outcome)
        for line in outcome.stale:
            tell(f"isoflop: {line}")
        return outcome


def check_uninterrupted(outcome: Outcome) -> None:
    """Raise what tells `main` that a signal ended training."""
    from isoflop.sweep.interrupts import Terminated

    if outcome.interrupted:
        raise Terminated if outcome.terminated else KeyboardInterrupt


@dataclass(frozen=True, kw_only=True)
class OfModel:
    """A model that was trained, and what it is asked with."""

    checkpoint: Annotated[Path, Positional, arg(metavar="CHECKPOINT")]
    """Folder of a finished run, runs/STUDY/runs/RUN_ID, or of a checkpoint."""
    cap_window: Annotated[int | None, arg(metavar="INT")] = None
    """Cap what a block processes in so many positions."""
    cap_tokens: Annotated[int | None, arg(metavar="INT")] = None
    """The cap; what the capacity makes of the window else."""
    cache: Cache = CACHE
    threads: Annotated[int | None, arg(metavar="INT")] = None
    """CPU threads of torch; as in training else."""

    @property
    def cap(self) -> Cap | None:
        """The cap that two options describe, None where neither is given.

        Raises:
            ValueError: one is below 1, or tokens come without a window.
        """
        window, tokens = self.cap_window, self.cap_tokens
        if window is None:
            if tokens is not None:
                raise ValueError(
                    "--cap-tokens is given without --cap-window, which it is counted in"
                )
            return None
        if window < 1 or (tokens is not None and tokens < 1):
            also = "" if tokens is None else f", --cap-tokens {tokens}"
            raise ValueError(f"--cap-window is {window}{also}; expected 1 or more")
        return Cap(window=window, tokens=tokens)
