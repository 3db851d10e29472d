"""What columns of tables of runs are called, and the units in their names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache

from isoflop.fit.tables.aliases import ALIASES
from isoflop.fit.tables.units import Unit, unit

MAPPED = tuple(name for name in ALIASES if name != "run")
"""Columns that a user can map."""

_HOLDERS = re.compile(
    r"^(?:(?:summary|_?summary_metrics|config|metrics|params|data|args|hparams|hyperparameters"
    r"|results?|tags)[./:])+",
    re.IGNORECASE,
)
"""What exports of trackers put before a name: `config.n_params`, `summary.eval/loss`."""
_ENDS = re.compile(r"[./:\s](?:last|final|value)$|\s*\((?:last|final)\)$", re.IGNORECASE)
_BRACKETS = re.compile(r"(.*?)\s*[(\[{]\s*([^()\[\]{}]+?)\s*[)\]}]\s*")
_BESIDE = re.compile(r"(.+?)(?:\s*,\s*|\s+in\s+|\s*/\s*)([^,]+)")
_NO_UNITS = ("variant", "seed", "state", "run")
_TEXTS = ("variant", "state", "run")
_NESTED = 10
"""Added to the rank of a name that is known only without what it stands in."""


@dataclass(frozen=True)
class Known:
    """What a column's name tells."""

    name: str
    """Of the wanted column."""
    rank: int
    """0 where it is called just so, else one more than its group in `ALIASES`."""
    unit: Unit | None = None


def plain(header: str) -> str:
    """Return a header in lower case, with '_' between its words and no accents."""
    header = unicodedata.normalize("NFD", header)
    header = "".join(one for one in header if not unicodedata.combining(one))
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", header)
    # `#` counts: `#params` is `n_params`.
    return re.sub(r"[^a-z0-9]+", "_", split.replace("#", "n ").lower()).strip("_")


@lru_cache(maxsize=4096)
def known(header: str) -> tuple[Known, ...]:
    """Return what a column of this name may be: nothing, or one or two of the wanted columns."""
    if len(header) > 200:
        return ()
    bare = re.sub(r" \(column \d+\)'*$", "", header.strip())
    held = _HOLDERS.sub("", bare)
    for text in dict.fromkeys((bare, held, _ENDS.sub("", held))):
        found = _named(plain(text), None)
        if found:
            return found
        for base, inside in _parts(text):
            found = _named(plain(base), inside)
            if found:
                return found
    return _inside(held)


def _inside(header: str) -> tuple[Known, ...]:
    """Return what `eval_results.eval_loss` may be, by the last name alone.

    A bare `loss` in something unknown may be any loss, and names of one word what they like.
    """
    _, dot, last = header.rpartition(".")
    if not dot or plain(last) in ("loss", "lm_loss", "c", "d", "l", "n", "size", "model"):
        return ()
    return tuple(
        replace(one, rank=one.rank + _NESTED) for one in known(last) if one.name not in _TEXTS
    )


def unit_of(header: str) -> Unit | None:
    """Return the unit in a header, whatever the column holds; None where there is none."""
    for found in known(header):
        return found.unit
    bracketed = _BRACKETS.fullmatch(header.strip())
    return unit(bracketed[2]) if bracketed else None


def _named(name: str, inside: Unit | None) -> tuple[Known, ...]:
    found = []
    for wanted, groups in ALIASES.items():
        if inside is not None and not _fits(wanted, inside):
            continue
        if name == wanted:
            found.append(Known(wanted, 0, inside))
            continue
        rank = next((i for i, group in enumerate(groups, start=1) if name in group), None)
        if rank is not None:
            found.append(Known(wanted, rank, inside))
    return tuple(found)


def _fits(wanted: str, inside: Unit) -> bool:
    """Return whether a column can be in a unit."""
    if wanted in _NO_UNITS:
        return False
    if wanted == "loss":
        return inside.loss
    return not inside.loss and (not inside.flops or wanted in ("budget_flops", "forward_flops"))


def _parts(header: str) -> list[tuple[str, Unit]]:
    """Return the ways in which a header can be a name and a unit."""
    found = []
    for pattern in (_BRACKETS, _BESIDE):
        match = pattern.fullmatch(header)
        inside = unit(match[2]) if match else None
        if match and inside is not None:
            found.append((match[1], inside))
            if inside.flops:
                found.append((f"{match[1]}_flops", inside))
    words = plain(header).split("_")
    for number in range(min(4, len(words)), 0, -1):
        base = words[: len(words) - number]
        if base and base[-1] == "in":
            base.pop()
        last = words[len(words) - number :]
        inside = next((one for text in _spellings(last) if (one := unit(text))), None)
        if inside is None or not (inside.factor != 1 or inside.loss):
            continue
        # One letter before another, as in d_m, is a name of something else.
        if "_".join(base) and len("_".join(base)) > 1:
            found.append(("_".join(base), inside))
        if inside.flops:
            found.append(("_".join((*base, "flops")), inside))
    return found


def _spellings(words: list[str]) -> tuple[str, ...]:
    """Return words of a header as a unit may be spelt: `pflop s days` is `pflop/s-days`."""
    joined = " ".join(words)
    return (joined, re.sub(r" s (days?)$", r"/s-\1", joined), re.sub(r" (days?)$", r"-\1", joined))
