"""Records of runs as one table, and the sizes that were trained, over seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from isoflop.config import Frozen, RunRecord
from isoflop.fit.intervals import Floats

COLUMNS: Mapping[str, str] = {
    "variant": "str",
    "run_id": "str",
    "state": "str",
    "on_ladder": "bool",
    "budget_flops": "float64",
    "seed": "int64",
    "blocks": "int64",
    "width": "int64",
    "parameters": "float64",
    "non_embedding": "float64",
    "tokens": "float64",
    "forward_flops": "float64",
    "loss": "float64",
    "validation_loss": "float64",
    "top_k_loss": "float64",
    "bits_per_byte": "float64",
}
"""Columns of the frame. `loss` is the test loss under the headline decision, nats per token;
`forward_flops` are per token under the run's convention; losses are NaN unless finished."""
_SHAPE = ("parameters", "blocks", "width")


class TrainedSize(Frozen):
    """One shape of a variant at one budget, over its finished seeds."""

    variant: str
    budget_flops: float
    blocks: int
    width: int
    parameters: float
    forward_flops: float
    """Per token."""
    loss: float
    """Mean test loss over seeds, nats per token."""
    seeds: tuple[int, ...]
    seed_losses: tuple[float, ...]
    run_ids: tuple[str, ...]
    """In the order of the seeds."""
    on_ladder: bool


def frame(
    records: Sequence[RunRecord],
    variant_of: Mapping[str, str],
    *,
    off_ladder: Collection[str] = (),
) -> pd.DataFrame:
    """Return one row per record, with the columns of `COLUMNS`.

    Diverged and failed runs are listed with their state and without losses; fits leave them out.

    Args:
        records: outcomes of runs.
        variant_of: name of the variant of each run id.
        off_ladder: run ids trained in a shape that is not of their variant's own ladder (the
            challenger in a baseline's shape). They are shown, but their other proportions would
            bend the curve, so fits leave them out.

    Raises:
        ValueError: a run without a variant, one listed twice, or a finished one without a loss.
    """
    rows = [_row(record, variant_of, off_ladder) for record in records]
    names = [record.run_id for record in records]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"run {twice} is listed twice; expected each run once")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict(COLUMNS))


def _row(
    record: RunRecord, variant_of: Mapping[str, str], off_ladder: Collection[str]
) -> dict[str, object]:
    config = record.config
    if record.run_id not in variant_of:
        raise ValueError(f"run {record.run_id} belongs to no variant of the study")
    finished = record.state == "finished"
    test = record.evaluation("test") if finished else None
    if finished and (test is None or not np.isfinite(test.loss)):
        headline = config.model.decisions[0]
        raise ValueError(
            f"run {record.run_id} is finished but has no test loss under {headline!r}; "
            "evaluate it again"
        )
    validation = record.evaluation("validation") if finished else None
    top_k = record.evaluation("test", "top_k") if finished else None
    return {
        "variant": variant_of[record.run_id],
        "run_id": record.run_id,
        "state": record.state,
        "on_ladder": record.run_id not in off_ladder,
        "budget_flops": config.budget_flops,
        "seed": config.seed,
        "blocks": config.model.blocks,
        "width": config.model.width,
        "parameters": record.parameters.total,
        "non_embedding": record.parameters.non_embedding,
        "tokens": config.tokens,
        "forward_flops": record.forward_flops,
        "loss": test and test.loss,
        "validation_loss": validation and validation.loss,
        "top_k_loss": top_k and top_k.loss,
        "bits_per_byte": test and test.bits_per_byte,
    }


def training_curves(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return a row per point of every record's training curve.

    Columns are `run_id`, `tokens`, those seen half way between the point and the one before, and
    `loss`, the mean training loss between them, nats per token.
    """
    rows = []
    for record in records:
        before = 0
        for point in record.curve:
            seen = (before + point.step) / 2 * record.config.tokens_per_step
            rows.append((record.run_id, seen, point.loss))
            before = point.step
    columns = {"run_id": "str", "tokens": "float64", "loss": "float64"}
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def curve_rows(table: pd.DataFrame, variant: str, budget_flops: float) -> pd.DataFrame:
    """Return the finished runs of a variant's ladder at a budget: what a fit is made from."""
    own = _finished(table, variant)
    return own[own["on_ladder"] & (own["budget_flops"] == budget_flops)]


def variant_rows(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Return the finished runs of a variant's ladder at every budget, budget by budget."""
    own = _finished(table, variant)
    own = own[own["on_ladder"] & own["budget_flops"].notna()]
    return own.sort_values("budget_flops", kind="stable")


def _finished(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    return table[(table["variant"] == variant) & (table["state"] == "finished")]


def finished_variants(table: pd.DataFrame, so: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the finished runs of a table, and the variants of its ladders in its order.

    Raises:
        ValueError: there is no finished run; `so` ends the sentence.
    """
    finished = table[table["state"] == "finished"]
    names = finished.loc[finished["on_ladder"], "variant"].drop_duplicates().tolist()
    if not names:
        raise ValueError(f"the table has no finished run{so}")
    return finished, names


def run_flops(rows: pd.DataFrame) -> Floats:
    """Return the training FLOPs of each run: its own where the table tells them, else its budget.

    A table as people keep it has runs whose compute differs a little from the budget that they
    are grouped to; its column `training_flops` has their own.
    """
    budget = rows["budget_flops"].to_numpy(dtype=np.float64)
    if "training_flops" not in rows:
        return budget
    own = rows["training_flops"].to_numpy(dtype=np.float64)
    return np.where(np.isfinite(own), own, budget)


def trained_sizes(
    table: pd.DataFrame, variant: str, budget_flops: float
) -> tuple[TrainedSize, ...]:
    """Return the shapes of a variant trained at a budget, the smallest first."""
    own = _finished(table, variant)
    runs = own[own["budget_flops"] == budget_flops].sort_values([*_SHAPE, "seed"])
    sizes = runs.groupby(list(_SHAPE), as_index=False).agg(
        forward_flops=("forward_flops", "mean"),
        loss=("loss", "mean"),
        seeds=("seed", tuple),
        seed_losses=("loss", tuple),
        run_ids=("run_id", tuple),
        on_ladder=("on_ladder", "all"),
    )
    rows = sizes.assign(variant=variant, budget_flops=budget_flops).to_dict("records")
    return tuple(map(TrainedSize.model_validate, rows))


def budgets(table: pd.DataFrame) -> tuple[float, ...]:
    """Return the budgets in the table, ascending; runs that stand alone have none."""
    return tuple(sorted(table["budget_flops"].dropna().unique().tolist()))


def one_budget(table: pd.DataFrame, budget_flops: float | None) -> float:
    """Return the budget meant: the one given, or the only one there is.

    Raises:
        ValueError: the given one is not in the table, or none is given and there are several.
    """
    known = budgets(table)
    if budget_flops is None:
        if len(known) != 1:
            raise ValueError(f"the runs have budgets {list(known)}; name one of them")
        return known[0]
    if budget_flops not in known:
        raise ValueError(f"budget_flops is {budget_flops:g}; expected one of {list(known)}")
    return budget_flops


TOLERANCE = 0.1
"""Budgets within this share of their group's middle count as one."""
TOLD = 5e-4
"""Share by which budgets may differ from their group's middle without a word."""


def group_budgets(budget_flops: Floats, tolerance: float = TOLERANCE) -> tuple[Floats, float]:
    """Return the middle of each run's group of budgets, and the largest share by which one is off.

    Walking up, a group ends where the next budget would make it wider than `tolerance` allows on
    either side of its middle. The middle is the geometric mean of the lowest and the highest.
    """
    ascending = np.sort(budget_flops)
    widest = (1 + tolerance) ** 2 * (1 + 1e-12)
    grouped = np.empty_like(budget_flops)
    start, farthest = 0, 0.0
    while start < len(ascending):
        stop = int(np.searchsorted(ascending, ascending[start] * widest, side="right"))
        low, high = ascending[start], ascending[stop - 1]
        middle = low if low == high else math.sqrt(low) * math.sqrt(high)
        grouped[(budget_flops >= low) & (budget_flops <= high)] = middle
        farthest = max(farthest, float(high / middle - 1))
        start = stop
    return grouped, farthest
