"""Folders of checkpoints that are not right: one line of what is wrong, from every command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from given import small_model
from isoflop.cli import main
from isoflop.data import ByteTokenizer
from isoflop.interop.exporting import folder_of_model, json_text, write_folder
from isoflop.interop.tokenizers import tokenizer_config, tokenizer_json
from isoflop.model import build
from isoflop.trained import Opened

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def checkpoint(folder: Path, weights: Mapping[str, Any], **config: Any) -> Path:
    """Write a plain model of bytes, with other settings and weights; None leaves one out."""
    values, state = folder_of_model(small_model(), 16, build(small_model(), 0).state_dict(), None)
    state |= {name: one for name, one in weights.items() if one is not None}
    state = {name: one for name, one in state.items() if weights.get(name, one) is not None}
    tokens = tokenizer_json(ByteTokenizer(), begins=True)
    assert tokens is not None
    files = {"config.json": json_text(values | config), "tokenizer.json": tokens}
    write_folder(folder, files | {"tokenizer_config.json": json_text(tokenizer_config(16))}, state)
    return folder


@pytest.mark.parametrize(
    ("weights", "config", "told"),
    [
        ({HEAD: torch.ones(250, 8)}, {}, "weights 'lm_head.weight' of shape [250, 8]; expected ["),
        ({HEAD: None}, {}, "has no weights 'lm_head.weight'"),
        ({"strange": torch.ones(2)}, {}, "has weights 'strange' that a Llama model has not"),
        ({}, {"tie_word_embeddings": True}, "ties its embeddings, and has a head of its own"),
        ({}, {"rope_parameters": "x"}, "rotary positions are 'x'; expected a table"),
        ({}, {"max_position_embeddings": "x"}, "max_position_embeddings is 'x'; expected a whole"),
        ({}, {"num_key_value_heads": 3}, "kv_heads is 3, which does not divide"),
        ({}, {"vocab_size": 200}, "tokenizer.json has 256 ids and the model 200; expected"),
        ({}, {"model_type": "gpt2"}, "model_type is 'gpt2'; expected one of llama"),
        ({}, {"model_type": []}, "model_type is []; expected one of llama"),
        (
            {},
            {"model_type": "mistral", "sliding_window": "4096"},
            "sliding_window is '4096'; expected a whole number",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    weights: Mapping[str, Any],
    config: Mapping[str, Any],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(checkpoint(tmp_path / "folder", weights, **config))
    assert main(["sample", folder, "--tokens", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    if "ids and the model" not in told:
        assert main(["convert", folder, str(tmp_path / "out"), "--from", "hf"]) == 2
        assert told in capsys.readouterr().err


def test_files_that_are_cut_short_or_pickles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(tmp_path / "folder", {})
    weights = folder / "model.safetensors"
    for content in (weights.read_bytes()[:-4], b"", b"\xff" * 40):
        weights.write_bytes(content)
        assert main(["eval", str(folder), "--corpus", str(tmp_path)]) == 2
        assert "model.safetensors is cut short, or no safetensors" in capsys.readouterr().err
    weights.rename(folder / "pytorch_model.bin")
    assert main(["sample", str(folder)]) == 2
    assert "pytorch_model.bin is a pickle, which runs code" in capsys.readouterr().err


def test_who_routes_and_the_seed_are_those_of_the_folder(tmp_path: Path) -> None:
    config = small_model(depth={"kind": "random_k", "capacity": 0.5})
    values, state = folder_of_model(config, 16, build(config, 0).state_dict(), "bernoulli")
    path = checkpoint(tmp_path / "folder", {}) / "config.json"
    path.write_text(json_text(values | {"seed": 3}))
    assert (Opened.of(path.parent).decision, Opened.of(path.parent).config.seed) == ("bernoulli", 3)
    write_folder(tmp_path / "own", {"config.json": path.read_text()}, state)
    main(["convert", str(tmp_path / "own"), str(tmp_path / "again"), "--from", "hf"])
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (again["decision"], again["seed"]) == ("bernoulli", 3)
