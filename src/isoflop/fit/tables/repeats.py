"""Runs of one size and one number of tokens that are no repeats of each other.

Repeats differ by noise. Where a column that nobody named goes with the loss within such cells, or
losses there differ far more than neighbouring cells do, the mean of the cell is of nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from isoflop.fit.intervals import Floats
from isoflop.fit.tables.names import plain
from isoflop.fit.tables.numbers import missing, numbers
from isoflop.fit.tables.wanted import Wanted

MEASURED = re.compile(
    r"loss(?:es)?|perplexity|ppl|bpb|bits|accuracy|acc|error|nll|score|time|seconds|hours|minutes"
    r"|duration|runtime|wall|elapsed|date|timestamp|created|started|ended|throughput|mfu|norm|grad"
    r"|memory|id|uuid|hash|url|path|host|hostname|node|notes"
)
"""Words in names of columns that are measured or name a run, and set nothing."""
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


@dataclass(frozen=True)
class _Setting:
    """A column that goes with the loss within cells."""

    column: str
    values: tuple[str, ...]
    numeric: bool
    share: float
    loss: float
    """By how much it moves the loss between its best and worst value."""
    effect: Floats
    """On the log loss of each row."""


def repeat_warnings(runs: pd.DataFrame, rows: pd.DataFrame, used: Collection[str]) -> list[str]:
    """Return a sentence per setting that differs within cells, and one for what none explains.

    Args:
        runs: `variant`, `parameters`, `tokens` and `loss` of each run.
        rows: the same runs as the table has them.
        used: columns of `rows` that are accounted for.
    """
    runs, rows = runs.iloc[:_MOST_ROWS], rows.iloc[:_MOST_ROWS]
    cells = _cells(runs)
    repeated = pd.Series(cells).groupby(cells).transform("size").to_numpy() > 1
    if len(np.unique(cells[repeated])) < 2:
        return []
    log_loss = np.log(runs["loss"].to_numpy())
    candidates = [str(one) for one in rows if one not in used and not _is_measured(str(one))]
    likely = [one for one in candidates[:_MOST_COLUMNS] if _is_setting(rows[one], cells, repeated)]
    said = []
    left = log_loss
    remaining = list(likely)
    while remaining:
        found = [_setting(rows[c], cells, left, repeated, len(remaining)) for c in remaining]
        accused = [one for one in found if one is not None]
        if not accused:
            break
        worst = max(accused, key=lambda one: one.share)
        left = left - worst.effect
        remaining.remove(worst.column)
        said.append(_sentence(worst, has_variants="variant" in used))
    unexplained = _unexplained(runs, cells, left, remaining)
    return said + ([unexplained] if unexplained else [])


def _cells(runs: pd.DataFrame) -> np.ndarray:
    """Return a number per run, equal for those of one variant, size and number of tokens."""
    tokens = np.round(np.log(runs["tokens"].to_numpy()) / 0.01)
    frame = pd.DataFrame(
        {"v": runs["variant"].to_numpy(), "n": runs["parameters"].to_numpy(), "d": tokens}
    )
    return frame.groupby(["v", "n", "d"], sort=False).ngroup().to_numpy()


def _is_measured(column: str) -> bool:
    return any(MEASURED.fullmatch(word) for word in plain(column).split("_"))


def _is_setting(column: pd.Series, cells: np.ndarray, repeated: np.ndarray) -> bool:
    """Return whether a column has few values that differ within cells and recur in others."""
    here = pd.DataFrame({"cell": cells[repeated], "level": _levels(column)[repeated]})
    varying = here[here.groupby("cell")["level"].transform("nunique") > 1]
    if varying["cell"].nunique() < 2 or not 2 <= varying["level"].nunique() <= LEVELS:
        return False
    recurring = varying.groupby("level")["cell"].transform("nunique") > 1
    return bool(recurring.mean() >= RECURRING)


def _levels(column: pd.Series) -> np.ndarray:
    values = numbers(column)
    texts = column.map(lambda one: "" if missing(one) else str(one).strip())
    return pd.factorize(texts if values.isna().any() else values)[0]


def _setting(
    column: pd.Series,
    cells: np.ndarray,
    log_loss: Floats,
    repeated: np.ndarray,
    tried: int,
) -> _Setting | None:
    """Return how a column goes with the loss within cells, None where that may be chance."""
    levels = _levels(column)
    dummies = np.equal.outer(levels, np.unique(levels)).astype(float)
    within = _within(np.column_stack((log_loss, dummies))[repeated], cells[repeated])
    loss, design = within[:, 0], within[:, 1:]
    coefficients, _, rank, _ = np.linalg.lstsq(design, loss, rcond=None)
    total = float(loss @ loss)
    rest = float(np.sum((loss - design @ coefficients) ** 2))
    freedom = len(loss) - len(np.unique(cells[repeated])) - int(rank)
    if freedom < 1 or total <= 0 or rank < 1:
        return None
    share = 1 - rest / total
    ratio = (total - rest) / rank / max(rest / freedom, 1e-300)
    if share < EXPLAINED or stats.f.sf(ratio, rank, freedom) > CHANCE / tried:
        return None
    present = coefficients[np.unique(levels[repeated])]
    span = float(present.max() - present.min()) * float(np.exp(log_loss[repeated].mean()))
    values = numbers(column)
    numeric = not values.isna().any()
    ordered = sorted(values.unique()) if numeric else sorted({str(one) for one in column})
    texts = tuple(f"{one:g}" if numeric else str(one) for one in ordered)
    effect = dummies @ coefficients
    return _Setting(str(column.name), texts, numeric, share, span, effect)


def _within(values: Floats, cells: np.ndarray) -> Floats:
    """Return values less their mean over the cell."""
    frame = pd.DataFrame(values)
    return np.asarray((frame - frame.groupby(cells).transform("mean")).to_numpy())


def _sentence(one: _Setting, *, has_variants: bool) -> str:
    shown = ", ".join(one.values[:5]) + (", ..." if len(one.values) > 5 else "")
    if STEPS.fullmatch(plain(one.column)):
        return (
            f"Rows of the same size and tokens differ in {one.column} ({shown}), as if they were "
            f"of one run: --last-of {one.column} keeps the last row of each."
        )
    ways = [f"--where {one.column}={one.values[0]}"]
    if one.numeric:
        ways.insert(0, f"--best-of {one.column}")
    if not has_variants:
        ways.append(f"--columns variant={one.column}")
    return (
        f"Runs of the same size and tokens differ in {one.column} ({shown}), which moves their "
        f"loss by up to {one.loss:.3g} and is not noise: their mean is of no one setting. "
        f"Say {', or '.join(ways)}."
    )


def _unexplained(
    runs: pd.DataFrame, cells: np.ndarray, log_loss: Floats, likely: Sequence[str]
) -> str | None:
    """Return a sentence where losses of one cell are much farther apart than noise puts them."""
    table = pd.DataFrame(
        {
            "variant": runs["variant"].to_numpy(),
            "n": np.log(runs["parameters"].to_numpy()),
            "d": np.log(runs["tokens"].to_numpy()),
            "loss": log_loss,
            "cell": cells,
        }
    )
    grouped = table.groupby("cell")
    summary = grouped[["variant", "n", "d"]].first()
    summary["low"], summary["high"] = grouped["loss"].min(), grouped["loss"].max()
    summary["range"], summary["size"] = summary["high"] - summary["low"], grouped.size()
    far = []
    for _, own in summary.groupby("variant", sort=False):
        scatter = _scatter(own)
        several = own[own["size"] > 1]
        if scatter is None:
            # Too few cells for a surface: only what no seed does is told.
            far.append(several[several["range"] > 10 * LEAST_RANGE])
            continue
        # The range of k normal numbers against the deviation of their lowest, by simulation: noise
        # alone goes beyond this once in ten thousand cells.
        times = TIMES_SCATTER * (5 + 2.2 * np.sqrt(several["size"].to_numpy()))
        beyond = several[several["range"] > np.maximum(times * scatter, LEAST_RANGE)]
        sure = several[several["range"] > np.maximum(2 * times * scatter, LEAST_RANGE)]
        found = beyond if len(beyond) > 1 else sure
        far.append(several if _even(several) else found)
    found = pd.concat(far)
    if found.empty:
        return None
    first = int(found.index[0])
    here = runs[cells == first]
    repeated = int((summary["size"] > 1).sum())
    columns = (
        f"{' and '.join(likely[:3])} differ there"
        if likely
        else "no column of the table tells them apart"
    )
    return (
        f"Losses of the same size and tokens differ far beyond noise in {len(found)} of {repeated} "
        f"such cells: at {here['parameters'].iloc[0]:,.0f} parameters and "
        f"{here['tokens'].iloc[0]:,.0f} tokens from {here['loss'].min():.4g} to "
        f"{here['loss'].max():.4g}. Two conditions may be mixed; {columns}. "
        "Keep one with --where COLUMN=VALUE, or name what differs with --columns variant=COLUMN."
    )


def _even(cells: pd.DataFrame) -> bool:
    """Return whether the ranges of cells are too much alike for noise, as between two conditions.

    The range of k normal numbers scatters by 0.76 of its mean for two of them, 0.52 for three and
    about 1 / sqrt(k) from there on.
    """
    least = LEAST_RANGE if len(cells) < _SURE_CELLS else _SURE_RANGE
    if len(cells) < 8 or cells["size"].nunique() > 1 or cells["range"].median() < least:
        return False
    under_noise = {2: 0.76, 3: 0.52}.get(int(cells["size"].iloc[0]), cells["size"].iloc[0] ** -0.5)
    nats = np.exp(cells["high"]) - np.exp(cells["low"])
    scatter = min(one.std() / one.mean() for one in (cells["range"], nats))
    return bool(scatter < EVEN * under_noise)


def _scatter(cells: pd.DataFrame) -> float | None:
    """Return how far the lowest log losses of cells lie about a smooth surface; None for few."""
    n, d = (cells[one].to_numpy() - cells[one].mean() for one in ("n", "d"))
    linear = np.column_stack((np.ones(len(cells)), n, d))
    design = np.column_stack((linear, n * n, n * d, d * d)) if len(cells) >= 10 else linear
    low = cells["low"].to_numpy()
    coefficients, _, rank, _ = np.linalg.lstsq(design, low, rcond=None)
    freedom = len(cells) - int(rank)
    if freedom < 3:
        return None
    return float(np.sqrt(np.sum((low - design @ coefficients) ** 2) / freedom))


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
