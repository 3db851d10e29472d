"""The tokeniser of a run as the `tokenizer.json` that the tools of Hugging Face read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.data import BpeTokenizer, ByteTokenizer, Tokenizer
from isoflop.data.tokenizer import END, byte_characters
from isoflop.text import quoted


def tokenizer_json(tokenizer: Tokenizer, *, begins: bool) -> str | None:
    """Return `tokenizer.json`; None where nothing but the number of ids is known.

    Args:
        tokenizer: of a run.
        begins: whether a text begins with id 0, as where windows go across documents.
    """
    match tokenizer:
        case ByteTokenizer():
            specification: dict[str, Any] = _bytes()
        case BpeTokenizer():
            specification = json.loads(tokenizer.specification)
        case _:
            return None
    end = {"id": END, "ids": [0], "tokens": [END]}
    if begins:
        specification["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": END, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": END, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {END: end},
        }
    return json.dumps(specification, ensure_ascii=False, indent=1)


def tokenizer_config(sequence_length: int) -> dict[str, Any]:
    """Return `tokenizer_config.json`, which names the class and what ends a text."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "model_max_length": sequence_length,
        "clean_up_tokenization_spaces": False,
    }


def _bytes() -> dict[str, Any]:
    """Return byte-level BPE that merges nothing: an id per byte, 0 for the end of a document."""
    vocabulary = {character: byte for byte, character in enumerate(byte_characters()) if byte}
    level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 0,
                "content": END,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **level},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **level},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {END: 0, **vocabulary},
            "merges": [],
        },
    }


@dataclass(frozen=True)
class PretrainedTokenizer:
    """The `tokenizer.json` of a checkpoint, without what it puts around a text."""

    library: Any

    @classmethod
    def of(cls, folder: Path) -> PretrainedTokenizer:
        """Read the tokeniser of a checkpoint folder.

        Raises:
            ValueError: there is none, or it is damaged.
        """
        from tokenizers import Tokenizer as Library

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(quoted(f"{folder} has no tokenizer.json, so that no text can be read"))
        try:
            return cls(Library.from_file(str(path)))
        except Exception as error:  # the library raises bare exceptions of its own
            raise ValueError(quoted(f"{path} cannot be read: {error}")) from None

    @property
    def begins(self) -> bool:
        """Whether it puts id 0 before a text."""
        return bool(self.library.encode("", add_special_tokens=True).ids[:1] == [0])

    def encode(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Return the ids of each UTF-8 text."""
        given = [text.decode() for text in texts]
        return [one.ids for one in self.library.encode_batch(given, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the text of `ids`."""
        return str(self.library.decode(list(ids))).encode()
