"""What updates a model's parameters: AdamW, or Muon for hidden matrices and AdamW for the rest.

And at which share of its peak rates, over a run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, assert_never

import torch
from torch import Tensor

from isoflop.config import AdamW, Cosine, Linear, Recipe, RunConfig, WarmupStableDecay
from isoflop.model import Transformer
from isoflop.training.optimisation.muon import MuonMatrices
from isoflop.training.optimisation.parametrisation import Group, group_of
from isoflop.training.optimisation.sharding import is_sharded, split_as, whole


class Optimiser:
    """The optimisers of a model's parameters as one.

    Args:
        model: on its device.
        recipe: how it is trained.
    """

    def __init__(self, model: Transformer, recipe: Recipe) -> None:
        choice = recipe.optimiser
        adamw = choice if isinstance(choice, AdamW) else choice.adamw
        # A fused step takes parts of parameters or whole ones, not both.
        together: dict[tuple[Group, bool], list[str]] = defaultdict(list)
        parameters = dict(model.named_parameters())
        for name, group in group_of(model, recipe).items():
            together[group.without_start, is_sharded(parameters[name])].append(name)
        self._names: list[list[str]] = []
        self.parts: list[torch.optim.Optimizer] = []
        for of_muon in (False, True):
            kept = {
                group: names for group, names in together.items() if bool(group[0].rows) == of_muon
            }
            if not kept:
                continue
            settings = [
                {
                    "params": [parameters[name] for name in names],
                    "lr": recipe.learning_rate * group.rate,
                    "peak": recipe.learning_rate * group.rate,
                    "eps": adamw.epsilon * group.epsilon,
                    "weight_decay": group.decay
                    * (choice.weight_decay if of_muon else adamw.weight_decay),
                    "rows": group.rows,
                }
                for (group, _), names in kept.items()
            ]
            if of_muon:
                assert not isinstance(choice, AdamW)
                part: torch.optim.Optimizer = MuonMatrices(settings, choice, recipe.precision)
            else:
                betas = adamw.beta1, adamw.beta2
                part = torch.optim.AdamW(settings, betas=betas, fused=True)
            self.parts.append(part)
            self._names.append([name for names in kept.values() for name in names])

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Parameters of equal rates; `peak` is a group's peak rate."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self, rate_factor: float, halted: Tensor) -> None:
        """Update the parameters from their gradients, and forget these.

        Args:
            rate_factor: share of the peak rates.
            halted: one, on the device, where nothing may be updated, and zero else.
        """
        for group in self.groups:
            group["lr"] = group["peak"] * rate_factor
        for part in self.parts:
            # What a gradient scaler tells a fused optimiser, so that it updates nothing.
            part.found_inf = halted  # type: ignore[attr-defined]
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return what is remembered of each parameter, as `PARAMETER:MOMENT`.

        Of sharded ones it is put together; all ranks call this alike.
        """
        found = {}
        for part, names in zip(self.parts, self._names, strict=True):
            for index, moments in part.state_dict()["state"].items():
                for key, value in moments.items():
                    found[f"{names[index]}:{key}"] = whole(value)
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned."""
        for part, names in zip(self.parts, self._names, strict=True):
            moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
            places = {name: index for index, name in enumerate(names)}
            parameters = [p for group in part.param_groups for p in group["params"]]
            for key, value in state.items():
                name, _, moment = key.rpartition(":")
                index = places.get(name)
                if index is not None:
                    of_all = value.shape == parameters[index].shape
                    moments[index][moment] = split_as(parameters[index], value) if of_all else value
            part.load_state_dict({**part.state_dict(), "state": dict(moments)})


def rate_factor(config: RunConfig, step: int) -> float:
    """Return the share of the peak rate at `step` (0 is the first): warm-up, then the schedule.

    It reaches `final_fraction` one step behind the last, so that none has a rate of zero.
    """
    warmup = config.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    match config.recipe.schedule:
        case Cosine():
            kept = 0.5 * (1 + math.cos(math.pi * progress))
        case Linear():
            kept = 1 - progress
        case WarmupStableDecay(decay=decay) as schedule:
            first = config.decays_from(schedule)
            fallen = max(0.0, (step - first) / max(1, config.steps - first))
            kept = 1 - (fallen if decay == "linear" else fallen**0.5)
        case _:
            assert_never(config.recipe.schedule)
    final = config.recipe.final_fraction
    return final + (1 - final) * kept
