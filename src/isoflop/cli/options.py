"""What several subcommands are told, and the folders they take by default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

RUNS = Path("runs")
CACHE = Path("cache")
RESULTS = Path("results")

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
Device = Annotated[Literal["cpu", "cuda"], arg(help="What to train on.")]
Json = Annotated[bool, arg(help="Print JSON in place of tables.")]
Force = Annotated[bool, arg(help="Measure although the machine is busy, and say so.")]
RowsOut = Annotated[Path | None, arg(metavar="FOLDER", help="Write rows and figure there as well.")]
