"""Tables that are logs: several rows of one run, each at another step of it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from isoflop.fit.tables.wanted import Wanted


def logged_warnings(runs: pd.DataFrame, wanted: Mapping[str, Wanted]) -> list[str]:
    """Return a sentence where most runs have several rows that differ in tokens alone.

    Losses in the middle of a run, its learning rate still high, are not those of shorter runs.

    Args:
        runs: `variant`, `parameters` and `tokens` of each row that is used.
        wanted: the columns of their table; without one of runs nothing is told.
    """
    if "run" not in wanted:
        return []
    names = wanted["run"].values[runs.index].map(str)
    own = runs.groupby(names.to_numpy(), sort=False)
    rows = own.size()
    one_model = (own["variant"].nunique() == 1) & (own["parameters"].nunique() == 1)
    logged = (rows > 1) & one_model & (own["tokens"].nunique() == rows)
    if 2 * int(logged.sum()) <= len(rows):
        return []
    column = wanted["run"].used[0]
    return [
        f"{int(logged.sum())} runs by {column} have several rows each, at different tokens: losses "
        "in the middle of a run are not those of shorter runs. --last-of COLUMN, such as the step, "
        "takes the last row of each."
    ]
