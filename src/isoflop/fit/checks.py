"""What was tried beside a minimum: other learning rates, and seeds with other data orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from isoflop.config import Frozen, RunRecord
from isoflop.estimate import Estimate
from isoflop.fit.intervals import mean_estimate, two_way
from isoflop.fit.tables.frame import frame

RATES = 3
"""Learning rates that a check needs: the variant's own, a lower and a higher one."""


class RateCheck(Frozen):
    """Validation losses of one model at several learning rates, each with the same seeds."""

    variant: str
    budget_flops: float
    parameters: int
    rates: tuple[float, ...]
    """Ascending."""
    losses: tuple[float | None, ...]
    """Mean validation loss over seeds, headline decision, nats per token; None where diverged."""
    used: float
    """The variant's own rate, which fits are about; one of `rates`."""
    seeds: int
    above_best: tuple[Estimate | None, ...]
    """Each loss less the lowest, paired by seed; None of the lowest, of diverged, with one seed."""

    @property
    def best(self) -> float:
        """The rate with the lowest loss."""
        heights = [math.inf if loss is None else loss for loss in self.losses]
        return self.rates[int(np.argmin(heights))]

    @property
    def interior(self) -> bool:
        """Whether a lower and a higher rate than the best were both tried, and worse."""
        return self.best not in (self.rates[0], self.rates[-1])

    @property
    def used_above_best(self) -> tuple[float | None, Estimate | None]:
        """How far the rate used lies above the best, and that with its interval where known."""
        at = self.rates.index(self.used)
        lowest, loss = self.losses[self.rates.index(self.best)], self.losses[at]
        apart = None if loss is None or lowest is None else loss - lowest
        return apart, self.above_best[at]


class VarianceComponents(Frozen):
    """What the loss of one model varies by: standard deviations, nats per token.

    From a two-way layout: every seed trained with every data order (`two_way`).
    """

    variant: str
    budget_flops: float
    parameters: int
    seed: float
    """Of initialisation and all else that the seed decides."""
    order: float
    """Of the order of the data."""
    rest: float
    """Of what neither decides on its own."""
    seeds: int
    orders: int


def rate_checks(
    records: Sequence[RunRecord], variant_of: Mapping[str, str], used: Callable[[str, float], float]
) -> tuple[RateCheck, ...]:
    """Return every model with three or more learning rates, over the seeds that have them all.

    Args:
        records: runs of a study, those at its minima and the checks beside them.
        variant_of: name of the variant of each run id; others are left aside.
        used: a variant's own learning rate at a budget; models not trained with it are left aside.
    """
    checks = []
    for model, losses in _models(records, variant_of, "learning_rate"):
        losses = losses.dropna()
        own = used(model["variant"], model["budget_flops"])
        if losses.shape[1] < RATES or losses.empty or own not in losses:
            continue
        means = losses.mean()
        above = losses.sub(losses[means.idxmin()], axis="index").T.to_numpy()
        paired = [len(one) > 1 and np.isfinite(one).all() and one.any() for one in above]
        checks.append(
            RateCheck(
                **model,
                rates=tuple(means.index),
                losses=tuple(None if math.isinf(mean) else mean for mean in means),
                used=own,
                seeds=len(losses),
                above_best=tuple(
                    mean_estimate(one).interval() if told else None
                    for one, told in zip(above, paired, strict=True)
                ),
            )
        )
    return tuple(checks)


def variance_components(
    records: Sequence[RunRecord], variant_of: Mapping[str, str]
) -> tuple[VarianceComponents, ...]:
    """Return the components of every model whose seeds were all trained with the same data orders.

    At least two of each are needed. Negative estimates are shown as zero. What is given is as of
    `rate_checks`.
    """
    components = []
    for model, losses in _models(records, variant_of, "data_order"):
        losses = losses.replace(math.inf, math.nan)
        table = losses.loc[:, losses.count() >= 2].dropna().to_numpy()
        if min(table.shape) < 2:
            continue
        seed, order, rest = (math.sqrt(max(0.0, one)) for one in two_way(table))
        seeds, orders = table.shape
        components.append(
            VarianceComponents(
                **model, seed=seed, order=order, rest=rest, seeds=seeds, orders=orders
            )
        )
    return tuple(components)


def _models(
    records: Sequence[RunRecord], variant_of: Mapping[str, str], setting: str
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield what names each model, and the losses of its runs by seed and setting, ascending.

    The setting is `learning_rate`, with validation losses, or `data_order`, with test losses. They
    are infinite where a run diverged, and NaN where there is none.
    """
    tried = [one for one in records if one.run_id in variant_of and one.state != "failed"]
    by_rate = setting == "learning_rate"
    loss = "validation_loss" if by_rate else "loss"
    table = frame(tried, variant_of).fillna({"budget_flops": 0.0, loss: math.inf})
    rows = []
    for config in (one.config for one in tried):
        recipe = config.recipe.model_copy(update={"learning_rate": 1.0})
        alike: dict[str, Any] = {"recipe": recipe} if by_rate else {"data_seed": None}
        value = config.recipe.learning_rate if by_rate else config.data_order
        rows.append((value, config.model_copy(update={"seed": 0, **alike}).run_id))
    table[["setting", "model"]] = pd.DataFrame(rows, columns=["setting", "model"])
    # Most models were trained one way: a table of each would take most of the time.
    table = table[table.groupby("model")["setting"].transform("nunique") > 1]
    names = ["budget_flops", "variant", "parameters"]
    for _, runs in table.sort_values(names, kind="stable").groupby("model", sort=False):
        named = {name: runs[name].iloc[0] for name in names}
        yield named, runs.pivot_table(loss, "seed", "setting", "last")
