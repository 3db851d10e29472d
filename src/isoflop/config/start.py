"""A checkpoint that runs start from: what is known of it without its weights.

`model_of` says which configurations of Hugging Face describe a model of this package; what only
others compute is named and refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from isoflop.config.model import Choices, Decision, ModelConfig
from isoflop.config.own import Own
from isoflop.config.problems import describe
from isoflop.frozen import Frozen, fingerprint
from isoflop.strict_json import parse_json
from isoflop.text import quoted

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")
LONGEST_HEADER = 100_000_000
"""Bytes of the header of safetensors, as the format limits them."""
KINDS = {"llama": "Llama", "mistral": "Mistral", "qwen3": "Qwen3"}
"""Model types that are read, and how their classes begin."""

LLAMA3 = {
    "low": "low_freq_factor",
    "high": "high_freq_factor",
    "trained": "original_max_position_embeddings",
}
"""Fields of `RopeScaling`, and what transformers calls them."""

_LONGEST = "max_position_embeddings"
_PLAIN: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "pretraining_tp": 1,
    "partial_rotary_factor": 1.0,
    "use_sliding_window": False,
}
"""What a configuration may say besides the sizes; what it leaves out is so."""


class Described(NamedTuple):
    """What a checkpoint's folder says of its model."""

    model: ModelConfig
    longest: int
    """Tokens of a sequence that it is meant for."""
    decision: Decision | None = None
    """Who routes; None for the model's headline decision."""
    seed: int = 0
    """Keys what a random control draws."""


class Start(Frozen):
    """A checkpoint in safetensors, of transformers or of `isoflop convert`."""

    checkpoint: str
    """Its folder; no part of the run id."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the model and of the files of weights."""
    model: ModelConfig
    """The model that it holds."""

    @classmethod
    def of(cls, checkpoint: str) -> Start:
        """Return what a folder holds, whose weights are read once for their hash.

        Raises:
            ValueError: there is no such folder, or its model is not supported here; in one line.
        """
        folder = Path(checkpoint)
        if not os.path.isdir(folder):  # of no name that is too long
            told = f"start.checkpoint is {checkpoint!r}, where no folder is; expected one that "
            told += "`isoflop convert SOURCE FOLDER --from hf` writes: restore it, or name another"
            raise ValueError(quoted(told))
        model, content = described_model(folder).model, hashlib.sha256()
        content.update(fingerprint(model).encode())
        for path in weight_files(folder):
            with path.open("rb") as file:
                content.update(hashlib.file_digest(file, "sha256").digest())
        return cls(checkpoint=checkpoint, sha256=content.hexdigest(), model=model)

    def named(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Return what tells it from others, wherever it lies."""
        return {"sha256": kept["sha256"]}

    @property
    def words(self) -> str:
        """The checkpoint as a plan and a report name it."""
        return f"{self.checkpoint} (SHA-256 {self.sha256[:12]})"

    def check(self) -> None:
        """Raise a ValueError of one line where the checkpoint is gone or changed."""
        if Start.of(self.checkpoint).sha256 != self.sha256:
            raise ValueError(
                f"start.checkpoint {quoted(self.checkpoint)} changed: its SHA-256 was "
                f"{self.sha256[:12]}; restore it, or run the study again: its runs are then others"
            )

    def check_ids(self, vocabulary: int) -> None:
        """Raise a ValueError of one line where the model knows fewer ids than a tokenizer has."""
        if vocabulary > self.model.vocabulary:
            raise ValueError(
                f"data.tokenizer has {vocabulary} ids and start.checkpoint {self.model.vocabulary};"
                ' expected its own, tokenizer = "FOLDER/tokenizer.json" under [data]'
            )

    def taken(self, choices: Choices, place: str) -> ModelConfig:
        """Return the checkpoint's shape with a variant's choices, all of its weights being kept.

        Raises:
            ValueError: it has weights for another feed-forward, block or attention, or too few
                blocks; the message begins with `place`.
        """
        own = isinstance(choices.attention, Own) and choices.attention != self.model.attention
        kept = (choices.feed_forward, choices.block) == (self.model.feed_forward, self.model.block)
        if own or not kept:
            raise ValueError(
                f"{place} has parts that start.checkpoint has no weights of; expected its "
                "feed_forward, with another depth or block attention"
            )
        found = self.model.with_choices(choices)
        if found is None:
            raise ValueError(
                f"{place} does not fit the {self.model.blocks} blocks of start.checkpoint; "
                "expected a smaller depth.every or attention.full_last"
            )
        return found

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return how a study file writes it: the folder alone."""
        folder = {"type": "string", "description": "Folder that `isoflop convert` writes."}
        return {
            "title": "Start",
            "type": "object",
            "description": cls.__doc__,
            "properties": {"checkpoint": folder},
            "required": ["checkpoint"],
        }


def opened_start(data: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of a study or run file with what the checkpoint of `[start]` holds.

    Raises:
        ValueError: as `Start.of`, or the table names none.
    """
    table = data.get("start")
    if not isinstance(table, dict) or "sha256" in table:
        return data
    checkpoint = table.get("checkpoint")
    if set(table) != {"checkpoint"} or not isinstance(checkpoint, str):
        raise ValueError(f'start is {table}; expected checkpoint = "FOLDER" alone')
    return data | {"start": Start.of(checkpoint).model_dump(mode="json")}


def described_model(folder: Path) -> Described:
    """Return what a checkpoint's folder says of its model.

    Raises:
        ValueError: as `model_of`, or the folder has no `config.json` of a model.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(quoted(f"{folder} has no {CONFIG}; expected the folder of a model"))
    values = parse_json(path.read_bytes(), quoted(str(path)))
    if not isinstance(values, dict):
        raise ValueError(quoted(f"{path} is no table; expected a model's"))
    longest = "sequence_length" if "sequence_length" in values else _LONGEST
    length = _whole({longest: 2048} | values, longest, str(path))
    if values.get("model_type") not in ("isoflop", "isoflop_own"):
        return Described(model_of(values, str(path)), length)
    model, decision = validated_model(values.get("model"), str(path)), values.get("decision")
    known = [one for one in model.decisions if one != "top_k"]
    if decision is not None and decision not in known:
        told = f"{path}: decision is {decision!r}; expected one of {', '.join(known)}"
        raise ValueError(quoted(told))
    return Described(model, length, decision, _whole({"seed": 0} | values, "seed", str(path), 0))


def validated_model(values: object, place: str) -> ModelConfig:
    """Return a model from its fields; a ValueError of one line begins with `place`."""
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(quoted(f"{place}: {'; '.join(describe(error, ModelConfig))}")) from None


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's weights, one or several, never a pickle.

    Raises:
        ValueError: there is none, or one that the index names is missing.
    """
    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        index = parse_json((folder / INDEX).read_bytes(), quoted(str(folder / INDEX)))
        listed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(listed, dict):
            raise ValueError(quoted(f"{folder / INDEX} has no weight_map"))
        names = sorted({Path(str(name)).name for name in listed.values()})
    gone = next((name for name in names if not (folder / name).is_file()), None)
    if gone is not None:
        pickled = next((name for name in PICKLED if (folder / name).exists()), None)
        told = "" if pickled is None else f"; {pickled} is a pickle, which runs code: convert it"
        raise ValueError(quoted(f"{folder} has no {gone}{told}"))
    for name in names:
        _check_whole(folder / name)
    return [folder / name for name in names]


def _check_whole(path: Path) -> None:
    """Raise a ValueError where a file of weights is not as long as its header says."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, LONGEST_HEADER))
    try:
        values = parse_json(header, str(path))
        ends = [one["data_offsets"][1] for name, one in values.items() if name != "__metadata__"]
        whole = path.stat().st_size == 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(quoted(f"{path} is cut short, or no safetensors; copy it here again"))


def model_of(values: Mapping[str, Any], place: str) -> ModelConfig:
    """Return the model that the values of a `config.json`, read at `place`, describe.

    Raises:
        ValueError: the model is of another kind, or does what this package does not; each such
            setting is named.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(
            quoted(f"{place}: model_type is {kind!r}; expected one of {', '.join(KINDS)}")
        )
    refused = [
        f"{name} = {values[name]!r}"
        for name, usual in _PLAIN.items()
        if values.get(name) not in (None, usual)
    ]
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(quoted(f"{place}: rotary positions are {rope!r}; expected a table"))
    rope_kind = rope.get("rope_type", rope.get("type", "default"))
    scaling = None
    if rope_kind in ("linear", "llama3"):
        named = {ours: rope[name] for ours, name in LLAMA3.items() if name in rope}
        scaling = {"kind": rope_kind, "factor": rope.get("factor"), **named}
    elif rope_kind != "default":
        refused.append(f"rotary positions of type {rope_kind!r}")
    if kind == "mistral" and values.get("sliding_window") is not None:
        longest = _whole({_LONGEST: 0} | dict(values), _LONGEST, place, 0)
        if (window := _whole(values, "sliding_window", place)) < longest:
            refused.append(f"sliding_window = {window}")
    if refused:
        raise ValueError(quoted(f"{place}: {', '.join(refused)}: not supported here"))
    heads = _whole(values, "num_attention_heads", place)
    kv_heads = values.get("num_key_value_heads")
    width = _whole(values, "hidden_size", place)
    described = {
        "vocabulary": _whole(values, "vocab_size", place),
        "width": width,
        "blocks": _whole(values, "num_hidden_layers", place),
        "heads": heads,
        "kv_heads": None if kv_heads == heads else kv_heads,
        "head_width": values.get("head_dim") or width // heads,
        "hidden": _whole(values, "intermediate_size", place),
        "query_key_norm": kind == "qwen3",
        "tied_embeddings": bool(values.get("tie_word_embeddings", False)),
        "rope_scaling": scaling,
        "rope_base": rope.get("rope_theta") or values.get("rope_theta") or 10_000.0,
        "norm_epsilon": values.get("rms_norm_eps", 1e-6),
    }
    return validated_model(described, place)


def _whole(values: Mapping[str, Any], name: str, place: str, least: int = 1) -> int:
    found = values.get(name)
    if not isinstance(found, int) or found < least:
        told = f"{place}: {name} is {found!r}; expected a whole number, {least} or more"
        raise ValueError(quoted(told))
    return found
