"""Predictions written down before their budget is trained, and read again when it is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from isoflop import storage
from isoflop.config import Frozen, fingerprint
from isoflop.fit import ESTIMATOR_NAMES
from isoflop.fit.predictions import Prediction

WAY_WORDS = {
    "minima": "power laws of minima",
    "surface": ESTIMATOR_NAMES["surface"],
    "variable_projection": ESTIMATOR_NAMES["variable_projection"],
}
"""How a prediction was made."""


class Registration(Frozen):
    """A prediction, what it was made from, and a hash that tells whether it was changed since."""

    study: str
    budget_flops: float
    runs: int
    """Finished runs that it was made from."""
    runs_sha256: str
    """Of these runs: variant, budget, size, tokens, seed and loss of each, in order."""
    predictions: tuple[Prediction, ...]
    sha256: str = ""
    """Of all of the above, in canonical form."""

    def digest(self) -> str:
        """Return the hash that `sha256` must be."""
        return fingerprint(self.model_copy(update={"sha256": ""}))


def register(
    path: Path, study: str, table: pd.DataFrame, predictions: Sequence[Prediction]
) -> Registration:
    """Write predictions for one budget to a file that does not exist yet.

    Args:
        path: the file.
        study: what was studied.
        table: the runs that the predictions were made from.
        predictions: of one budget.

    Raises:
        ValueError: the file exists, or a finished run has that budget already.
        StorageError: the file cannot be written.
    """
    finished = table[table["state"] == "finished"]
    (budget,) = {one.budget_flops for one in predictions}
    if path.exists():
        raise ValueError(f"{path} exists; a registered prediction is not replaced")
    if (finished["budget_flops"] == budget).any():
        raise ValueError(
            f"{budget:g} FLOPs has been trained already; register predictions before training"
        )
    columns = ["variant", "budget_flops", "parameters", "tokens", "seed", "loss"]
    ordered = finished[columns].sort_values(columns).to_csv(index=False)
    made = Registration(
        study=study,
        budget_flops=budget,
        runs=len(finished),
        runs_sha256=hashlib.sha256(ordered.encode()).hexdigest(),
        predictions=tuple(predictions),
    )
    made = made.model_copy(update={"sha256": made.digest()})
    storage.write_json(path, made.model_dump(mode="json"))
    return made


def read_registrations(folder: Path) -> tuple[Registration, ...]:
    """Return the predictions registered in a folder, by budget.

    Raises:
        ValueError: a file is no registration, or was changed after it was written.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            one = Registration.model_validate(storage.read_json(path))
        except ValidationError:
            raise ValueError(
                f"{path} is no registered prediction; expected one by `isoflop predict --register`"
            ) from None
        if one.sha256 != one.digest():
            raise ValueError(
                f"{path} was changed after it was registered: its SHA-256 is {one.digest()}, "
                f"not {one.sha256}"
            )
        found.append(one)
    return tuple(sorted(found, key=lambda one: one.budget_flops))
