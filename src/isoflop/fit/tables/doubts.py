"""What in a table is likely not meant: its units, or repeats that are none.

Repeats differ by noise. Where a column that nobody named goes with the loss within cells of one
size and number of tokens, or losses there differ far more than neighbouring cells do, the mean of
the cell is of nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from scipy import special

from isoflop.fit.tables.columns import quoted
from isoflop.fit.tables.names import AXES, names_of, plain
from isoflop.fit.tables.numbers import numbers
from isoflop.fit.tables.sieve import Sieve, codes

LEAST = {"parameters": 10_000, "tokens": 100_000}
"""Of the middle run. The smallest models of published studies have some ten thousand parameters; a
table in millions would need models of ten billion in its middle to get past this. Fewer tokens are
no training: a single batch has more."""
BILLIONS = {"parameters": 10, "tokens": 1000}
"""What is below that is likelier in billions than in millions."""
FARTHEST = 100.0
"""Factor of compute over 6 N D. Attention, embeddings and routing move it by less than ten, experts
by up to some tens; a unit mistaken by a thousand lies beyond."""
FARTHEST_ALONE = 1e6
"""The same where only one of N and D is known, the other then by tokens per parameter."""
LARGEST_LOSS = 12.5
"""Of the middle run. Guessing costs the log of the vocabulary: 12.5 nats for 268,000 tokens."""
_COMPUTE = (1e3, 1e6, 1e9, 1e12, 1e15, 1e18, 1e21, 8.64e19)
"""Of units of compute; the last is a PFLOP/s-day."""
_TOKENS_PER_PARAMETER = 20.0
"""Of Hoffmann et al. (arXiv 2203.15556): what the other of size and tokens is likely to be."""
MEASURED = re.compile(
    r"(?:^|_)(?:loss(?:es)?|perplexity|ppl|bpb|bits|accuracy|acc|error|nll|score|time|seconds"
    r"|hours|minutes|duration|runtime|wall|elapsed|date|timestamp|created|started|ended|throughput"
    r"|mfu|norm|grad|memory|id|uuid|hash|url|path|host|hostname|node|notes)(?:_|$)"
)
"""Names with words of columns that are measured or name a run, and set nothing."""
LEVELS = 30
"""A setting has no more values than this."""
CHANCE = 1e-3
"""Of an F test, shared among the columns tried, below which a column goes with the loss."""
EXPLAINED = 0.2
"""Least share of the variance within cells that such a column explains."""
TIMES_SCATTER = 1.5
"""Allowance for noise that is not the same everywhere, on how far noise puts repeats apart."""
LEAST_RANGE = 0.02
"""Of log losses, below which a difference is not spoken of."""
STEPS = re.compile(r"(?:global_|train(?:ing)?_|trainer_)*(?:steps?|iter(?:ation)?s?|epochs?)")
"""Names of columns that say how far a run is: of the rows of one run the last is wanted."""
SERIES = 3
"""Rows of the middle run from which it is a series of checkpoints."""
_MOST_ROWS = 5000


def check_units(sieve: Sieve) -> None:
    """Refuse sizes, tokens or compute that are so far off that their unit must be another.

    What an expression says is taken as it is, so that nobody is kept from fitting tiny models.

    Raises:
        ValueError: in one line, with the factor to try.
    """
    wanted = sieve.wanted
    middle = {
        axis: float(sieve.values[axis][sieve.kept].median()) for axis in AXES if axis in wanted
    }
    few = [
        axis
        for axis, least in LEAST.items()
        if axis in wanted and not wanted[axis].computed and middle[axis] < least
    ]
    if few:
        told = (f"{_said(sieve, one)} is {middle[one]:,.4g} in the middle run" for one in few)
        factors = {one: 1e9 if middle[one] < BILLIONS[one] else 1e6 for one in few}
        raise ValueError(
            f"{sieve.source}: {' and '.join(told)}, too few for a language model; if that is "
            f"another unit, say {_options(sieve, factors)}; times 1 takes the values as they are"
        )
    if "budget_flops" not in wanted or wanted["budget_flops"].computed:
        return
    size = middle.get("parameters", middle.get("tokens", 0) / _TOKENS_PER_PARAMETER)
    tokens = middle.get("tokens", size * _TOKENS_PER_PARAMETER)
    off = middle["budget_flops"] / (6 * size * tokens)
    farthest = FARTHEST if {"parameters", "tokens"} <= wanted.keys() else FARTHEST_ALONE
    if 1 / farthest <= off <= farthest:
        return
    again = "name another column with --columns"
    if off < 1:
        factor = min(_COMPUTE, key=lambda one: abs(math.log(one * off)))
        again = f"if it is in another unit, say {_options(sieve, {'budget_flops': factor})}"
    raise ValueError(
        f"{sieve.source}: {_said(sieve, 'budget_flops')} is {middle['budget_flops']:.3g} in the "
        f"middle run, {off:.2g} of 6 N D; expected total training FLOPs: {again}"
    )


def _said(sieve: Sieve, name: str) -> str:
    return f'{name} ("{sieve.wanted[name].used[0]}")'


def _options(sieve: Sieve, factors: Mapping[str, float]) -> str:
    texts = []
    for axis, factor in factors.items():
        column = quoted(sieve.wanted[axis].used[0])
        mark = "'" if column.startswith('"') else '"'
        short = f"{factor:.3g}".replace("e+0", "e").replace("e+", "e")
        texts.append(f"{mark}{axis}={column}*{short}{mark}")
    return f"--columns {' '.join(texts)}"


def doubts(sieve: Sieve, used: Collection[str]) -> list[str]:
    """Return a sentence for each thing in the runs that are kept which is likely not meant.

    The columns `used` are accounted for.
    """
    told = (_perplexities(sieve), _checkpoints(sieve), _repeats(sieve, used))
    return [one for one in told if one]


def _perplexities(sieve: Sieve) -> str | None:
    """Return a sentence where losses are higher than any model's, as perplexities are."""
    middle = float(sieve.values["loss"][sieve.kept].median())
    if sieve.wanted["loss"].computed or not middle > LARGEST_LOSS:
        return None
    return (
        f"{_said(sieve, 'loss')} is {middle:.4g} in the middle run, more than guessing costs a "
        "language model; if it is a perplexity, say --columns "
        f"'loss=log({quoted(sieve.wanted['loss'].used[0])})'."
    )


def _checkpoints(sieve: Sieve) -> str | None:
    """Return a sentence where runs have several rows of the same size and different tokens."""
    runs, named = sieve.values[sieve.kept], sieve.wanted.get("run")
    if named is None:
        return None
    grouped = runs.groupby(named.values[sieve.kept].map(str).to_numpy())
    counts, sizes, tokens = grouped.size(), *(grouped[one].nunique() for one in AXES[1:])
    series = (counts >= SERIES) & (sizes == 1) & (tokens == counts)
    # A name may be that of a size, unless several share one.
    of_size = plain(named.used[0]).endswith("name") and len(counts) <= runs["parameters"].nunique()
    if of_size or series.mean() <= 0.5:
        return None
    steps = [one for one in names_of(sieve.rows) if STEPS.fullmatch(plain(one))]
    return (
        f'Runs by "{named.used[0]}" have up to {int(counts.max())} rows, of the same size and more '
        "and more tokens: checkpoints read under a learning rate that has not decayed are no "
        f"finished runs; --last-of {[*steps, 'STEP'][0]} keeps the last row of each."
    )


def _repeats(sieve: Sieve, used: Collection[str]) -> str | None:
    """Return a sentence on the setting that moves losses within cells most, or what none does."""
    runs, rows = (one[sieve.kept].iloc[:_MOST_ROWS] for one in (sieve.values, sieve.rows))
    tokens = np.round(np.log(runs["tokens"]) / 0.01)
    cells = codes(runs[["variant", "parameters"]].assign(tokens=tokens))
    repeated = pd.Series(cells).duplicated(keep=False).to_numpy()
    if len(np.unique(cells[repeated])) < 2:
        return None
    here = pd.DataFrame({"cell": cells, "loss": np.log(runs["loss"])})
    tried = {}
    for name in names_of(rows):
        levels = rows[name][repeated].map(str)
        few = 2 <= levels.nunique() <= LEVELS
        if few and name not in used and not MEASURED.search(plain(name)):
            tried[name] = _explained(here[repeated].assign(level=levels))
    sure = {name: one for name, one in tried.items() if one[1] <= CHANCE / len(tried)}
    worst = max(sure, key=lambda name: sure[name][0], default=None)
    if worst is None or sure[worst][0] < EXPLAINED:
        return _unexplained(here.join(runs[["variant", *AXES[1:]]]))
    moved = sure[worst][2] * math.exp(here["loss"][repeated].mean())
    return _sentence(rows[worst], moved, has_variants="variant" in used)


def _explained(rows: pd.DataFrame) -> tuple[float, float, float]:
    """Return the share of the variance within cells that a column explains, the chance that noise
    does so, and how far its levels lie apart in log loss."""
    within = rows["loss"] - rows.groupby("cell")["loss"].transform("mean")
    effect = within.groupby(rows["level"]).transform("mean")
    total, rest = float((within**2).sum()), float(((within - effect) ** 2).sum())
    rank = rows["level"].nunique() - 1
    freedom = len(rows) - rows["cell"].nunique() - rank
    if freedom < 1 or total <= 0:
        return 0.0, 1.0, 0.0
    ratio = (total - rest) / rank / max(rest / freedom, 1e-300)
    return 1 - rest / total, float(special.fdtrc(rank, freedom, ratio)), float(np.ptp(effect))


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


def _unexplained(runs: pd.DataFrame) -> str | None:
    """Return a sentence where losses of one cell are much farther apart than noise puts them."""
    grouped = runs.assign(n=np.log(runs["parameters"]), d=np.log(runs["tokens"])).groupby("cell")
    cells = grouped[["variant", "n", "d"]].first()
    cells["size"], cells["low"] = grouped.size(), grouped["loss"].min()
    cells["range"] = grouped["loss"].max() - cells["low"]
    found = pd.concat(_far(own) for _, own in cells.groupby("variant", sort=False))
    if len(found) < 2:
        return None
    here = runs[runs["cell"] == found.index[0]]
    losses = np.exp(here["loss"])
    return (
        f"Losses of the same size and tokens differ far beyond noise in {len(found)} of "
        f"{int((cells['size'] > 1).sum())} such cells: at {here['parameters'].iloc[0]:,.0f} "
        f"parameters and {here['tokens'].iloc[0]:,.0f} tokens from {losses.min():.4g} to "
        f"{losses.max():.4g}. Two conditions may be mixed; no column of the table tells them "
        "apart. Keep one with --where COLUMN=VALUE, or name what differs with --columns "
        "variant=COLUMN."
    )


def _far(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of a variant whose log losses are farther apart than noise puts them.

    Noise is how far the lowest of each cell lie about a smooth surface. The range of k normal
    numbers against the deviation of their lowest, by simulation: noise alone goes beyond
    5 + 2.2 sqrt(k) once in ten thousand cells.
    """
    n, d = (cells[one] - cells[one].mean() for one in ("n", "d"))
    terms = [n**0, n, d] + ([n * n, n * d, d * d] if len(cells) >= 10 else [])
    design, low = np.column_stack(terms), cells["low"].to_numpy()
    coefficients, _, rank, _ = np.linalg.lstsq(design, low, rcond=None)
    freedom = len(cells) - int(rank)
    # Too few cells tell no scatter: then only what no seed does is told.
    squares = float(np.sum((low - design @ coefficients) ** 2))
    scatter = math.sqrt(squares / freedom) if freedom > 2 else LEAST_RANGE
    beyond = TIMES_SCATTER * (5 + 2.2 * np.sqrt(cells["size"])) * scatter
    far: pd.DataFrame = cells[(cells["size"] > 1) & (cells["range"] > beyond.clip(LEAST_RANGE))]
    return far
