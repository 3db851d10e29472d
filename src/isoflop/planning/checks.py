"""Runs beside the ones that fits use: other learning rates, other data orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Literal

from isoflop.config import RunConfig, Study, Variant


def checks(
    study: Study, variant: Variant, resolved: Callable[[Variant, int], RunConfig]
) -> Iterator[tuple[Literal["rate", "order"], RunConfig]]:
    """Yield the runs that check one model: other learning rates, and seeds with other data orders.

    Rates are tried with the first `learning_rate_check_seeds` seeds. Every seed is trained with the
    data order of every other that `data_orders` names.

    Args:
        study: What is asked.
        variant: Whose model it is.
        resolved: The model's run for a variant, which may have another rate, and a seed.
    """
    rate = variant.learning_rate or study.recipe.learning_rate
    tried = study.seeds[: study.learning_rate_check_seeds]
    for seed, multiplier in product(tried, study.learning_rate_check):
        other = variant.model_copy(update={"learning_rate": rate * multiplier})
        yield "rate", resolved(other, seed)
    for seed, order in product(study.seeds, study.data_orders):
        if seed != order:
            yield "order", resolved(variant, seed).model_copy(update={"data_seed": order})
