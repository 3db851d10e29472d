"""From rows of metrics to the thinned training curve of a record."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isoflop.config import CurvePoint
from isoflop.runs import RunFolder

CURVE_POINTS = 200
"""Most points of the thinned training curve in a record."""


VALIDATIONS = 4
"""Looks at the validation split during training, evenly spaced, each at a part of the tokens."""


def is_validated(step: int, steps: int) -> bool:
    """Return whether a look at the validation split is due after one of so many steps."""
    part, of = divmod(step * VALIDATIONS, steps)
    return of < VALIDATIONS and 0 < part < VALIDATIONS


def has_losses(row: Mapping[str, Any], spans: int) -> bool:
    """Return whether a row has its loss and those of so many spans of positions.

    A damaged line may still be JSON, and lack them.
    """
    of_spans = row.get("span_losses", [])
    losses = [row.get("loss"), *of_spans] if isinstance(of_spans, list) else []
    numbers = [v for v in losses if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return len(numbers) == len(losses) == 1 + spans


def whole_rows(folder: RunFolder, spans: int, steps: int) -> list[dict[str, Any]]:
    """Return the rows of so many steps that a curve can be made from; a warning tells of others."""
    whole = [row for row in folder.read_metrics()[0] if has_losses(row, spans)]
    lost = steps - len(whole)
    if lost:
        warnings.warn(
            f"the training curve of {folder.path} lacks {lost} corrupt "
            f"line{'s' if lost > 1 else ''} of its metrics.jsonl",
            stacklevel=2,
        )
    return whole


def thin(rows: Sequence[Mapping[str, Any]]) -> tuple[CurvePoint, ...]:
    """Return at most CURVE_POINTS points, each the mean losses since the one before."""
    points = []
    count = min(CURVE_POINTS, len(rows))
    for index in range(count):
        part = rows[index * len(rows) // count : (index + 1) * len(rows) // count]
        spans = zip(*(row.get("span_losses", ()) for row in part), strict=True)
        points.append(
            CurvePoint(
                step=int(part[-1]["step"]),
                loss=_mean(row["loss"] for row in part),
                span_losses=tuple(_mean(losses) for losses in spans),
            )
        )
    return tuple(points)


def _mean(losses: Iterable[float]) -> float:
    found = [float(loss) for loss in losses]
    return round(sum(found) / len(found), 6)
