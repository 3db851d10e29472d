"""JSON as its standard has it: ASCII, without NaN and the infinities."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value


def to_json(value: JSON, indent: int | None = None) -> str:
    """Return `value` as strict JSON in ASCII; NaN and the infinities become null."""
    separators = (",", ":") if indent is None else None
    return json.dumps(_strict(value), indent=indent, separators=separators, allow_nan=False)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_json(data: bytes, source: str) -> Any:
    """Return the value that the strict JSON `data` holds; a ValueError names `source`."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not valid JSON: {error}") from None
