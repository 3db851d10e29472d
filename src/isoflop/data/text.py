"""From a corpus of text to a token store, in steps that need not be done twice.

The first reading finds what is in it, and the split of each document; what is of the length of the
documents lies in files, mapped into memory. What was done is gone on with where it was stopped.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoflop import storage
from isoflop.config import DataConfig
from isoflop.data import splitting, store, tables
from isoflop.data.corpora import Corpus, documents
from isoflop.data.ids.build import Teller
from isoflop.data.pieces import Text, blocks, segments
from isoflop.data.readers import is_url
from isoflop.data.tokenizer import BpeTokenizer, ByteTokenizer, LibraryTokenizer, Tokenizer
from isoflop.frozen import Frozen

SAMPLE_BYTES = 1 << 28
"""UTF-8 bytes of the training split that a vocabulary is learnt from, at most."""

SECONDS_BETWEEN_SAVES = 30.0
"""Time between two times that what was done is made to last."""

BATCH_BYTES = 1 << 22
"""Text that is tokenised at a time, by the library's threads at once."""

UNFINISHED = "unfinished"
_STATE = "state.json"


Telling = Callable[..., Teller]
"""Makes what is told how far a step is: of its name, all bytes, and bytes and tokens before."""


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
    if any(one.kind not in ("text", "jsonl") or is_url(one.path) for one in sources):
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
    for first, some in tables.blocks(of_documents):
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


class _Kept(Frozen):
    """What an unfinished preparation goes on from."""

    bytes: list[int]
    described: list[dict[str, Any]]
    tokenizer: str | None = None
    written: store.Written = store.NOTHING


class _Unfinished:
    """The folder of a preparation, which outlives it once something was saved."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tokens = folder, folder / "tokens"
        self._saved = time.monotonic()
        self.kept: _Kept | None = None
        try:
            surveyed(folder)
            self.kept = _Kept.model_validate_json((folder / _STATE).read_bytes())
        except (OSError, ValueError):
            self.discard()
        storage.make_folder(self.tokens)

    def discard(self) -> None:
        if self.folder.exists():
            storage.discard(self.folder)

    def keep(self, kept: _Kept, writer: store.StoreWriter | None = None) -> None:
        """Make all that was done last, where the last time is long enough ago."""
        if time.monotonic() - self._saved < SECONDS_BETWEEN_SAVES:
            return
        if writer is not None:
            kept = kept.model_copy(update={"written": writer.flushed()})
        for path in (*self.folder.iterdir(), *self.tokens.iterdir()):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        storage.sync_folder(self.tokens)
        storage.write_json(self.folder / _STATE, kept.model_dump(mode="json"))
        self.kept, self._saved = kept, time.monotonic()


def build_from_text(
    data: DataConfig,
    corpora: Sequence[Corpus],
    target: Path,
    tokenizer: Tokenizer | None,
    telling: Telling,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write into `target` what a store of text needs; return what describes it, and its corpora.

    What was done lies in `unfinished` beside it, saved now and then, and is gone on with. It stays
    there until the caller has committed `target`.

    Raises:
        ValueError: a corpus is malformed, changed or too small; nothing stays.
    """
    unfinished = _Unfinished(target.parent / UNFINISHED)
    try:
        described = _build(data, corpora, unfinished, tokenizer, telling)
        for path in unfinished.tokens.iterdir():
            os.link(path, target / path.name)
        return described
    except BaseException as error:
        if unfinished.kept is None or isinstance(error, ValueError):
            unfinished.discard()
        raise


def _build(
    data: DataConfig,
    corpora: Sequence[Corpus],
    unfinished: _Unfinished,
    tokenizer: Tokenizer | None,
    telling: Telling,
) -> tuple[dict[str, Any], dict[str, Any]]:
    kept = unfinished.kept
    if kept is None:
        teller = telling("reading", text_bytes(corpora))
        in_splits, described = survey(data, corpora, unfinished.folder, teller)
        kept = _Kept(bytes=in_splits, described=described)
        unfinished.keep(kept)
    found = surveyed(unfinished.folder)
    learnt = tokenizer is None and data.tokenizer != "bytes"
    if learnt and kept.tokenizer is None:
        texts = _sample(corpora, found, kept.bytes[splitting.TRAIN], telling)
        trained = BpeTokenizer.train(texts, data.vocabulary)
        kept = kept.model_copy(update={"tokenizer": trained.specification})
        unfinished.keep(kept)
    if learnt and kept.tokenizer is not None:
        tokenizer = BpeTokenizer(kept.tokenizer)
    tokenizer = tokenizer or ByteTokenizer()
    tokens, documents, done = (sum(one) for one in zip(*kept.written, strict=True))
    teller = telling("tokenising", sum(kept.bytes), (done, tokens))
    texts_again = ((split, text) for split, _, text in again(corpora, found, documents))
    cuts = tokenizer.cuts if isinstance(tokenizer, LibraryTokenizer) else b" \n"
    with store.StoreWriter(unfinished.tokens, data, kept.written) as writer:
        for batch in _batches(texts_again, cuts):
            ids = tokenizer.encode([part.text for part in batch])
            for part, mine in zip(batch, ids, strict=True):
                writer.append(part.split, mine, len(part.text), last=part.last)
            teller.at(writer.bytes, writer.tokens)
            if batch[-1].last:
                unfinished.keep(kept, writer)
    more: dict[str, Any] = {"corpora": kept.described}
    if learnt and kept.bytes[splitting.TRAIN] > SAMPLE_BYTES:
        more["learnt_from_bytes"] = SAMPLE_BYTES
    return writer.finished(tokenizer), more


class _Part(NamedTuple):
    """A segment of a document."""

    split: int
    text: bytes
    last: bool
    """Whether the document ends with it."""


def _batches(texts: Iterable[tuple[int, Text]], cuts: bytes) -> Iterator[list[_Part]]:
    """Group segments of documents, given with their splits, into batches of about BATCH_BYTES."""
    batch: list[_Part] = []
    size = 0
    for split, text in texts:
        left = len(text)
        for segment in segments(text, cuts):
            left -= len(segment)
            batch.append(_Part(split, segment, not left))
            size += len(segment)
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _sample(
    corpora: Sequence[Corpus], found: Surveyed, total: int, telling: Telling
) -> Iterator[bytes]:
    """Yield what a vocabulary is learnt from: the training split of `total` bytes, or a part.

    Which documents is up to their digests, so that they come from everywhere in the corpora. Of
    documents that are large beside the sample, segments are drawn likewise.
    """
    teller = telling("learning the vocabulary", min(total, SAMPLE_BYTES))
    limit = (1 << 64) * SAMPLE_BYTES // max(1, total)
    done = 0
    for split, digest, text in again(corpora, found):
        if split != splitting.TRAIN:
            continue
        large = len(text) > SAMPLE_BYTES // 4
        for part in segments(text) if large else (text,):
            drawn = splitting.digest(part) if large else digest
            if int.from_bytes(drawn[:8], "little") >= limit:
                continue
            if done and done + len(part) > SAMPLE_BYTES:
                return
            done += len(part)
            yield b"".join(blocks(part))
            teller.at(done)
