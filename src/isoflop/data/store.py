"""Tokens on disk, memory-mapped: one file of ids per split, beside the starts of its documents."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isoflop import storage
from isoflop.data.tokenizer import BpeTokenizer, ByteTokenizer, Ids, Tokenizer

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, SplitName, SplitName] = ("train", "validation", "test")

_STORE = "store.json"
_TOKENIZER = "tokenizer.json"
_TOKEN_BYTES = "token_bytes.npy"


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """The token stream of one split: its documents one after the other, each ended by id 0."""

    tokens: Ids
    """(tokens,) memory-mapped, uint8, uint16 or uint32."""
    offsets: NDArray[np.int64]
    """(documents + 1,) where each document starts; the last is the number of tokens."""
    document_bytes: NDArray[np.int64]
    """(documents,) UTF-8 bytes of text of each document."""
    token_bytes: NDArray[np.int64]
    """(V,) UTF-8 bytes of text that each id stands for; 0 for id 0."""

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
        return BpeTokenizer.load(self.folder / _TOKENIZER)

    def split(self, name: SplitName) -> TokenSplit:
        """Map the tokens of a split into memory.

        Raises:
            ValueError: a file is missing, was truncated, is none that `write` made, or does not fit
                the others.
        """
        path = self.folder / f"{name}.tokens"
        dtype = np.dtype(self.manifest["dtype"])
        described = self.manifest["splits"][name]
        tokens, documents = described["tokens"], described["documents"]
        size = path.stat().st_size if path.is_file() else 0
        if size != tokens * dtype.itemsize:
            raise _damaged(path, f"it has {size} bytes, expected {tokens * dtype.itemsize}")
        offsets = _integers(self.folder / f"{name}.offsets.npy", documents + 1)
        if offsets[0] != 0 or offsets[-1] != tokens or (np.diff(offsets) < 1).any():
            raise _damaged(
                self.folder / f"{name}.offsets.npy",
                f"documents do not follow one another up to token {tokens}",
            )
        return TokenSplit(
            tokens=np.memmap(path, dtype=dtype, mode="r"),
            offsets=offsets,
            document_bytes=_integers(self.folder / f"{name}.bytes.npy", documents),
            token_bytes=_integers(self.folder / _TOKEN_BYTES, self.vocabulary),
        )


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
            return vocabulary > 0 and all(isinstance(n, int) and n >= 0 for n in counted)
    return False


def _integers(path: Path, length: int) -> NDArray[np.int64]:
    """Return the integers that a file of this length holds."""
    try:
        # `np.load` would take pickles (if allowed) and archives for arrays as well.
        with path.open("rb") as file:
            found: NDArray[np.int64] = np.lib.format.read_array(file, allow_pickle=False)
        fits = found.shape == (length,) and found.dtype == np.dtype("<i8") and (found >= 0).all()
    except Exception as error:  # numpy raises what its parser of headers does
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise _damaged(path, f"it is no array ({problem})") from None
    if not fits:
        raise _damaged(path, f"it does not hold {length} whole numbers")
    return found


def write(
    folder: Path,
    tokenizer: Tokenizer,
    texts: Iterable[tuple[int, bytes]],
    manifest: dict[str, Any],
) -> None:
    """Tokenise `texts` into `folder`, which `storage.commit_folder` commits for the caller.

    `texts` are index into SPLITS and UTF-8 text of each document, `manifest` what else to record.
    """
    dtype = np.dtype("u1" if tokenizer.vocabulary <= 1 << 8 else "<u2")
    if tokenizer.vocabulary > 1 << 16:
        dtype = np.dtype("<u4")
    writers = [_SplitWriter(folder, name, dtype) for name in SPLITS]
    try:
        for batch in _batches(texts):
            encoded = tokenizer.encode([text for _, text in batch])
            for (split, text), ids in zip(batch, encoded, strict=True):
                writers[split].append(ids, len(text))
        splits = {name: writer.finish() for name, writer in zip(SPLITS, writers, strict=True)}
    finally:
        for writer in writers:
            writer.file.close()
    hashes: dict[str, str] = {name: split["sha256"] for name, split in splits.items()}
    _write_array(folder / _TOKEN_BYTES, tokenizer.token_bytes)
    hashes["tokenizer"] = "bytes"
    if isinstance(tokenizer, BpeTokenizer):
        (folder / _TOKENIZER).write_bytes(tokenizer.specification.encode())
        hashes["tokenizer"] = hashlib.sha256(tokenizer.specification.encode()).hexdigest()
    described: dict[str, Any] = {
        "sha256": hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
        "vocabulary": tokenizer.vocabulary,
        "dtype": dtype.str,
        "splits": splits,
    }
    (folder / _STORE).write_text(storage.to_json({**described, **manifest}, indent=2) + "\n")


def _write_array(path: Path, array: NDArray[np.int64]) -> None:
    # By way of memory: of a full disk, numpy tells only how many numbers it could not write.
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(content.getvalue())


class _SplitWriter:
    """Appends documents to the files of one split."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self.file = open(folder / f"{name}.tokens", "wb")  # noqa: SIM115 (closed by `write`)
        self._hash = hashlib.sha256()
        self._offsets = [0]
        self._bytes: list[int] = []

    def append(self, ids: Ids, text_bytes: int) -> None:
        content = ids.astype(self._dtype, copy=False).tobytes() + bytes(self._dtype.itemsize)
        self.file.write(content)
        self._hash.update(content)
        self._offsets.append(self._offsets[-1] + len(ids) + 1)
        self._bytes.append(text_bytes)

    def finish(self) -> dict[str, Any]:
        self.file.close()
        for name, numbers in (("offsets", self._offsets), ("bytes", self._bytes)):
            _write_array(self._folder / f"{self._name}.{name}.npy", np.array(numbers, dtype="<i8"))
        return {
            "tokens": self._offsets[-1],
            "documents": len(self._bytes),
            "bytes": sum(self._bytes),
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
