"""Checkpoints of others, and this package's exported ones, as models: safetensors alone is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from isoflop import storage
from isoflop.config import Choices, ModelConfig
from isoflop.config.problems import describe
from isoflop.interop.exporting import WEIGHTS, folder_of_model, json_text, write_folder
from isoflop.interop.peers import from_peer, model_of
from isoflop.text import quoted

if TYPE_CHECKING:
    from torch import Tensor

    from isoflop.model import Transformer

INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")
KEPT = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""What goes along as it is."""


@dataclass(frozen=True)
class Imported:
    """What was read and written."""

    folder: Path
    model: ModelConfig
    added: tuple[str, ...]
    """Weights that the checkpoint did not have, which start as a new model's do."""


def load_pretrained(source: Path | str, choices: Mapping[str, Any] | None = None) -> Transformer:
    """Return the model of a checkpoint folder of Llama, Mistral, Qwen3, or of this package.

    Args:
        source: the folder, or the name of a repository of the Hugging Face hub.
        choices: `attention`, `depth` or `feed_forward` to put in place of the checkpoint's;
            weights are kept, routers and decision heads are new.

    Returns:
        The model on the CPU, in float32 and evaluation mode.

    Raises:
        ValueError: the folder holds no safetensors, or what it describes is not supported here.
    """
    return _loaded(_folder(source), choices or {})[0]


def import_checkpoint(
    source: Path | str, out: Path, choices: Mapping[str, Any] | None = None
) -> Imported:
    """Write a checkpoint as a folder of this package, which transformers reads too.

    Arguments and errors are those of `load_pretrained`; `out` must not be there.
    """
    folder = _folder(source)
    model, added, length = _loaded(folder, choices or {})
    texts = {name: folder / name for name in KEPT if (folder / name).is_file()}
    files = {name: path.read_text(encoding="utf-8") for name, path in texts.items()}
    values, state = folder_of_model(model.config, length, model.state_dict(), None)
    write_folder(out, files | {"config.json": json_text(values)}, state)
    return Imported(out, model.config, added)


def _loaded(folder: Path, choices: Mapping[str, Any]) -> tuple[Transformer, tuple[str, ...], int]:
    """Return a model, the names of its new weights, and the longest sequence it is meant for."""
    from isoflop.model import build

    values = storage.read_json(folder / "config.json")
    if not isinstance(values, dict):
        raise ValueError(quoted(f"{folder / 'config.json'} is no table; expected a model's"))
    place = str(folder / "config.json")
    length = values.get("sequence_length") or values.get("max_position_embeddings") or 2048
    if values.get("model_type") == "isoflop":
        described = _validated(values.get("model"), place)
        found = {n.removeprefix("model."): one.float() for n, one in _weights(folder).items()}
    else:
        described = model_of(values, place)
        found = from_peer(_weights(folder), described, str(folder))
    wanted = described
    if choices:
        wanted = _validated(described.model_dump() | dict(choices), "the choices")
    found = {_place(name, wanted): one for name, one in found.items()}
    if wanted.tied_embeddings:
        found["head.weight"] = found["embedding.weight"]
    model = build(wanted, seed=0)
    if described.depth != wanted.depth:
        _start_routers(model)
    missing, strange = model.load_state_dict(found, strict=False)
    if strange:
        raise ValueError(quoted(f"{folder} has weights {strange[0]!r}, which the model has not"))
    new = _new_parts(described, wanted)
    if lost := [name for name in missing if not any(part in name for part in new)]:
        raise ValueError(quoted(f"{folder} has no weights {lost[0]!r}"))
    return model.eval(), tuple(missing), length


def _start_routers(model: Transformer) -> None:
    """Make new routers say nothing, so that a gate centred at one leaves updates as they were."""
    for block in model.routed:
        block.router.weight.data.mul_(0.02)


def _new_parts(before: ModelConfig, after: ModelConfig) -> tuple[str, ...]:
    """Return parts of the names of weights that a change of choices adds."""
    parts = []
    if before.depth != after.depth:
        parts += [".router.", ".predictor.", ".threshold"]
    if before.attention != after.attention:
        parts += [".key_convolution."]
    return tuple(parts)


def _place(name: str, config: ModelConfig) -> str:
    """Return the name of a block's weight where the block is routed, or no longer is."""
    parts = name.split(".")
    if parts[0] != "blocks" or parts[2] in ("router", "predictor", "threshold"):
        return name
    inner = parts[3:] if parts[2] == "block" else parts[2:]
    routed = int(parts[1]) in config.routed_blocks
    return ".".join([*parts[:2], *(["block"] if routed else []), *inner])


def _validated(values: object, place: str) -> ModelConfig:
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(quoted(f"{place}: {'; '.join(describe(error, ModelConfig))}")) from None


def _folder(source: Path | str) -> Path:
    """Return a checkpoint's folder; a name that is no folder is asked of the hub."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_absolute() or str(source).count("/") != 1:
        raise ValueError(
            quoted(f"{source} is no folder; expected one with config.json, or a hub's OWNER/NAME")
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            quoted(f"{source} is no folder, and the hub needs huggingface_hub: pip install it")
        ) from None
    try:
        wanted = ["*.json", "*.safetensors"]
        return Path(snapshot_download(str(source), allow_patterns=wanted))
    except Exception as error:  # of several libraries
        told = " ".join(str(error).split())[:200]
        raise ValueError(quoted(f"{source} cannot be had from the hub: {told}")) from None


def _weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of one file or of several, never of a pickle."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (folder / INDEX).is_file():
        index = storage.read_json(folder / INDEX)
        listed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(listed, dict):
            raise ValueError(quoted(f"{folder / INDEX} has no weight_map"))
        names = sorted({Path(str(name)).name for name in listed.values()})
    elif (folder / WEIGHTS).is_file():
        names = [WEIGHTS]
    else:
        pickled = next((name for name in PICKLED if (folder / name).exists()), None)
        told = "" if pickled is None else f"; {pickled} is a pickle, which runs code: convert it"
        raise ValueError(quoted(f"{folder} has no {WEIGHTS}{told}"))
    found = {}
    for name in names:
        try:
            found.update(load_file(folder / name))
        except (SafetensorError, OSError) as error:
            raise ValueError(quoted(f"{folder / name} cannot be read: {error}")) from None
    return found


def parsed_choices(texts: Iterable[str]) -> dict[str, Any]:
    """Return choices from words such as `depth=top_k:0.125` or `depth={"kind": ...}`.

    After a colon stands a routed model's capacity, or for attention BLOCK_SIZE,TOP_K. The gate is
    then centred at one, so that what is routed starts out as it was.

    Raises:
        ValueError: a word is of another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        kind, _, number = value.partition(":")
        try:
            if value.startswith("{"):
                found[name] = json.loads(value)
            elif name == "attention" and number:
                size, _, top_k = number.partition(",")
                found[name] = {"kind": kind, "block_size": int(size), "top_k": int(top_k)}
            elif name == "depth" and number:
                found[name] = {"kind": kind, "capacity": float(number), "gate": "tanh"}
            else:
                found[name] = {"kind": kind}
        except ValueError:
            name = ""
        if not value or name not in Choices.model_fields:
            raise ValueError(
                quoted(
                    f"{text!r} is given; expected depth=top_k:CAPACITY, "
                    'attention=block:BLOCK_SIZE,TOP_K, or NAME={"kind": ..., ...}'
                )
            )
    return found
