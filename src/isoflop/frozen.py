"""What every configuration value shares: frozen, strict about keys, and one canonical form."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict

LARGEST_SEED = (1 << 63) - 1
"""What torch, numpy and the splits all take."""


class Frozen(BaseModel):
    """An immutable value that refuses unknown keys and can be written to JSON and read back."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    def named(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Return what the value is called by, given its fields that do not hold their default."""
        return kept


def left_out(value: object) -> bool:
    """Return whether a field that is none at all is not written, as before there was a place."""
    return value is None


def canonical(value: Any) -> Any:
    """Return `value` as plain JSON data without the fields that hold their default.

    The discriminator `kind` stays, since two choices may differ in nothing else. Dropping
    defaults makes the form independent of whether a default was written out, and lets a later
    version add a field without changing what older configurations are called.
    """
    if isinstance(value, Frozen):
        kept = {}
        for name, stays, default in _defaults(type(value)):
            content = getattr(value, name)
            if stays or content != default:
                kept[name] = canonical(content)
        return value.named(kept)
    if isinstance(value, (tuple, list)):
        return [canonical(item) for item in value]
    return value


@cache
def _defaults(kind: type[Frozen]) -> list[tuple[str, bool, Any]]:
    """Return each field's name, whether it always stays, and its default, which pydantic copies."""
    return [
        (name, name == "kind" or field.is_required(), field.get_default(call_default_factory=True))
        for name, field in kind.model_fields.items()
    ]


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of the canonical form of `value`, as 64 hexadecimal digits."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
