"""Checkpoints of others, and this package's exported ones, as models: safetensors alone is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.config import Choices, ModelConfig
from isoflop.config.own import BUILT_IN
from isoflop.config.start import CONFIG, described_model
from isoflop.interop.exporting import folder_of_model, json_text, write_folder
from isoflop.strict_json import parse_json
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.model import Transformer

KEPT = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""What goes along as it is."""


ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Of `config.json`, which hang on the tokeniser."""


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
    from isoflop.model.pretrained import loaded

    return loaded(_folder(source), choices)[0]


def import_checkpoint(
    source: Path | str, out: Path, choices: Mapping[str, Any] | None = None
) -> Imported:
    """Write a checkpoint as a folder of this package, which transformers reads too.

    Arguments and errors are those of `load_pretrained`; `out` must not be there.
    """
    from isoflop.model.pretrained import loaded

    folder = _folder(source)
    described, (model, added) = described_model(folder), loaded(folder, choices)
    files = {name: _text(folder / name) for name in KEPT if (folder / name).is_file()}
    decision = described.decision if described.decision in model.config.decisions else None
    values, state = folder_of_model(model.config, described.longest, model.state_dict(), decision)
    if "model" in values:
        values["seed"] = described.seed
    told = parse_json((folder / CONFIG).read_bytes(), str(folder / CONFIG))
    values |= {name: told[name] for name in ENDS if name in told}
    write_folder(out, files | {"config.json": json_text(values)}, state)
    return Imported(out, model.config, added)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(quoted(f"{path} is not UTF-8; expected the JSON of a model")) from None


def _folder(source: Path | str) -> Path:
    """Return a checkpoint's folder; a name that is no folder is asked of the hub."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists() or path.is_absolute() or str(source).count("/") != 1:
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


def parsed_choices(texts: Iterable[str]) -> dict[str, Any]:
    """Return choices from words such as `depth=top_k:0.125` or `depth={"kind": ...}`.

    After a colon stands a routed model's capacity, or for attention BLOCK_SIZE,TOP_K. The gate is
    then centred at one where it can be, so that what is routed starts out as it was.

    Raises:
        ValueError: a word is of another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        kind, _, number = value.partition(":")
        given = list(found)
        try:
            if value.startswith("{"):
                found[name] = json.loads(value)
            elif name == "attention" and number:
                size, _, top_k = number.partition(",")
                found[name] = {"kind": kind, "block_size": int(size), "top_k": int(top_k)}
            elif name == "depth" and number:
                found[name] = {"kind": kind, "capacity": float(number)}
                found[name] |= {} if kind in BUILT_IN else {"gate": "tanh"}
            else:
                found[name] = {"kind": kind}
        except ValueError:
            name = ""
        if "from" in found.get(name, {}):
            raise ValueError(quoted(f"{text!r} names a file; expected a kind that ships"))
        if not value or name not in Choices.model_fields or name in given:
            raise ValueError(
                quoted(
                    f"{text!r} is given; expected depth=top_k:CAPACITY, "
                    'attention=block:BLOCK_SIZE,TOP_K, or NAME={"kind": ..., ...}, each NAME once'
                )
            )
    return found
