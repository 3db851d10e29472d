"""Tables with several rows along each run, of which usually only the last is wanted."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from isoflop.fit.tables.names import plain
from isoflop.fit.tables.repeats import STEPS
from isoflop.fit.tables.wanted import Wanted

_OF_ONE_RUN = ("run", "run_id", "run_name", "experiment_id", "id")
"""Columns that name a run. A `name` or an `experiment` may be that of a size, unless several of
them share one."""
_SERIES = 3
"""Rows of the middle run from which it is a series of checkpoints."""


def checkpoint_warning(
    runs: pd.DataFrame, rows: pd.DataFrame, wanted: Mapping[str, Wanted]
) -> str | None:
    """Return a sentence where runs have several rows of the same size and different tokens.

    Args:
        runs: `parameters` and `tokens` of each row.
        rows: the same rows as the table has them.
        wanted: where columns come from.
    """
    named = wanted.get("run")
    if named is None:
        return None
    names = named.values[runs.index].map(str)
    sure = plain(named.used[0].split(".")[-1]) in _OF_ONE_RUN
    if not sure and names.nunique() <= runs["parameters"].nunique():
        return None
    grouped = runs.groupby(names.to_numpy())
    counts = grouped.size()
    alike = grouped["parameters"].nunique() == 1
    if not ((counts >= _SERIES) & (grouped["tokens"].nunique() == counts) & alike).mean() > 0.5:
        return None
    steps = [str(one) for one in rows if STEPS.fullmatch(plain(str(one)))]
    column = steps[0] if steps else wanted["tokens"].used[0] if "tokens" in wanted else "STEP"
    return (
        f'Runs by "{named.used[0]}" have up to {int(counts.max())} rows, of the same size and more '
        "and more tokens: checkpoints read under a learning rate that has not decayed are no "
        f"finished runs; --last-of {column} keeps the last row of each."
    )
