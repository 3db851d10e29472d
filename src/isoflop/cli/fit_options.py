"""What `isoflop fit` and `isoflop predict` are both told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:  # a fit loads what the start of a command need not wait for
    from isoflop.fit import FitSettings


@dataclass(frozen=True)
class FitOptions:
    """Whose runs are fitted, and what intervals of the fits rest on."""

    runs: Annotated[
        Path,
        Positional,
        arg(metavar="TABLE", help="A study, its records, or a table as CSV, JSON, Excel, Parquet."),
    ]
    columns: Annotated[
        tuple[str, ...],
        arg(
            metavar="NAME=COLUMN",
            help="Columns of the table that have names of their own, or arithmetic on them: "
            '"tokens=step*batch_tokens" "parameters=params*1e6" "loss=log(perplexity)".',
        ),
    ] = ()
    where: Annotated[
        tuple[str, ...],
        arg(metavar="COLUMN=VALUE", help="Rows to take; also !=, <, >, <= and >=."),
    ] = ()
    last_of: Annotated[
        str | None,
        arg(metavar="COLUMN", help="Take the last row of each run by this column, such as step."),
    ] = None
    best_of: Annotated[
        tuple[str, ...],
        arg(
            metavar="COLUMN",
            help="Settings that were searched, such as peak_lr: take the best at each size and "
            "number of tokens.",
        ),
    ] = ()
    tolerance: Annotated[float, arg(help="Budgets this near to each other count as one.")] = 0.1
    delta: Annotated[float, arg(help="Of the Huber loss on log loss.")] = 1e-3
    equal_exponents: Annotated[
        bool,
        arg(help="Fit surfaces with alpha = beta, for runs at fixed tokens per parameter."),
    ] = False
    level: Annotated[float, arg(help="Probability that intervals are to hold.")] = 0.95
    resamples: Annotated[int, arg(help="Bootstrap samples behind each interval.")] = 1000
    seed: Annotated[int, arg(help="Of the bootstrap.")] = 0
    results: Annotated[
        Path, arg(metavar="FOLDER", help="Committed records to start from, a folder per study.")
    ] = Path("results")
    json: Annotated[bool, arg(help="Print JSON in place of tables.")] = False

    def settings(self, *, margin: float | None = None, cluster: str | None = None) -> FitSettings:
        """Return what a fit is asked for."""
        from isoflop.fit import FitSettings

        return FitSettings(
            delta=self.delta,
            level=self.level,
            resamples=self.resamples,
            seed=self.seed,
            equal_exponents=self.equal_exponents,
            cluster=cluster,
            margin=margin,
        )
