"""Text to token ids and back: bytes, byte-level BPE, or what others made.

Id 0 ends every document, but where others made the tokeniser.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

END = "<|end|>"
"""How the BPE vocabulary spells id 0; the same characters in a text are ordinary text."""

PROBE = "Once, \u00dcber 12345 \u2603\n\n\tx  y\x01 \u05d0 \U0001f600 don't <s> [UNK]"
"""Read by tokenisers that others made, to see whether their ids hold a text."""

Ids = NDArray[np.unsignedinteger[Any]]


class ByteTokenizer:
    """One id per byte. Byte 0 cannot occur in a text, so id 0 is free to end documents."""

    vocabulary, end, end_text = 256, 0, END

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of text that each id stands for, (V,); 0 for id 0."""
        lengths = np.ones(256, dtype=np.int64)
        lengths[0] = 0
        return lengths

    def encode(self, texts: Sequence[bytes]) -> list[Ids]:
        """Return the ids of each UTF-8 text, without id 0."""
        return [np.frombuffer(text, dtype=np.uint8) for text in texts]

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the text of `ids`; the ends of documents are dropped, and ids that are none.

        Ids that a model made up need not join up to valid UTF-8.
        """
        return bytes(i for i in ids if 0 < i < self.vocabulary)


class LibraryTokenizer:
    """A tokeniser of the `tokenizers` library, from its JSON, whose ids spell a text byte for byte.

    Id `end` ends a document; there are `vocabulary` ids, or as many as the JSON has. A ValueError
    of one line where it is no such tokeniser, or changes the text.
    """

    cuts = b" "
    """Where long texts may be cut: in front of these, if no white space is before."""

    def __init__(self, specification: str, end: int = 0, vocabulary: int | None = None) -> None:
        from tokenizers import Tokenizer as Library

        self.specification, self.end = specification, end
        try:
            self._library = Library.from_str(specification)
        except Exception as error:  # the library raises bare exceptions of its own
            problem = " ".join(str(error).split())[:200]
            raise ValueError(f"is not the JSON of a tokenizer ({problem})") from None
        self._library.encode_special_tokens = True
        self._library.no_truncation()
        self._library.no_padding()
        decoder = str(json.loads(specification).get("decoder"))
        if "ByteLevel" not in decoder:
            # What stands before a part depends on whether the text begins with it.
            self.cuts = b""
        added = self._library.get_added_tokens_decoder()
        ids = self._library.get_vocab(with_added_tokens=True)
        self.vocabulary = vocabulary or 1 + max(ids.values())
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        self._text_of = [b""] * self.vocabulary
        for token, index in ids.items():
            if index in added and added[index].special:
                continue
            if self.cuts:
                spelled = index not in added and all(one in byte_of for one in token)
                self._text_of[index] = (
                    bytes(byte_of[one] for one in token) if spelled else token.encode()
                )
            elif byte := re.fullmatch("<0x([0-9A-F]{2})>", token):
                self._text_of[index] = bytes.fromhex(byte[1])
            else:
                self._text_of[index] = token.replace("\u2581", " ").encode()
        self._text_of[end] = b""
        self.end_text = next((token for token, index in ids.items() if index == end), END)
        """How the id that ends a document is spelled."""
        self._dtype = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        (probe,) = self.encode([PROBE.encode()])
        if self.decode(probe).decode(errors="replace").removeprefix(" ") != PROBE:
            raise ValueError(
                "does not give a text back byte for byte; expected byte-level BPE, or a "
                "vocabulary with bytes to fall back on, that changes no characters"
            )

    @classmethod
    def load(cls, path: Path, *settings: int) -> Self:
        """Read the tokeniser that `write` wrote, with what the class is made of besides.

        Raises:
            ValueError: it is none of this class.
        """
        try:
            return cls(path.read_text(encoding="utf-8"), *settings)
        except Exception as error:  # the library raises bare exceptions of its own
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ValueError(
                f"{path} is damaged: it is not the JSON of a byte-level BPE tokeniser ({problem}); "
                f"delete {path.parent} and run the same command again"
            ) from None

    def write(self, path: Path) -> str:
        """Write the file of the library, and return its SHA-256."""
        content = self.specification.encode()
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    @property
    def leads(self) -> list[int]:
        """What its makers put before a text: an id or none."""
        return list(self._library.encode("", add_special_tokens=True).ids[:1])

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of text that each id stands for, (V,)."""
        return np.array([len(text) for text in self._text_of], dtype=np.int64)

    def encode(self, texts: Sequence[bytes]) -> list[Ids]:
        """Return the ids of each text."""
        given = [text.decode() for text in texts]
        encodings = self._library.encode_batch_fast(given, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=self._dtype) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the text of `ids`; the ends of documents are dropped, and ids that are none.

        A checkpoint may know more ids than its tokeniser has, and draw them.
        """
        return b"".join(self._text_of[i] for i in ids if i < self.vocabulary)


class BpeTokenizer(LibraryTokenizer):
    """Byte-level BPE of our own."""

    cuts = b" \n"

    def __init__(self, specification: str) -> None:
        vocabulary: dict[str, int] = json.loads(specification)["model"]["vocab"]
        if sorted(vocabulary.values()) != list(range(len(vocabulary))) or vocabulary[END]:
            raise ValueError(f"the ids are not 0 for {END!r} and 1, 2, 3, ... for the others")
        if set("".join(vocabulary.keys() - {END})) - set(byte_characters()):
            raise ValueError("a token is not spelled in bytes")
        super().__init__(specification)

    @classmethod
    def train(cls, texts: Iterator[bytes], vocabulary: int) -> BpeTokenizer:
        """Train a vocabulary of exactly `vocabulary` ids on `texts`; the same every time.

        Raises:
            ValueError: the texts are too short for so many ids.
        """
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, pre_tokenizers, trainers

        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END],
            initial_alphabet=byte_characters(),
            show_progress=False,
        )
        library.train_from_iterator((text.decode() for text in texts), trainer)
        if library.get_vocab_size() != vocabulary:
            raise ValueError(
                f"tokenizer is 'bpe:{vocabulary}', but the training split yields only "
                f"{library.get_vocab_size()} ids; ask for at most as many, or for 'bytes'"
            )
        return cls(library.to_str())


class IdTokenizer:
    """Stands for the tokeniser of ids that others made, of which nothing but its size is known."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of text that each id stands for, (V,): 0, since none is known."""
        return np.zeros(self.vocabulary, dtype=np.int64)

    def encode(self, texts: Sequence[bytes]) -> list[Ids]:
        """Raise a ValueError: no text can be read."""
        raise ValueError(
            f"the {len(texts)} texts cannot be read: the data is token ids alone, whose text is "
            "not known; expected files of ids"
        )

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the ids themselves, each as `<7>`."""
        return b"".join(b"<%d>" % one for one in ids)


Tokenizer = ByteTokenizer | LibraryTokenizer | IdTokenizer


class TextStream:
    """Text of ids that come one at a time; a character comes with the id that completes it.

    Bytes that cannot be UTF-8 become replacement characters. The pieces joined are the whole text
    decoded so at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int, *, last: bool = False) -> str:
        """Return the characters that `token` completes; with `last`, what is left as well."""
        return self._decoder.decode(self._tokenizer.decode([token]), final=last)


def byte_characters() -> list[str]:
    """Return the character by which byte-level vocabularies spell each byte.

    Printable Latin-1 characters stand for themselves, the other bytes for characters from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
