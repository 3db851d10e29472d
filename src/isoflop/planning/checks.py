"""Runs beside the ones that fits use: other learning rates, other data orders."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, product
from typing import Literal

from isoflop.config import RunConfig, RunRecord, Study, Variant

FURTHEST = math.log(1e6)
"""How far rates may be added beyond those asked for, as the log of a multiple."""
Checks = Iterator[tuple[Literal["rate", "order"], RunConfig]]


def checks(
    study: Study,
    variant: Variant,
    resolved: Callable[[Variant, int], RunConfig],
    records: Mapping[str, RunRecord] | None = None,
) -> Checks:
    """Yield the runs that check one model: other learning rates, and seeds with other data orders.

    Rates are tried with the first `learning_rate_check_seeds` seeds. Every seed is trained with the
    data order of every other that `data_orders` names.

    Args:
        study: What is asked.
        variant: Whose model it is.
        resolved: The model's run for a variant, which may have another rate, and a seed.
        records: Those at hand by run id, from which it follows which rates are added; None for
            every rate that any records can lead to.

    Raises:
        ValueError: If a finished record lacks the validation loss it is judged by.
    """
    rate = study.learning_rates()[variant.name]
    tried = study.seeds[: study.learning_rate_check_seeds]

    def run(multiple: float, seed: int) -> RunConfig:
        return resolved(variant.model_copy(update={"learning_rate": rate * multiple}), seed)

    def mean(multiple: float) -> float:
        """Return the mean loss; infinity where one diverged or failed, NaN where one is missing."""
        found = [(records or {}).get(run(multiple, seed).run_id) for seed in tried]
        return statistics.fmean(math.nan if one is None else judged_loss(one) for one in found)

    added: Iterable[float] = ()
    if study.learning_rate_check_added:
        added = chain(*_further(study)) if records is None else _added(study, mean)
    for seed, multiple in product(tried, study.learning_rate_check):
        yield "rate", run(multiple, seed)
    for multiple, seed in product(added, tried):
        yield "rate", run(multiple, seed)
    for seed, order in product(study.seeds, study.data_orders):
        if seed != order:
            yield "order", resolved(variant, seed).model_copy(update={"data_seed": order})


def judged_loss(record: RunRecord) -> float:
    """Return the loss that a run is judged by: infinity where it diverged or failed.

    Raises:
        ValueError: it finished, and its record lacks the loss.
    """
    return validation_loss(record) if record.state == "finished" else math.inf


def validation_loss(record: RunRecord) -> float:
    """Return the loss that a finished run is judged by.

    Raises:
        ValueError: If its record lacks it.
    """
    evaluation = record.evaluation("validation")
    if evaluation is None:
        raise ValueError(
            f"run {record.run_id} is finished but its record has no validation loss under the "
            "decision that the grid goes by; remove the run's folder to train it again"
        )
    return evaluation.loss


def _further(study: Study) -> tuple[list[float], list[float]]:
    """Return the multiples that may be added below and above those asked for, near ones first."""
    known = _multiples(study)
    steps = range(1, study.learning_rate_check_added + 1)
    sides = ((known[0], known[0] / known[1]), (known[-1], known[-1] / known[-2]))
    # Rounded, so that 1.6 * 1.6 is 2.56 in the records too, and as far as may be asked for.
    lower, upper = (
        [float(f"{end * ratio**n:.6g}") for n in steps if n * abs(math.log(ratio)) <= FURTHEST]
        for end, ratio in sides
    )
    return lower, upper


def _added(study: Study, mean: Callable[[float], float]) -> Iterator[float]:
    """Yield the multiples that the losses so far ask for, up to the first not trained yet."""
    lower, upper = (iter(side) for side in _further(study))
    means = {multiple: mean(multiple) for multiple in _multiples(study)}
    for _ in range(study.learning_rate_check_added):
        best = min(means, key=means.__getitem__)
        if any(map(math.isnan, means.values())) or min(means) < best < max(means):
            return
        further = next(upper if best == max(means) else lower, None)
        if further is None:
            return
        yield further
        means[further] = mean(further)


def _multiples(study: Study) -> list[float]:
    """Return the multiples asked for with the rate itself, ascending."""
    return sorted({1.0, *study.learning_rate_check})
