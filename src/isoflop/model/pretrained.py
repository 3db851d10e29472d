"""Weights of others' checkpoints, and of exported runs, in a model: safetensors alone is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from isoflop.config import ModelConfig
from isoflop.config.own import opened
from isoflop.config.start import Start, described_model, validated_model, weight_files
from isoflop.model.peers import from_peer
from isoflop.model.transformer import Transformer, build
from isoflop.text import quoted

QUIET = 0.02
"""What new routers are multiplied by, so that they say next to nothing."""


def start_from(model: Transformer, start: Start) -> None:
    """Give a model that is initialised the weights of a checkpoint.

    Raises:
        ValueError: the checkpoint is gone or changed, or lacks weights; in one line.
    """
    start.check()
    put_weights(model, Path(start.checkpoint))


def loaded(
    folder: Path, choices: Mapping[str, Any] | None = None
) -> tuple[Transformer, tuple[str, ...]]:
    """Return a checkpoint's model in evaluation mode, and the names of its new weights; `choices`
    stand in place of the checkpoint's."""
    described = described_model(folder).model
    if choices:
        named = opened({"model": dict(choices)}, Path())["model"]
        described = validated_model(described.model_dump() | named, "the choices")
    model = build(described, seed=0)
    return model.eval(), put_weights(model, folder)


def put_weights(model: Transformer, folder: Path) -> tuple[str, ...]:
    """Give a model of a checkpoint's shape its weights, but for what decides in another depth.

    New routers are made quiet, so that a gate centred at one leaves updates as they were, and new
    convolutions of keys leave them as they are.

    Returns:
        Names of the weights that the checkpoint does not have, which stay as they were.

    Raises:
        ValueError: weights are missing that nothing new explains, or not known.
    """
    before, after, place = described_model(folder).model, model.config, str(folder)
    found = _weights(folder)
    if any(name.startswith("model.blocks.") for name in found):
        found = {name.removeprefix("model."): one.float() for name, one in found.items()}
    else:
        found = from_peer(found, before, place)
    names = {_plain(name): name for name in model.state_dict()}
    found = {names.get(_plain(name), name): one for name, one in found.items()}
    if before.depth != after.depth:
        # What was learned under the one depth would decide otherwise under the other.
        found = {name: one for name, one in found.items() if not _decides(name)}
    if after.tied_embeddings and "embedding.weight" in found:
        embedding = found["embedding.weight"]
        if not found.setdefault("head.weight", embedding).equal(embedding):
            raise ValueError(quoted(f"{place} ties its embeddings, and has a head of its own"))
    held = model.state_dict()
    for name in found.keys() & held.keys():
        if found[name].shape != held[name].shape:
            shapes = f"{list(found[name].shape)}; expected {list(held[name].shape)}, by its config"
            raise ValueError(quoted(f"{place} has weights {name!r} of shape {shapes}.json"))
    missing, strange = model.load_state_dict(found, strict=False)
    if strange:
        raise ValueError(quoted(f"{place} has weights {strange[0]!r}, which the model has not"))
    new = _new_parts(before, after)
    if lost := [name for name in missing if not any(part in name for part in new)]:
        raise ValueError(quoted(f"{place} has no weights {lost[0]!r}"))
    for name in missing:
        if name.endswith((".router.weight", ".key_convolution.weight")):
            model.get_parameter(name).data.mul_(QUIET if ".router." in name else 0.0)
    return tuple(missing)


def _plain(name: str) -> str:
    """Return the name that a block's weight has where nothing is around the block."""
    parts = name.split(".")
    return ".".join(part for at, part in enumerate(parts) if (at, part) != (2, "block"))


def _decides(name: str) -> bool:
    """Whether a weight is of a block's depth, and not of a part of it that has routers as well."""
    return name.split(".")[2:3] in (["router"], ["predictor"], ["threshold"], ["depth"])


def _new_parts(before: ModelConfig, after: ModelConfig) -> tuple[str, ...]:
    """Return parts of the names of weights that a change of choices adds."""
    parts: tuple[str, ...] = ()
    if before.depth != after.depth:
        parts += (".router.", ".predictor.", ".threshold", ".depth.")
    if before.attention != after.attention:
        parts += (".key_convolution.",)
    return parts


def _weights(folder: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = {}
    for path in weight_files(folder):
        try:
            found.update(load_file(path))
        except (SafetensorError, OSError) as error:
            raise ValueError(quoted(f"{path} cannot be read: {error}")) from None
    return found
