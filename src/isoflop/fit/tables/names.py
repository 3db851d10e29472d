"""What columns of tables of runs are called, and the units in their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from isoflop.fit.tables.numbers import Unit, unit

ALIASES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    name: tuple(tuple(group.split()) for group in groups)
    for name, groups in {
        "loss": (
            """
            final_loss test_loss val_loss valid_loss validation_loss eval_loss evaluation_loss
            heldout_loss held_out_loss dev_loss loss_val loss_valid loss_validation loss_eval
            loss_test final_val_loss final_eval_loss final_test_loss final_validation_loss
            lm_loss cross_entropy cross_entropy_loss ce_loss val_ce nll val_nll verlust perte
            """,
            "l",
            "train_loss training_loss loss_train final_train_loss final_training_loss",
        ),
        "parameters": (
            """
            params param parameter parametres n_params n_param nparams num_params n_parameters
            num_parameters number_of_parameters parameter_count param_count params_count
            model_size model_params model_parameters total_params total_parameters
            params_total parameters_total n_params_total num_total_params model_n_params
            model_num_params
            """,
            "size n model",
            """
            non_embedding non_embedding_params non_embedding_parameters params_non_embedding
            n_params_non_embedding num_non_embedding_params nonembedding_params
            """,
        ),
        "tokens": (
            """
            token jetons training_tokens train_tokens n_tokens ntokens num_tokens total_tokens
            token_count tokens_total tokens_seen tokens_trained tokens_processed
            tokens_consumed consumed_tokens seen_tokens num_tokens_seen n_tokens_seen
            total_tokens_seen train_tokens_seen training_tokens_seen num_input_tokens_seen
            num_train_tokens n_train_tokens num_training_tokens total_train_tokens
            total_training_tokens number_of_tokens throughput_total_tokens data_tokens
            dataset_tokens token_budget
            """,
            "d",
        ),
        "budget_flops": (
            """
            budget flop flops compute compute_budget compute_flop compute_flops budget_flop
            flop_budget flops_budget training_flop training_flops train_flop train_flops
            total_flop total_flops total_flos train_total_flos total_compute training_compute
            train_compute total_training_flop total_training_flops total_train_flops n_flops
            num_flops isoflop isoflop_budget
            """,
            "c",
        ),
        "forward_flops": (
            """
            forward_flops_per_token forward_flop_per_token fwd_flops_per_token
            flops_per_token_forward
            """,
        ),
        "non_embedding": (
            """
            non_embedding_params non_embedding_parameters params_non_embedding
            n_params_non_embedding num_non_embedding_params nonembedding_params
            """,
        ),
        "variant": (
            """
            architecture arch model_variant variant_name architecture_name model_architecture
            model_type
            """,
        ),
        "seed": ("random_seed rng_seed train_seed training_seed seed_id",),
        "state": ("status run_state run_status job_state job_status",),
        "run": ("run_id run_name experiment experiment_name experiment_id id name",),
    }.items()
}
"""Other names of the columns that fits want, as people and trackers call them: in lower case, with
'_' for what is not a letter or digit.

Each column has groups of them: a name of a later group counts only where none of an earlier one is
there. `run` names a run of which there are several rows.
"""

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
