"""What was tried beside a minimum: other learning rates, and seeds with other data orders."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isoflop.config import Frozen, RunConfig, RunRecord
from isoflop.estimate import Estimate
from isoflop.fit.intervals import mean_estimate

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

    From a two-way layout with random effects and no replicates (Searle, Casella and McCulloch,
    Variance Components, chapter 4): every seed trained with every data order.
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
    records: Sequence[RunRecord], variant_of: Mapping[str, str], used: Mapping[str, float]
) -> tuple[RateCheck, ...]:
    """Return every model with three or more learning rates, over the seeds that have them all.

    Args:
        records: runs of a study, those at its minima and the checks beside them.
        variant_of: name of the variant of each run id; others are left aside.
        used: each variant's own learning rate; models not trained with it are left aside.
    """
    groups: dict[str, dict[float, dict[int, RunRecord]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        if record.run_id in variant_of and record.state != "failed":
            recipe = record.config.recipe
            alike = record.config.model_copy(
                update={"recipe": recipe.model_copy(update={"learning_rate": 1.0}), "seed": 0}
            )
            groups[alike.run_id][recipe.learning_rate][record.config.seed] = record
    checks = [
        check
        for found in groups.values()
        if len(found) >= RATES and (check := _rate_check(found, variant_of, used))
    ]
    return tuple(sorted(checks, key=lambda one: (one.budget_flops, one.variant, one.parameters)))


def _rate_check(
    found: Mapping[float, Mapping[int, RunRecord]],
    variant_of: Mapping[str, str],
    used: Mapping[str, float],
) -> RateCheck | None:
    """Return what runs of one model, by rate and seed, say; None where no seed has all rates."""
    rates = sorted(found)
    seeds = sorted(set.intersection(*(set(found[rate]) for rate in rates)))
    if not seeds:
        return None
    first = found[rates[0]][seeds[0]]
    own = used[variant_of[first.run_id]]
    if own not in found:
        return None
    losses = np.array([[_validation_loss(found[rate][seed]) for seed in seeds] for rate in rates])
    means = losses.mean(axis=1)
    best = losses[int(np.argmin(np.where(np.isnan(means), math.inf, means)))]
    return RateCheck(
        variant=variant_of[first.run_id],
        budget_flops=first.config.budget_flops or 0.0,
        parameters=first.parameters.total,
        rates=tuple(rates),
        losses=tuple(None if math.isnan(mean) else mean for mean in means.tolist()),
        used=own,
        seeds=len(seeds),
        above_best=tuple(_apart(each - best) for each in losses),
    )


def _apart(differences: NDArray[np.float64]) -> Estimate | None:
    """Return the mean of differences by seed with its interval."""
    if len(differences) < 2 or np.isnan(differences).any() or not differences.any():
        return None
    return mean_estimate(differences).interval()


def variance_components(
    records: Sequence[RunRecord], variant_of: Mapping[str, str]
) -> tuple[VarianceComponents, ...]:
    """Return the components of every model whose seeds were all trained with the same data orders.

    At least two of each are needed. Negative estimates are shown as zero.

    Args:
        records: runs of a study, those at its minima and the checks beside them.
        variant_of: name of the variant of each run id; others are left aside.
    """
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.run_id in variant_of and record.state == "finished":
            alike = record.config.model_copy(update={"seed": 0, "data_seed": None})
            groups[alike.run_id].append(record)
    components = []
    for found in groups.values():
        losses = {_pair(record.config): _test_loss(record) for record in found}
        counts = Counter(order for _, order in losses)
        orders = sorted(order for order, count in counts.items() if count >= 2)
        seeds = [
            seed
            for seed in sorted({seed for seed, _ in losses})
            if all((seed, order) in losses for order in orders)
        ]
        if len(seeds) < 2 or len(orders) < 2:
            continue
        table = np.array([[losses[seed, order] for order in orders] for seed in seeds])
        of_seed, of_order = table.mean(axis=1), table.mean(axis=0)
        left = table - of_seed[:, None] - of_order[None] + table.mean()
        m, n = table.shape
        rest = float((left**2).sum()) / ((m - 1) * (n - 1))
        components.append(
            VarianceComponents(
                variant=variant_of[found[0].run_id],
                budget_flops=found[0].config.budget_flops or 0.0,
                parameters=found[0].parameters.total,
                seed=math.sqrt(max(0.0, float(of_seed.var(ddof=1)) - rest / n)),
                order=math.sqrt(max(0.0, float(of_order.var(ddof=1)) - rest / m)),
                rest=math.sqrt(rest),
                seeds=m,
                orders=n,
            )
        )
    return tuple(
        sorted(components, key=lambda one: (one.budget_flops, one.variant, one.parameters))
    )


def _pair(config: RunConfig) -> tuple[int, int]:
    return config.seed, config.data_order


def _validation_loss(record: RunRecord) -> float:
    found = record.evaluation("validation") if record.state == "finished" else None
    return math.nan if found is None else found.loss


def _test_loss(record: RunRecord) -> float:
    found = record.evaluation("test")
    assert found is not None, "a finished run has its test loss"
    return found.loss
