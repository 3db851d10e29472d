"""Tokens on disk, memory-mapped: one file of ids per split, beside the starts of its documents.

The ids of a corpus of ids stay in the files of others; the store knows which stretches of them a
split is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from isoflop import storage
from isoflop.config import DataConfig
from isoflop.data.ids import DTYPES, IdFile, PointedTokens, Stretch
from isoflop.data.tables import blocks, id_dtype, mapped_numbers, reopened, write_numbers
from isoflop.data.tokenizer import (
    BpeTokenizer,
    ByteTokenizer,
    Ids,
    IdTokenizer,
    LibraryTokenizer,
    Tokenizer,
)

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, SplitName, SplitName] = ("train", "validation", "test")

_STORE = "store.json"
TOKENIZER = "tokenizer.json"
_TOKEN_BYTES = "token_bytes"


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """The token stream of one split: its documents one after the other, those of text each ended
    by the id that does so."""

    tokens: Ids | PointedTokens
    """(tokens,) memory-mapped, uint8, uint16 or uint32; or those of files of ids."""
    offsets: NDArray[np.int64]
    """(documents + 1,) where each document starts; the last is the number of tokens."""
    document_bytes: NDArray[np.int64]
    """(documents,) UTF-8 bytes of text of each document; 0 where it is ids alone."""
    token_bytes: NDArray[np.number[Any]]
    """(V,) UTF-8 bytes of text that each id stands for; 0 for what ends documents, and where that
    is not known. Where a tokeniser of others adds or changes characters, scaled to the text."""

    @property
    def stream(self) -> NDArray[Any] | PointedTokens:
        """The ids, to be read at an array of positions."""
        return self.tokens if isinstance(self.tokens, PointedTokens) else np.asarray(self.tokens)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.document_bytes)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of text; bits per byte are summed nats / ln 2 / bytes."""
        return int(self.document_bytes.sum())


@dataclass(frozen=True, eq=False)
class TokenStore:
    """A prepared corpus: the token streams of its splits, the tokeniser, and where it is from."""

    folder: Path
    manifest: dict[str, Any]
    """Corpora with their files and hashes, splits, tokeniser, versions."""

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Open the store that `write` committed to `folder`.

        Raises:
            ValueError: its description is missing or damaged.
        """
        try:
            manifest = storage.read_json(folder / _STORE)
        except OSError as error:
            raise _damaged(folder / _STORE, f"it cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise _damaged(folder / _STORE, str(error)) from None
        if not _describes_store(manifest):
            raise _damaged(folder / _STORE, "it does not describe a prepared corpus")
        return cls(folder, manifest)

    @property
    def sha256(self) -> str:
        """SHA-256 of the tokens of all splits and of the tokeniser; independent of the machine."""
        return str(self.manifest["sha256"])

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.manifest["vocabulary"])

    @property
    def documents(self) -> int:
        """Documents in all splits."""
        return sum(int(split["documents"]) for split in self.manifest["splits"].values())

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What made the tokens, to read generated ids with."""
        if self.manifest["tokenizer"] == "bytes":
            return ByteTokenizer()
        if (end := self.manifest.get("end")) is not None:
            return LibraryTokenizer.load(self.folder / TOKENIZER, int(end), self.vocabulary)
        if not self._is_text:
            return IdTokenizer(self.vocabulary)
        return BpeTokenizer.load(self.folder / TOKENIZER)

    def split(self, name: SplitName) -> TokenSplit:
        """Map the tokens of a split into memory.

        Raises:
            ValueError: a file is missing, was truncated, is none that `write` made, or does not fit
                the others.
        """
        described = self.manifest["splits"][name]
        tokens, documents = described["tokens"], described["documents"]
        opened = self._own_tokens(name) if self._is_text else self._pointed_tokens(name)
        offsets = _numbers(self.folder / f"{name}.offsets", documents + 1)
        follow = offsets[0] == 0 and offsets[-1] == tokens
        if not follow or any((np.diff(part) < 1).any() for _, part in blocks(offsets, 1)):
            raise _damaged(
                self.folder / f"{name}.offsets",
                f"documents do not follow one another up to token {tokens}",
            )
        if not self._is_text:
            zero = np.zeros(1, dtype=np.int64)
            return TokenSplit(
                tokens=opened,
                offsets=offsets,
                document_bytes=np.broadcast_to(zero, documents),
                token_bytes=self.tokenizer.token_bytes,
            )
        token_bytes = _numbers(self.folder / _TOKEN_BYTES, self.vocabulary)
        scale = described["bytes"] / described["spelled"] if described.get("spelled") else 1
        return TokenSplit(
            tokens=opened,
            offsets=offsets,
            document_bytes=_numbers(self.folder / f"{name}.bytes", documents),
            token_bytes=token_bytes if scale == 1 else token_bytes * scale,
        )

    @property
    def _is_text(self) -> bool:
        return "files" not in self.manifest

    def _own_tokens(self, name: SplitName) -> Ids:
        path = self.folder / f"{name}.tokens"
        dtype = np.dtype(self.manifest["dtype"])
        expected = self.manifest["splits"][name]["tokens"] * dtype.itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise _damaged(path, f"it has {size} bytes, expected {expected}")
        return np.memmap(path, dtype=dtype, mode="r")

    def _pointed_tokens(self, name: SplitName) -> PointedTokens:
        files = [IdFile(**one) for one in self.manifest["files"]]
        stretches = [Stretch(*one) for one in self.manifest["splits"][name]["stretches"]]
        for index in {one.file for one in stretches}:
            size = os.path.getsize(files[index].path) if os.path.isfile(files[index].path) else 0
            if size != files[index].bytes:
                raise ValueError(
                    f"{files[index].path} has {size} bytes, expected {files[index].bytes}: it "
                    "changed since it was prepared; restore it or run the command again"
                )
        found = PointedTokens(files, stretches)
        tokens = self.manifest["splits"][name]["tokens"]
        if len(found) != tokens:
            raise _damaged(self.folder / _STORE, f"its stretches have {len(found)} of {tokens} ids")
        return found


def _damaged(path: Path, problem: str) -> ValueError:
    return ValueError(
        f"{path} is damaged: {problem}; delete {path.parent} and run the same command again"
    )


def _describes_store(manifest: Any) -> bool:
    match manifest:
        case {
            "sha256": str(),
            "tokenizer": str(),
            "vocabulary": int(vocabulary),
            "dtype": "|u1" | "<u2" | "<u4",
            "splits": {"train": train, "validation": validation, "test": test},
        }:
            counted = [
                one.get(key) if isinstance(one, dict) else None
                for one in (train, validation, test)
                for key in ("tokens", "documents", "bytes")
            ]
            return (
                vocabulary > 0
                and all(isinstance(n, int) and n >= 0 for n in counted)
                and _describes_files(manifest)
            )
    return False


def _describes_files(manifest: Mapping[str, Any]) -> bool:
    """Return whether every stretch of a store of ids lies in one of its files."""
    if "files" not in manifest:
        return not str(manifest["tokenizer"]).startswith("ids:")
    try:
        files = [IdFile(**one) for one in manifest["files"]]
        if not all(
            isinstance(one.path, str)
            and one.dtype in DTYPES
            and all(type(n) is int and n >= 0 for n in (one.offset, one.tokens))
            for one in files
        ):
            return False
        return all(
            type(file) is type(start) is type(stop) is int
            and 0 <= file < len(files)
            and 0 <= start < stop <= files[file].tokens
            for split in SPLITS
            for file, start, stop in manifest["splits"][split]["stretches"]
        )
    except (TypeError, ValueError, KeyError):
        return False


def _numbers(path: Path, length: int) -> NDArray[np.int64]:
    try:
        return mapped_numbers(path, length)
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def describe(
    vocabulary: int, splits: Mapping[SplitName, Mapping[str, Any]], tokenizer: str
) -> dict[str, Any]:
    """Return what the description of every store begins with, from that of its splits.

    `tokenizer` is what decides how tokens are read, besides their ids.
    """
    hashes: dict[str, str] = {name: split["sha256"] for name, split in splits.items()}
    hashes["tokenizer"] = tokenizer
    return {
        "sha256": hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
        "vocabulary": vocabulary,
        "dtype": "|u1" if vocabulary <= 1 << 8 else id_dtype(vocabulary).str,
        "splits": splits,
    }


def write_description(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write what a store tells of itself, and is opened by."""
    (folder / _STORE).write_text(storage.to_json(manifest, indent=2) + "\n")


Written = tuple[tuple[int, int, int], ...]
"""Tokens, documents and UTF-8 bytes of text of each split so far."""
NOTHING: Written = ((0, 0, 0),) * 3


class StoreWriter:
    """Appends documents to the files of a store, behind what was `written` of them before.

    Raises:
        ValueError: the files have less than that.
    """

    def __init__(self, folder: Path, data: DataConfig, written: Written = NOTHING) -> None:
        self._folder = folder
        dtype = np.dtype("u1") if data.vocabulary <= 1 << 8 else id_dtype(data.vocabulary)
        assert data.end is not None, "text has an id that ends documents"
        end = np.array([data.end], dtype=dtype).tobytes()
        with ExitStack() as stack:
            self._splits = [
                _SplitWriter(folder / name, end, dtype, before, stack)
                for name, before in zip(SPLITS, written, strict=True)
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)

    def append(self, split: int, ids: Ids, text_bytes: int, *, last: bool) -> None:
        """Append a part of a document to a split, and where it is the last one, its end."""
        self._splits[split].append(ids, text_bytes, last=last)

    @property
    def tokens(self) -> int:
        """Tokens of all splits."""
        return sum(one.tokens for one in self._splits)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of text of all splits."""
        return sum(one.bytes for one in self._splits)

    def flushed(self) -> Written:
        """Hand all that was appended to the system, and return how much that is."""
        for one in self._splits:
            one.flush()
        return tuple((one.tokens, one.documents, one.bytes) for one in self._splits)

    def finished(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Write what made the tokens beside them, and return what describes the store.

        To be called once the files are closed.
        """
        splits = {name: one.described() for name, one in zip(SPLITS, self._splits, strict=True)}
        with open(self._folder / _TOKEN_BYTES, "wb") as file:
            write_numbers(file, tokenizer.token_bytes)
        specification = "bytes"
        if isinstance(tokenizer, LibraryTokenizer):
            specification = tokenizer.write(self._folder / TOKENIZER)
            if not isinstance(tokenizer, BpeTokenizer):
                for one, split in zip(self._splits, splits.values(), strict=True):
                    split["spelled"] = one.spelled(tokenizer.token_bytes)
        return describe(tokenizer.vocabulary, splits, specification)


class _SplitWriter:
    """Appends documents to the files of one split, which a stack closes."""

    def __init__(
        self,
        path: Path,
        end: bytes,
        dtype: np.dtype[Any],
        written: tuple[int, int, int],
        stack: ExitStack,
    ) -> None:
        self._dtype, self._end = dtype, end
        self.tokens, self.documents, self.bytes = tokens, documents, _ = written
        self._begun = self.bytes
        """Bytes of all documents before the one that is under way."""
        self._path, starts = path.with_suffix(".tokens"), path.with_suffix(".offsets")
        self._file = stack.enter_context(reopened(self._path, tokens * dtype.itemsize))
        begun = reopened(starts, 8 * (documents + (documents > 0)))
        self._starts = stack.enter_context(begun)
        sizes = reopened(path.with_suffix(".bytes"), 8 * documents)
        self._sizes = stack.enter_context(sizes)
        with open(self._path, "rb") as before:
            self._hash = hashlib.file_digest(before, "sha256")
        if not documents:
            self._starts.write(bytes(8))

    def append(self, ids: Ids, text_bytes: int, *, last: bool) -> None:
        content = ids.astype(self._dtype, copy=False).tobytes() + (self._end if last else b"")
        self._file.write(content)
        self._hash.update(content)
        self.tokens += len(ids) + last
        self.bytes += text_bytes
        if last:
            self.documents += 1
            self._starts.write(self.tokens.to_bytes(8, "little"))
            self._sizes.write((self.bytes - self._begun).to_bytes(8, "little"))
            self._begun = self.bytes

    def flush(self) -> None:
        for file in (self._file, self._starts, self._sizes):
            file.flush()

    def spelled(self, token_bytes: NDArray[np.int64]) -> int:
        """Return the UTF-8 bytes that the ids stand for, which may be others than were read."""
        ids = np.memmap(self._path, dtype=self._dtype, mode="r")
        return sum(int(token_bytes[part].sum()) for _, part in blocks(ids))

    def described(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.bytes,
            "sha256": self._hash.hexdigest(),
        }
