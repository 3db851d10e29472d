"""From files of token ids to a token store that points at them: one reading, no copy.

There is no text to tell documents by, so each file is cut into pieces of equal size, which are
split as documents are. Where an id ends documents, pieces end with it and hold many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from isoflop.config import DataConfig
from isoflop.data import splitting
from isoflop.data.corpora import Corpus, stamp
from isoflop.data.ids.files import IdFile, Stretch, id_file
from isoflop.data.pieces import FEWEST, MOST
from isoflop.data.store import SPLITS, describe
from isoflop.data.tables import id_dtype, write_numbers

_PIECE_TOKENS = 4096


class Teller(Protocol):
    """Is told now and then how far a preparation is."""

    def at(self, done: int, tokens: int | None = None) -> None:
        """Hear of how much was read, and of how many tokens."""


@dataclass(frozen=True)
class _Piece:
    """A stretch of a file, and what was found in it."""

    stretch: Stretch
    digest: bytes
    """Of its ids, whatever the file spells them in."""
    documents: slice
    """Where in the file of ends those of its documents stand, counted from its start."""

    @property
    def tokens(self) -> int:
        return self.stretch.stop - self.stretch.start


def build_from_ids(
    data: DataConfig,
    corpora: Sequence[Corpus],
    folder: Path,
    telling: Callable[[int], Teller],
) -> dict[str, Any]:
    """Write into `folder` what a store needs beside the ids, and return its description.

    `telling` makes, from how many ids there are, what is told how many were read.

    Raises:
        ValueError: a file is malformed or changed while it was read, an id is not of the stated
            vocabulary, or there are fewer than three different pieces; one line.
    """
    files = [[id_file(source.path) for source in corpus.sources] for corpus in corpora]
    everything = [one for of_corpus in files for one in of_corpus]
    teller = telling(sum(one.tokens for one in everything))
    pieces: list[_Piece] = []
    counted: list[int] = []
    first = 0
    # Ends of documents may be more than memory holds.
    all_ends = folder / "ends"
    with open(all_ends, "wb") as ends:
        for of_corpus in files:
            for stretch in _cut(of_corpus, first, data.end):
                pieces.append(_read(everything, stretch, data, ends))
                counted.append(pieces[-1].tokens)
                teller.at(sum(counted), sum(counted))
            first += len(of_corpus)
    splits = np.zeros(len(pieces), dtype=np.uint8)
    splitting.assign(
        np.frombuffer(b"".join(one.digest for one in pieces), "u1").reshape(-1, 16),
        np.array(counted),
        splits,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
        scratch=folder,
    )
    of_split = [
        [one for one, mine in zip(pieces, splits, strict=True) if mine == split]
        for split in range(len(SPLITS))
    ]
    for name, mine in zip(SPLITS, of_split, strict=True):
        with open(folder / f"{name}.offsets", "wb") as offsets:
            write_numbers(offsets, np.zeros(1))
            before = 0
            for one in mine:
                write_numbers(offsets, np.memmap(all_ends, "<i8", "r")[one.documents] + before)
                before += one.tokens
    all_ends.unlink()
    for corpus in corpora:
        for source in corpus.sources:
            if stamp(source.path) != source.stamp:
                raise ValueError(f"{source.path} changed while it was read; run again")
    described = {name: _described(mine) for name, mine in zip(SPLITS, of_split, strict=True)}
    return {
        **describe(data.vocabulary, described, data.tokenizer_name),
        "files": [vars(one) for one in everything],
        "corpora": [
            {"name": corpus.name, "files": [source.name for source in corpus.sources]}
            for corpus in corpora
        ],
    }


def _described(pieces: Sequence[_Piece]) -> dict[str, Any]:
    of_pieces = hashlib.sha256()
    for one in pieces:
        of_pieces.update(one.tokens.to_bytes(8, "little") + one.digest)
    return {
        "tokens": sum(one.tokens for one in pieces),
        "documents": sum(one.documents.stop - one.documents.start for one in pieces),
        "bytes": 0,
        "sha256": of_pieces.hexdigest(),
        "stretches": [list(one.stretch) for one in pieces],
    }


def _cut(files: Sequence[IdFile], number: int, end: int | None) -> Iterator[Stretch]:
    """Cut the files of a corpus, the first of them `number`, into about 20 to 200 stretches.

    None goes over the end of a file, so that there are more where there are many files.
    """
    total = sum(one.tokens for one in files)
    size = max(1, total // min(MOST, max(FEWEST, total // _PIECE_TOKENS)))
    for index, file in enumerate(files, start=number):
        start = 0
        while start < file.tokens:
            wanted = min(start + size, file.tokens)
            stop = wanted if end is None else _behind_end(file, wanted, size // 2, end)
            yield Stretch(index, start, stop)
            start = stop


def _behind_end(file: IdFile, wanted: int, slack: int, end: int) -> int:
    """Return where the document that token `wanted` - 1 is of ends; `wanted` if not in `slack`."""
    for first, ids in file.blocks(wanted - 1, min(wanted + slack, file.tokens)):
        found = np.flatnonzero(ids == end)
        if len(found):
            return first + int(found[0]) + 1
    return wanted


def _read(files: Sequence[IdFile], stretch: Stretch, data: DataConfig, ends: IO[bytes]) -> _Piece:
    """Read a stretch of a file, and append where its documents end to `ends`."""
    dtype = id_dtype(data.vocabulary)
    digest = hashlib.blake2b(digest_size=16)
    begin, last, whole = ends.tell() // 8, 0, stretch.stop - stretch.start
    for first, ids in files[stretch.file].blocks(stretch.start, stretch.stop):
        _check(files[stretch.file], first, ids, data)
        digest.update(ids.astype(dtype, copy=False).tobytes())
        found = np.flatnonzero(ids == (-1 if data.end is None else data.end))
        found += first - stretch.start + 1
        write_numbers(ends, found)
        last = int(found[-1]) if len(found) else last
    if last != whole:
        # What no id ends is a document too.
        write_numbers(ends, np.array([whole]))
    return _Piece(stretch, digest.digest(), slice(begin, ends.tell() // 8))


def _check(file: IdFile, first: int, ids: Any, data: DataConfig) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= data.vocabulary:
        wrong = high if high >= data.vocabulary else low
        place = first + int(np.flatnonzero(ids == wrong)[0])
        raise ValueError(
            f"{file.path} holds the id {wrong} at token {place}, but tokenizer is "
            f"{data.tokenizer_name!r}; expected ids from 0 to {data.vocabulary - 1}: state the "
            "vocabulary that the file was made with"
        )
