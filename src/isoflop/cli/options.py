"""What several subcommands are told, and the folders they take by default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from isoflop.config import Cap, Recompute
from isoflop.tracking.trackers import Kind

RUNS, RESULTS, CACHE = Path("runs"), Path("results"), Path("cache")
STALL_MINUTES = 30.0

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
Checkpoint = Annotated[
    Path,
    Positional,
    arg(metavar="CHECKPOINT", help="Folder of a finished run: runs/STUDY/runs/RUN_ID."),
]
TorchThreads = Annotated[
    int | None, arg(metavar="INT", help="CPU threads of torch; as in training else.")
]
CapWindow = Annotated[
    int | None, arg(metavar="INT", help="Cap what a block processes in so many positions.")
]
CapTokens = Annotated[
    int | None, arg(metavar="INT", help="The cap; what the capacity makes of the window else.")
]
MemoryGib = Annotated[
    float | None,
    arg(metavar="GIB", help="Memory that a run may take on a CPU; more fails it. No limit else."),
]
StallMinutes = Annotated[
    float, arg(metavar="MIN", help="Without a sign of life for so long a run is killed as hung.")
]
Device = Annotated[Literal["cpu", "cuda"], arg(help="What to train on.")]
MicroBatchTokens = Annotated[
    int | Literal["auto"],
    arg(metavar="INT|auto", help="Tokens of a step held at a time; auto for what fits."),
]
Recomputed = Annotated[
    Recompute | Literal["auto"],
    arg(
        metavar="auto|none|selective|full",
        help="What blocks compute again, in place of keeping it; auto for as little as fits.",
    ),
]
NumberOfRanks = Annotated[
    int | None,
    arg(metavar="INT", help="Processes that share each step; they are started here."),
]
Track = Annotated[
    Kind | None,
    arg(
        metavar="csv|tensorboard|wandb|mlflow|trackio",
        help="Tell a tracker of runs as they train; its files lie in tracking/ beside them.",
    ),
]
Json = Annotated[bool, arg(help="Print JSON in place of tables.")]
Force = Annotated[bool, arg(help="Measure although the machine is busy, and say so.")]
RowsOut = Annotated[Path | None, arg(metavar="FOLDER", help="Write rows and figure there as well.")]


def cap_of(window: int | None, tokens: int | None) -> Cap | None:
    """Return the cap that two options describe, None where neither is given.

    Raises:
        ValueError: one is below 1, or tokens come without a window.
    """
    if window is None:
        if tokens is not None:
            raise ValueError("--cap-tokens is given without --cap-window, which it is counted in")
        return None
    if window < 1 or (tokens is not None and tokens < 1):
        raise ValueError(f"the cap is {tokens} tokens of {window}; expected at least 1 of either")
    return Cap(window=window, tokens=tokens)


def bytes_of(memory_gib: float | None) -> int | None:
    """Return a limit of memory in bytes, None for none; a ValueError where it is no size."""
    if memory_gib is not None and not memory_gib > 0:
        raise ValueError(f"--memory-gib is {memory_gib}; expected more than 0")
    return None if memory_gib is None else int(memory_gib * 2**30)
