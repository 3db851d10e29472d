"""The tokeniser of a run as the `tokenizer.json` that the tools of Hugging Face read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.config import TokenizerFile
from isoflop.data import ByteTokenizer, Tokenizer
from isoflop.data.tokenizer import END, LibraryTokenizer, byte_characters
from isoflop.text import quoted


def tokenizer_json(tokenizer: Tokenizer, *, begins: bool) -> str | None:
    """Return `tokenizer.json`; None where nothing but the number of ids is known.

    Args:
        tokenizer: of a run.
        begins: whether a text begins with what ends documents, as where windows go across them.
    """
    match tokenizer:
        case ByteTokenizer():
            specification: dict[str, Any] = _bytes()
        case LibraryTokenizer():
            specification = json.loads(tokenizer.specification)
        case _:
            return None
    text = end_of(tokenizer)
    at = tokenizer.end if isinstance(tokenizer, LibraryTokenizer) else 0
    end = {"id": text, "ids": [at], "tokens": [text]}
    if begins:
        specification["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": text, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": text, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {text: end},
        }
    return json.dumps(specification, ensure_ascii=False, indent=1)


def end_of(tokenizer: Tokenizer) -> str:
    """Return how the id that ends a document is spelled."""
    return tokenizer.end_text if isinstance(tokenizer, LibraryTokenizer) else END


def tokenizer_config(sequence_length: int, end: str = END) -> dict[str, Any]:
    """Return `tokenizer_config.json`, which names the class and what ends a text."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": end,
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
    end: int
    """Id that ends a document."""

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
            library = Library.from_file(str(path))
        except Exception as error:  # the library raises bare exceptions of its own
            raise ValueError(quoted(f"{path} cannot be read: {error}")) from None
        return cls(library, TokenizerFile.model_validate(str(path)).end)

    @property
    def leads(self) -> list[int]:
        """What it puts before a text: an id or none."""
        return list(self.library.encode("", add_special_tokens=True).ids[:1])

    def encode(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Return the ids of each UTF-8 text."""
        given = [text.decode() for text in texts]
        return [one.ids for one in self.library.encode_batch(given, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the text of `ids`."""
        return str(self.library.decode(list(ids))).encode()
