"""Tokens on disk, memory-mapped: one file of ids per split, beside the starts of its documents.

The ids of a corpus of ids stay in the files of others; the store knows which stretches of them a
split is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from isoflop import storage
from isoflop.data.ids import DTYPES, IdFile, PointedTokens, Stretch
from isoflop.data.tables import NumberWriter, blocks, mapped_numbers
from isoflop.data.tokenizer import BpeTokenizer, ByteTokenizer, Ids, IdTokenizer, Tokenizer

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, SplitName, SplitName] = ("train", "validation", "test")

_STORE = "store.json"
_TOKENIZER = "tokenizer.json"
_TOKEN_BYTES = "token_bytes.npy"


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """The token stream of one split: its documents one after the other, those of text each ended
    by id 0."""

    tokens: Ids | PointedTokens
    """(tokens,) memory-mapped, uint8, uint16 or uint32; or those of files of ids."""
    offsets: NDArray[np.int64]
    """(documents + 1,) where each document starts; the last is the number of tokens."""
    document_bytes: NDArray[np.int64]
    """(documents,) UTF-8 bytes of text of each document; 0 where it is ids alone."""
    token_bytes: NDArray[np.int64]
    """(V,) UTF-8 bytes of text that each id stands for; 0 for id 0 and where that is not known."""

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
        if not self._is_text:
            return IdTokenizer(self.vocabulary)
        return BpeTokenizer.load(self.folder / _TOKENIZER)

    def split(self, name: SplitName) -> TokenSplit:
        """Map the tokens of a split into memory.

        Raises:
            ValueError: a file is missing, was truncated, is none that `write` made, or does not fit
                the others.
        """
        described = self.manifest["splits"][name]
        tokens, documents = described["tokens"], described["documents"]
        opened = self._own_tokens(name) if self._is_text else self._pointed_tokens(name)
        offsets = _numbers(self.folder / f"{name}.offsets.npy", documents + 1)
        follow = offsets[0] == 0 and offsets[-1] == tokens
        if not follow or any((np.diff(part) < 1).any() for _, part in blocks(offsets, 1)):
            raise _damaged(
                self.folder / f"{name}.offsets.npy",
                f"documents do not follow one another up to token {tokens}",
            )
        if not self._is_text:
            zero = np.zeros(1, dtype=np.int64)
            return TokenSplit(
                tokens=opened,
                offsets=offsets,
                document_bytes=np.broadcast_to(zero, documents),
                token_bytes=np.broadcast_to(zero, self.vocabulary),
            )
        return TokenSplit(
            tokens=opened,
            offsets=offsets,
            document_bytes=_numbers(self.folder / f"{name}.bytes.npy", documents),
            token_bytes=_numbers(self.folder / _TOKEN_BYTES, self.vocabulary),
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


def id_dtype(vocabulary: int) -> np.dtype[Any]:
    """Return the smallest type of 16 or 32 bits that holds every id of a vocabulary."""
    return np.dtype("<u4" if vocabulary > 1 << 16 else "<u2")


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


def write(
    folder: Path,
    tokenizer: Tokenizer,
    texts: Iterable[tuple[int, bytes]],
    manifest: dict[str, Any],
    tell: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Tokenise `texts` into `folder`, which `storage.commit_folder` commits for the caller.

    `texts` are index into SPLITS and UTF-8 text of each document, `manifest` what else to record.
    `tell` is told now and then how many bytes of text were read, and how many tokens they gave.
    """
    small = tokenizer.vocabulary <= 1 << 8
    dtype = np.dtype("u1") if small else id_dtype(tokenizer.vocabulary)
    with ExitStack() as stack:
        writers = [stack.enter_context(_SplitWriter(folder, name, dtype)) for name in SPLITS]
        for batch in _batches(texts):
            encoded = tokenizer.encode([text for _, text in batch])
            for (split, text), ids in zip(batch, encoded, strict=True):
                writers[split].append(ids, len(text))
            tell(sum(one.bytes for one in writers), sum(one.tokens for one in writers))
    splits = {name: writer.described() for name, writer in zip(SPLITS, writers, strict=True)}
    with NumberWriter(folder / _TOKEN_BYTES) as numbers:
        numbers.extend(tokenizer.token_bytes)
    specification = "bytes"
    if isinstance(tokenizer, BpeTokenizer):
        (folder / _TOKENIZER).write_bytes(tokenizer.specification.encode())
        specification = hashlib.sha256(tokenizer.specification.encode()).hexdigest()
    write_description(folder, {**describe(tokenizer.vocabulary, splits, specification), **manifest})


class _SplitWriter:
    """Appends documents to the files of one split."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._hash = hashlib.sha256()
        self.tokens = self.bytes = 0
        with ExitStack() as stack:
            self._file = stack.enter_context(open(folder / f"{name}.tokens", "wb"))
            self._offsets = stack.enter_context(NumberWriter(folder / f"{name}.offsets.npy"))
            self._sizes = stack.enter_context(NumberWriter(folder / f"{name}.bytes.npy"))
            self._stack = stack.pop_all()
        self._offsets.add(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)

    def append(self, ids: Ids, text_bytes: int) -> None:
        content = ids.astype(self._dtype, copy=False).tobytes() + bytes(self._dtype.itemsize)
        self._file.write(content)
        self._hash.update(content)
        self.tokens += len(ids) + 1
        self.bytes += text_bytes
        self._offsets.add(self.tokens)
        self._sizes.add(text_bytes)

    def described(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "documents": self._sizes.count,
            "bytes": self.bytes,
            "sha256": self._hash.hexdigest(),
        }


def _batches(texts: Iterable[tuple[int, bytes]]) -> Iterable[list[tuple[int, bytes]]]:
    """Group documents into batches of about a mebibyte, which a tokeniser encodes in parallel."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    for item in texts:
        batch.append(item)
        size += len(item[1])
        if size >= 1 << 20:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
