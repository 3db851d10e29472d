"""Runs of one size and one number of tokens that are no repeats of each other.

Repeats differ by noise. Where a column that nobody named goes with the loss within such cells, or
losses there differ far more than neighbouring cells do, the mean of the cell is of nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from scipy import special

from isoflop.fit.intervals import Floats
from isoflop.fit.tables.choosing import codes
from isoflop.fit.tables.names import names_of, plain
from isoflop.fit.tables.numbers import missing, numbers
from isoflop.fit.tables.sieve import Sieve

MEASURED = re.compile(
    r"(?:^|_)(?:loss(?:es)?|perplexity|ppl|bpb|bits|accuracy|acc|error|nll|score|time|seconds"
    r"|hours|minutes|duration|runtime|wall|elapsed|date|timestamp|created|started|ended|throughput"
    r"|mfu|norm|grad|memory|id|uuid|hash|url|path|host|hostname|node|notes)(?:_|$)"
)
"""Names with words of columns that are measured or name a run, and set nothing."""
LEVELS = 30
"""A setting has no more values than this."""
RECURRING = 0.8
"""Share of the runs whose value of a setting occurs in another cell as well."""
CHANCE = 1e-3
"""Of an F test, shared among the columns tried, below which a column goes with the loss."""
EXPLAINED = 0.2
"""Least share of the variance within cells that such a column explains."""
TIMES_SCATTER = 1.5
"""Allowance for noise that is not the same everywhere, on how far noise puts repeats apart."""
EVEN = 0.3
"""Ranges of cells that scatter by less than so much of what they would under noise alone are no
noise: for eight cells that happens by chance once in a thousand tables."""
LEAST_RANGE = 0.02
"""Of log losses, below which a difference is not spoken of."""
STEPS = re.compile(r"(?:global_|train(?:ing)?_|trainer_)*(?:steps?|iter(?:ation)?s?|epochs?)")
"""Names of columns that say how far a run is: of the rows of one run the last is wanted."""
_SURE_CELLS, _SURE_RANGE = 12, 0.008
"""So many even cells are no chance, and no two seeds differ by so much in the same direction."""
_MOST_ROWS = 5000
_MOST_COLUMNS = 100
_OF_ONE_RUN = ("run", "run_id", "run_name", "experiment_id", "id")
"""Columns that name a run. A `name` or an `experiment` may be that of a size, unless several of
them share one."""
_SERIES = 3
"""Rows of the middle run from which it is a series of checkpoints."""


def repeat_warnings(sieve: Sieve, used: Collection[str]) -> list[str]:
    """Return a sentence per setting that differs within cells, and one for what none explains.

    Args:
        sieve: rows and values of the runs that are kept.
        used: columns that are accounted for.
    """
    runs, rows = (one[sieve.kept].iloc[:_MOST_ROWS] for one in (sieve.values, sieve.rows))
    tokens = np.round(np.log(runs["tokens"]) / 0.01)
    cells = codes(runs[["variant", "parameters"]].assign(tokens=tokens))
    repeated = pd.Series(cells).duplicated(keep=False).to_numpy()
    if len(np.unique(cells[repeated])) < 2:
        return []
    left = np.log(runs["loss"].to_numpy())
    settings = [
        one for one in names_of(rows) if one not in used and not MEASURED.search(plain(one))
    ]
    levels = {one: _levels(rows[one]) for one in settings[:_MOST_COLUMNS]}
    levels = {one: own for one, own in levels.items() if _recurs(own[repeated], cells[repeated])}
    said = []
    while levels:
        tried = {one: _explained(own, cells, left, repeated) for one, own in levels.items()}
        sure = [one for one, (_, chance, _) in tried.items() if chance <= CHANCE / len(levels)]
        worst = max(sure, key=lambda one: tried[one][0], default=None)
        if worst is None or tried[worst][0] < EXPLAINED:
            break
        effect = tried[worst][2]
        moved = float(np.ptp(effect[repeated])) * float(np.exp(left[repeated].mean()))
        left = left - effect
        del levels[worst]
        said.append(_sentence(rows[worst], moved, has_variants="variant" in used))
    unexplained = _unexplained(runs, cells, left, list(levels))
    return said + ([unexplained] if unexplained else [])


def _levels(column: pd.Series) -> np.ndarray:
    values = numbers(column)
    texts = column.map(lambda one: "" if missing(one) else str(one).strip())
    return pd.factorize(texts if values.isna().any() else values)[0]


def _recurs(levels: np.ndarray, cells: np.ndarray) -> bool:
    """Return whether a column has few values that differ within cells and recur in others."""
    here = pd.DataFrame({"cell": cells, "level": levels})
    varying = here[here.groupby("cell")["level"].transform("nunique") > 1]
    if varying["cell"].nunique() < 2 or not 2 <= varying["level"].nunique() <= LEVELS:
        return False
    recurring = varying.groupby("level")["cell"].transform("nunique") > 1
    return bool(recurring.mean() >= RECURRING)


def _explained(
    levels: np.ndarray, cells: np.ndarray, log_loss: Floats, repeated: np.ndarray
) -> tuple[float, float, Floats]:
    """Return the share of the variance within cells that a column explains, the chance that noise
    does so, and the column's effect on the log loss of each row."""
    dummies = pd.get_dummies(levels).to_numpy(dtype=float)
    table = pd.DataFrame(np.column_stack((log_loss, dummies))[repeated])
    within = (table - table.groupby(cells[repeated]).transform("mean")).to_numpy()
    loss, design = within[:, 0], within[:, 1:]
    coefficients, _, rank, _ = np.linalg.lstsq(design, loss, rcond=None)
    total = float(loss @ loss)
    rest = float(np.sum((loss - design @ coefficients) ** 2))
    freedom = len(loss) - len(np.unique(cells[repeated])) - int(rank)
    effect = dummies @ coefficients
    if freedom < 1 or total <= 0 or rank < 1:
        return 0.0, 1.0, effect
    ratio = max(0.0, total - rest) / rank / max(rest / freedom, 1e-300)
    return 1 - rest / total, float(special.fdtrc(rank, freedom, ratio)), effect


def _sentence(cells: pd.Series, moved: float, *, has_variants: bool) -> str:
    """Return what is said of a setting that moves the loss by so much."""
    column = str(cells.name)
    values = numbers(cells)
    numeric = not values.isna().any()
    ordered = sorted(values.unique()) if numeric else sorted(set(map(str, cells)))
    texts = [f"{value:g}" if numeric else value for value in ordered]
    shown = ", ".join(texts[:5]) + (", ..." if len(texts) > 5 else "")
    if STEPS.fullmatch(plain(column)):
        return (
            f"Rows of the same size and tokens differ in {column} ({shown}), as if they were "
            f"of one run: --last-of {column} keeps the last row of each."
        )
    ways = [f"--best-of {column}"] if numeric else []
    ways.append(f"--where {column}={texts[0]}")
    if not has_variants:
        ways.append(f"--columns variant={column}")
    return (
        f"Runs of the same size and tokens differ in {column} ({shown}), which moves their "
        f"loss by up to {moved:.3g} and is not noise: their mean is of no one setting. "
        f"Say {', or '.join(ways)}."
    )


def _unexplained(
    runs: pd.DataFrame, cells: np.ndarray, log_loss: Floats, likely: Sequence[str]
) -> str | None:
    """Return a sentence where losses of one cell are much farther apart than noise puts them."""
    table = runs.assign(n=np.log(runs["parameters"]), d=np.log(runs["tokens"]), loss=log_loss)
    summary = table.groupby(cells).agg(
        variant=("variant", "first"),
        n=("n", "first"),
        d=("d", "first"),
        low=("loss", "min"),
        high=("loss", "max"),
        size=("loss", "size"),
    )
    summary["range"] = summary["high"] - summary["low"]
    found = pd.concat(_far(own) for _, own in summary.groupby("variant", sort=False))
    if found.empty:
        return None
    here = runs[cells == found.index[0]]
    columns = (
        f"{' and '.join(likely[:3])} differ there"
        if likely
        else "no column of the table tells them apart"
    )
    return (
        f"Losses of the same size and tokens differ far beyond noise in {len(found)} of "
        f"{int((summary['size'] > 1).sum())} such cells: at {here['parameters'].iloc[0]:,.0f} "
        f"parameters and {here['tokens'].iloc[0]:,.0f} tokens from {here['loss'].min():.4g} to "
        f"{here['loss'].max():.4g}. Two conditions may be mixed; {columns}. "
        "Keep one with --where COLUMN=VALUE, or name what differs with --columns variant=COLUMN."
    )


def _far(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of a variant whose losses are too far apart, or too evenly, for noise."""
    several = cells[cells["size"] > 1]
    scatter = _scatter(cells)
    if scatter is None:
        # Too few cells for a surface: only what no seed does is told.
        return several[several["range"] > 10 * LEAST_RANGE]
    if _even(several):
        return several
    # The range of k normal numbers against the deviation of their lowest, by simulation: noise
    # alone goes beyond this once in ten thousand cells.
    beyond = TIMES_SCATTER * (5 + 2.2 * np.sqrt(several["size"])) * scatter
    found: pd.DataFrame = several[several["range"] > np.maximum(beyond, LEAST_RANGE)]
    sure: pd.DataFrame = several[several["range"] > np.maximum(2 * beyond, LEAST_RANGE)]
    return found if len(found) > 1 else sure


def _even(cells: pd.DataFrame) -> bool:
    """Return whether the ranges of cells are too much alike for noise, as between two conditions.

    The range of k normal numbers scatters by 0.76 of its mean for two of them, 0.52 for three and
    about 1 / sqrt(k) from there on.
    """
    least = LEAST_RANGE if len(cells) < _SURE_CELLS else _SURE_RANGE
    if len(cells) < 8 or cells["size"].nunique() > 1 or cells["range"].median() < least:
        return False
    repeats = int(cells["size"].iloc[0])
    under_noise = {2: 0.76, 3: 0.52}.get(repeats, repeats**-0.5)
    nats = np.exp(cells["high"]) - np.exp(cells["low"])
    scatter = min(one.std() / one.mean() for one in (cells["range"], nats))
    return bool(scatter < EVEN * under_noise)


def _scatter(cells: pd.DataFrame) -> float | None:
    """Return how far the lowest log losses of cells lie about a smooth surface; None for few."""
    n, d = (cells[one].to_numpy() - cells[one].mean() for one in ("n", "d"))
    terms = [np.ones(len(cells)), n, d] + ([n * n, n * d, d * d] if len(cells) >= 10 else [])
    design, low = np.column_stack(terms), cells["low"].to_numpy()
    coefficients, _, rank, _ = np.linalg.lstsq(design, low, rcond=None)
    freedom = len(cells) - int(rank)
    if freedom < 3:
        return None
    return float(np.sqrt(np.sum((low - design @ coefficients) ** 2) / freedom))


def checkpoint_warning(sieve: Sieve) -> str | None:
    """Return a sentence where runs have several rows of the same size and different tokens."""
    runs, wanted = sieve.values[sieve.kept], sieve.wanted
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
    steps = [one for one in names_of(sieve.rows) if STEPS.fullmatch(plain(one))]
    column = [*steps, *(wanted["tokens"].used if "tokens" in wanted else ()), "STEP"][0]
    return (
        f'Runs by "{named.used[0]}" have up to {int(counts.max())} rows, of the same size and more '
        "and more tokens: checkpoints read under a learning rate that has not decayed are no "
        f"finished runs; --last-of {column} keeps the last row of each."
    )
