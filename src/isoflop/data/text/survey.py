"""The first reading of a corpus of text: what is in it, and the split of each document.

What is of the length of the documents lies in files, mapped into memory.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoflop.config import DataConfig
from isoflop.data import splitting
from isoflop.data.corpora import Corpus, documents
from isoflop.data.ids.build import Teller
from isoflop.data.pieces import Text
from isoflop.data.tables import blocks


class Surveyed(NamedTuple):
    """The documents that the first reading found."""

    digests: NDArray[np.uint8]
    """(documents, 16)."""
    splits: NDArray[np.uint8]
    """(documents,)."""


def surveyed(folder: Path, mode: Literal["r", "r+"] = "r") -> Surveyed:
    """Map what `survey` wrote into `folder`."""
    digests = np.asarray(np.memmap(folder / "digests", "u1", "r"))
    splits = np.asarray(np.memmap(folder / "splits", "u1", mode))
    return Surveyed(digests.reshape(-1, splitting.DIGEST_BYTES), splits)


def text_bytes(corpora: Sequence[Corpus]) -> int | None:
    """Return about how many bytes of text there are; None where no file tells."""
    sources = [source for corpus in corpora for source in corpus.sources]
    if any(source.kind not in ("text", "jsonl") for source in sources):
        return None
    return sum(os.path.getsize(source.path) for source in sources if os.path.exists(source.path))


def survey(
    data: DataConfig, corpora: Sequence[Corpus], folder: Path, teller: Teller
) -> tuple[list[int], list[dict[str, Any]]]:
    """Read `corpora`, write into `folder` what is of the length of their documents, and split them.

    Returns:
        UTF-8 bytes of text of each split, and what describes each corpus.
    """
    skipped: Counter[tuple[int, str]] = Counter()
    done = 0
    # By corpus and source: documents, their bytes, and SHA-256 over them one after the other.
    counts: Counter[tuple[int, int]] = Counter()
    lengths: Counter[tuple[int, int]] = Counter()
    hashes: defaultdict[tuple[int, int], Any] = defaultdict(hashlib.sha256)
    with (
        open(folder / "digests", "wb") as digests,
        open(folder / "sizes", "wb") as sizes,
        open(folder / "splits", "wb") as splits,
    ):
        for document in documents(corpora, skipped):
            source, size = (document.corpus, document.source), len(document.text)
            digests.write(splitting.digest(document.text, hashes[source]))
            sizes.write(size.to_bytes(8, "little"))
            splits.write(bytes([splitting.TRAIN]))
            counts[source] += 1
            lengths[source] += size
            done += size
            teller.at(done)
    of_documents = np.asarray(np.memmap(folder / "sizes", "<i8", "r"))
    found = surveyed(folder, "r+")
    splitting.assign(
        found.digests,
        of_documents,
        found.splits,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
        scratch=folder,
    )
    in_splits = np.zeros(3, dtype=np.int64)
    for first, some in blocks(of_documents):
        of = found.splits[first : first + len(some)]
        in_splits += np.bincount(of, some, 3).astype(np.int64)
    described = [
        {
            "name": corpus.name,
            "versions": dict(corpus.versions),
            "skipped": {why: n for (of, why), n in sorted(skipped.items()) if of == index},
            "files": [
                {
                    "name": source.name,
                    "documents": counts[index, number],
                    "bytes": lengths[index, number],
                    "sha256": hashes[index, number].hexdigest(),
                }
                for number, source in enumerate(corpus.sources)
                if (index, number) in counts
            ],
        }
        for index, corpus in enumerate(corpora)
    ]
    return in_splits.tolist(), described


def again(
    corpora: Sequence[Corpus], found: Surveyed, first: int = 0
) -> Iterator[tuple[int, bytes, Text]]:
    """Read the documents from the `first` on once more: their splits, digests and texts.

    Raises:
        ValueError: they are not those of the survey.
    """
    number = 0
    for document in documents(corpora, Counter()):
        if number >= first:
            digest = splitting.digest(document.text)
            if number >= len(found.splits) or found.digests[number].tobytes() != digest:
                raise _changed(corpora)
            yield int(found.splits[number]), digest, document.text
        number += 1
    if number != len(found.splits):
        raise _changed(corpora)


def _changed(corpora: Sequence[Corpus]) -> ValueError:
    names = ", ".join(repr(corpus.name) for corpus in corpora)
    return ValueError(f"corpus {names} changed while it was read; run the command again")
