"""What of a recipe is searched, by trials on the validation split."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, get_args

from pydantic import Field, model_validator

from isoflop.config.run import LARGEST_BUDGET_FLOPS
from isoflop.frozen import LARGEST_SEED, Frozen, left_out

LARGEST_PARAMETERS = 1e13
"""No larger shape is looked for."""
FEWEST_VALUES = 3
"""Of a setting that is searched: what lies between two has no bend."""

Setting = Literal[
    "learning_rate",
    "weight_decay",
    "warmup_fraction",
    "tokens_per_step",
    "router_rate",
    "width_per_block",
]
"""What can be searched, and can move with the budget; named as where it is set."""
SETTINGS: tuple[Setting, ...] = get_args(Setting)


class Exponents(Frozen):
    """How a variant's settings move with the budget C: as (C / first budget)^exponent."""

    learning_rate: float = Field(default=0.0, ge=-10, le=10)
    weight_decay: float = Field(default=0.0, ge=-10, le=10)
    warmup_fraction: float = Field(default=0.0, ge=-10, le=10)
    tokens_per_step: float = Field(default=0.0, ge=-10, le=10)
    router_rate: float = Field(default=0.0, ge=-10, le=10)
    width_per_block: float = Field(default=0.0, ge=-10, le=10)

    def moved(self, name: Setting, value: float, growth: float) -> float:
        """Return a setting's value where the budget is `growth` times the first, as six digits."""
        exponent = getattr(self, name)
        return float(f"{value * growth**exponent:.6g}") if exponent else value


class Values(Frozen):
    """First values of each setting that is searched, three or more, ascending; none for others."""

    learning_rate: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    warmup_fraction: tuple[float, ...] = ()
    tokens_per_step: tuple[int, ...] = ()
    """Whole numbers of sequences."""
    router_rate: tuple[float, ...] = ()
    """Left out for variants without a router."""
    width_per_block: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _around_a_centre(self) -> Values:
        for name, values in self.given.items():
            rising = all(0 < low < high for low, high in pairwise(values))
            below = 1.0 if name == "warmup_fraction" else math.inf
            if len(values) < FEWEST_VALUES or not rising or values[-1] >= below:
                raise ValueError(
                    f"{name} is {list(values)}; expected {FEWEST_VALUES} or more positive, "
                    f"ascending values below {below:g}, the middle one of which is the centre"
                )
        if not self.given:
            raise ValueError(f"no setting is given; expected one or more of {', '.join(SETTINGS)}")
        return self

    @property
    def given(self) -> dict[Setting, tuple[float, ...]]:
        """The values of those that are searched."""
        found = {name: tuple(map(float, getattr(self, name))) for name in SETTINGS}
        return {name: values for name, values in found.items() if values}


class Search(Frozen):
    """Trials that find each variant's recipe, on the validation split: as many for every variant.

    Either `settings`, each searched around a centre until the interval of its best value lies
    inside the values tried; or a plain grid, each learning rate with each ratio of width to blocks.
    """

    learning_rates: tuple[float, ...] = ()
    width_per_block: tuple[float, ...] = ()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Of a trial; where `settings` are searched, those it begins with."""
    budget_flops: float | None = Field(default=None, gt=0, le=LARGEST_BUDGET_FLOPS)
    """Budget of a trial; None for the study's first."""
    parameters: float | None = Field(default=None, gt=0, le=LARGEST_PARAMETERS)
    """Total parameters of a trial, at the first of several budgets; None for the variant's expected
    optimum, which moves with its `centre_parameters`."""
    settings: Values | None = Field(default=None, exclude_if=left_out)
    """What is searched, in place of the two lists."""
    budgets_flops: tuple[float, ...] = Field(
        default=(), max_length=3, exclude_if=lambda one: not one
    )
    """Budgets at which `settings` are searched one after the other, each from where the one before
    ended; none for `budget_flops` alone."""
    most_trials: int | None = Field(default=None, ge=10, le=10**6, exclude_if=left_out)
    """Runs per variant and budget after which no more are added."""
    flat_nats: float = Field(default=0.01, gt=0, le=10, exclude_if=lambda one: one == 0.01)
    """A setting that moves the loss by no more over all values tried does not matter."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Search:
        beside = [name for name in ("budgets_flops", "most_trials") if getattr(self, name)]
        if self.settings is None and (not (self.learning_rates and self.width_per_block) or beside):
            raise ValueError(
                f"{', '.join(beside) or 'search'} has no settings beside it; expected settings = "
                "{ learning_rate = [5e-3, 1e-2, 2e-2], ... } with most_trials, or for a plain grid "
                "learning_rates and width_per_block"
            )
        for name, most in (("learning_rates", 1e38), ("width_per_block", 1e6)):
            tried = getattr(self, name)
            if not all(0 < one <= most for one in tried) or len(set(tried)) != len(tried):
                raise ValueError(
                    f"{name} is {list(tried)}; expected distinct positive numbers up to {most:g}"
                )
        plain = self.learning_rates or self.width_per_block
        if self.settings is not None and (plain or self.most_trials is None):
            raise ValueError(
                "settings is given with "
                + ("most_trials missing" if self.most_trials is None else "a plain grid")
                + "; expected settings with most_trials, without learning_rates and "
                "width_per_block beside it"
            )
        if self.budgets_flops and self.budget_flops is not None:
            raise ValueError("budget_flops and budgets_flops are both given; expected one of them")
        rising = sorted({one for one in self.budgets_flops if 0 < one <= LARGEST_BUDGET_FLOPS})
        seeds = {one for one in self.seeds if 0 <= one <= LARGEST_SEED}
        if rising != list(self.budgets_flops) or len(seeds) != len(self.seeds):
            raise ValueError(
                f"budgets_flops is {list(self.budgets_flops)} and seeds {list(self.seeds)}; "
                f"expected positive, ascending budgets and distinct seeds from 0 to {LARGEST_SEED}"
            )
        return self

    @property
    def values(self) -> dict[Setting, tuple[float, ...]]:
        """First values of the settings that are searched; none of a plain grid."""
        return {} if self.settings is None else self.settings.given
