"""What columns of tables of runs are called, and the units in their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import pandas as pd

from isoflop.fit.tables.numbers import Unit, powers_written_out, unit

AXES = ("budget_flops", "parameters", "tokens")
TEXTS = ("variant", "state", "run")
"""Columns that hold no numbers."""

_HELD_OUT = "(?:val|valid|validation|eval|evaluation|test|dev|held_?out)"
_TRAIN = "train(?:ing)?"
_COUNT = "(?:n_?|num_|number_of_)"
_PARAMS = "param(?:eter)?s?"
_NO_EMBEDDING = rf"non_?embedding|{_COUNT}?(non_?embedding_{_PARAMS}|{_PARAMS}_non_?embedding)"
ALIASES: Mapping[str, tuple[str, ...]] = {
    "loss": (
        rf"((final_)?({_HELD_OUT}_)?loss|loss_{_HELD_OUT}|lm_loss|cross_entropy(_loss)?|ce_loss"
        r"|val_ce|(val_)?nll|verlust|perte)(_(nats?|bits?)(_(per_)?(token|byte|character))?)?",
        "l",
        rf"(final_)?{_TRAIN}_loss|loss_train",
    ),
    "parameters": (
        rf"(model_)?{_COUNT}?(total_)?{_PARAMS}(_count|_total)?|model_size|parametres",
        "size|n|model",
        _NO_EMBEDDING,
    ),
    "tokens": (
        rf"{_COUNT}?(throughput_)?(total_)?({_TRAIN}_|data(set)?_|seen_|consumed_)?tokens?"
        "(_count|_total|_seen|_trained|_processed|_consumed)?"
        "|num_input_tokens_seen|token_budget|jetons",
        "d",
    ),
    "budget_flops": (
        rf"{_COUNT}?({_TRAIN}_)?(total_)?({_TRAIN}_)?(flops?|flos|compute)|compute_flops?"
        "|((flops?|compute|isoflop)_)?budget(_flops?)?|isoflop",
        "c",
    ),
    "forward_flops": ("(forward|fwd)_flops?_per_token|flops_per_token_forward",),
    "non_embedding": (_NO_EMBEDDING,),
    "variant": (
        "arch(itecture)?(_name)?|model_variant|variant_name|model_architecture|model_type",
    ),
    "seed": (rf"(random|rng|{_TRAIN})_seed|seed_id",),
    "state": ("status|(run|job)_(state|status)",),
    "run": ("(run|experiment)(_id|_name)?|id|name",),
}
"""Other names of the columns that fits want, as people and trackers call them: in lower case, with
'_' for what is not a letter or digit.

Each column has groups of them: a name of a later group counts only where none of an earlier one is
there. `run` names a run of which there are several rows.
"""

_HOLDERS = re.compile(
    r"^(?:(?:summary|_?summary_metrics|config|metrics|params|data|args|hparams|hyperparameters"
    r"|results?|tags)[./:])+",
    re.IGNORECASE,
)
"""What exports of trackers put before a name: `config.n_params`, `summary.eval/loss`."""
_BRACKETED = re.compile(r"[(\[{]([^()\[\]{}]+)[)\]}]\s*$")
_VAGUE = re.compile("loss|lm_loss|c|d|l|n|size|model")
"""In something unknown, a bare `loss` may be any loss, and a name of one word what it likes."""
_NESTED = 10
"""Added to the rank of a name that is known only without what it stands in."""


class Known(NamedTuple):
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


def names_of(rows: pd.DataFrame) -> list[str]:
    """Return the names of the columns of a table that has text for them."""
    return [str(name) for name in rows]


def recognised(headers: Iterable[str]) -> int:
    """Return how many headers are those of wanted columns."""
    return sum(bool(known(header)) for header in headers)


@lru_cache(maxsize=4096)
def known(header: str) -> tuple[Known, ...]:
    """Return what a column of this name may be: nothing, or one or two of the wanted columns."""
    if len(header) > 200:
        return ()
    bare = re.sub(r"( \(column \d+\))+$", "", header.strip())
    held = _HOLDERS.sub("", bare)
    for text in dict.fromkeys((bare, held)):
        for base, inside in ((plain(text), None), *_parts(text)):
            if found := tuple(_named(base, inside)):
                return found
    # `eval_results.eval_loss` is known by its last name alone.
    _, dot, last = held.rpartition(".")
    if not dot or _VAGUE.fullmatch(plain(last)):
        return ()
    return tuple(
        one._replace(rank=one.rank + _NESTED) for one in known(last) if one.name not in TEXTS
    )


def unit_of(header: str) -> Unit | None:
    """Return the unit in a header, whatever the column holds; None where there is none."""
    for found in known(header):
        return found.unit
    bracketed = _BRACKETED.search(header)
    return unit(bracketed[1]) if bracketed else None


def _named(name: str, inside: Unit | None) -> Iterator[Known]:
    """Yield the wanted columns that have a name and can be in a unit."""
    for wanted, groups in ALIASES.items():
        if inside is not None and (
            wanted in (*TEXTS, "seed", "loss") or (inside.flops and not wanted.endswith("flops"))
        ):
            continue
        ranks = (i for i, one in enumerate((wanted, *groups)) if re.fullmatch(one, name))
        if (rank := next(ranks, None)) is not None:
            yield Known(wanted, rank, inside)


def _parts(header: str) -> Iterator[tuple[str, Unit]]:
    """Yield the ways in which a header can be a name and a unit: `params (M)`, `tokens_b`."""
    words = plain(powers_written_out(header)).split("_")
    for number in range(min(4, len(words)), 0, -1):
        base = "_".join(words[:-number]).removesuffix("_in")
        inside = unit(" ".join(words[-number:]))
        if inside is None or inside.factor == 1:
            continue
        # One letter before another, as in d_m, is a name of something else; D (M) is not.
        if len(base) > 1 or (base and not re.fullmatch(r"\w+", header)):
            yield base, inside
        if inside.flops:
            yield f"{base}_flops".lstrip("_"), inside
