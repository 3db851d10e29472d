"""From a description of the data to the token store, once; afterwards from the cache."""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from isoflop import storage
from isoflop.config import DataConfig, canonical, fingerprint
from isoflop.data import splitting, store
from isoflop.data.corpora import Corpus, documents, locate
from isoflop.data.ids.build import build_from_ids
from isoflop.data.store import TokenStore
from isoflop.data.tokenizer import BpeTokenizer, ByteTokenizer, Tokenizer
from isoflop.data.windows import WholeWindows
from isoflop.notation import count, duration, percent

FORMAT = 1
"""Raised when the same data would give other files."""

SAMPLE_BYTES = 1 << 28
"""UTF-8 bytes of the training split that a vocabulary is learnt from, at most."""

SECONDS_BETWEEN = 5.0
"""Time between two times that it is told how far a preparation is."""


@dataclass(frozen=True)
class Preparing:
    """How far the preparation of a corpus is."""

    doing: str
    """What is done at present, such as `tokenising`."""
    done: int
    """UTF-8 bytes of text that were read for it, or ids where the corpus is ids."""
    total: int | None
    """All of them, where that is known."""
    tokens: int | None
    """Tokens so far; None where none are made."""
    seconds: float
    """Since this was begun."""

    @property
    def words(self) -> str:
        """The same, as a person is told it: what, how much, how fast, and the time left."""
        parts = [self.doing]
        if self.tokens is None:
            parts.append(f"{count(self.done)} bytes of text")
        else:
            parts.append(
                f"{count(self.tokens)} tokens, {count(self.tokens / self.seconds)} a second"
            )
        if self.total is not None and self.done:
            left = max(0.0, self.total / self.done - 1) * self.seconds
            parts.append(
                f"{percent(min(1.0, self.done / self.total), 0)}, about {duration(left)} left"
            )
        return ", ".join(parts)


Tell = Callable[[Preparing], None]
"""Is told how far a preparation is, every few seconds."""


def _silent(_: Preparing) -> None:
    """Tell nobody."""


class _Teller:
    """Tells how far one step of a preparation is, where the last time is long enough ago."""

    def __init__(self, tell: Tell, doing: str, total: int | None) -> None:
        self._tell, self._doing, self._total = tell, doing, total
        self._begun = self._last = time.monotonic()

    def at(self, done: int, tokens: int | None = None) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN:
            self._last = now
            self._tell(Preparing(self._doing, done, self._total, tokens, now - self._begun))


def prepare(
    data: DataConfig, cache: Path, tokenizer: Tokenizer | None = None, *, tell: Tell = _silent
) -> TokenStore:
    """Read, split and tokenise the corpora of `data`, or open what was prepared before.

    The store lies in `cache/<key>/tokens`, where the key is a hash of `data` (but its windows and
    their length) and of the path, size, modification and change time of every file, so that
    opening it again reads no text. An edit that leaves all of these as they are goes unnoticed;
    any other gives another store, and other content another `TokenStore.sha256`. A hub data set
    is asked for once. Documents are read two times (three with BPE), never held together in
    memory. When two processes prepare the same store, the second waits and opens it.

    With the `tokenizer` of another store these corpora are read with that one. A vocabulary is
    learnt from a sample of the training split where that has more than SAMPLE_BYTES. `tell` is told
    every few seconds how far this is.

    Raises:
        ValueError: a corpus is missing, empty, binary, malformed or too small, or the tokeniser has
            another vocabulary; one line.
        StorageError: the cache cannot be written.
    """
    if tokenizer is not None and tokenizer.vocabulary != data.vocabulary:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocabulary} ids, but the data asks for "
            f"{data.tokenizer!r} of {data.vocabulary}; expected equally many"
        )
    corpora = locate(data)
    folder = _folder(data, corpora, cache, tokenizer)
    if not folder.exists():
        storage.make_folder(folder.parent)
        with FileLock(folder.parent / "lock"):
            if not folder.exists():
                storage.remove_leftovers(folder.parent)
                storage.commit_folder(
                    folder, lambda target: _build(data, corpora, target, tokenizer, tell)
                )
    opened = TokenStore.open(folder)
    tokens = int(opened.manifest["splits"]["train"]["tokens"])
    if tokens <= data.sequence_length:
        raise ValueError(
            f"sequence_length is {data.sequence_length}, but the training split has {tokens} "
            "tokens; expected more than one sequence: use a larger corpus or shorter sequences"
        )
    train_tokens(opened, data)  # refuses documents that hold no window
    return opened


def prepared(data: DataConfig, cache: Path) -> TokenStore | None:
    """Return what `prepare` left in the cache; None where it has not, or cannot be read."""
    try:
        folder = _folder(data, locate(data), cache)
        return TokenStore.open(folder) if folder.exists() else None
    except (ValueError, OSError):
        return None


def train_tokens(store: TokenStore, data: DataConfig) -> int:
    """Return the tokens of the training split that an epoch goes through.

    All of them where windows are cut from the stream; where they are cut from documents, those
    that the windows hold.

    Raises:
        ValueError: no document holds a window.
    """
    if data.windows == "stream":
        return int(store.manifest["splits"]["train"]["tokens"])
    whole = WholeWindows(store.split("train"), data.sequence_length)
    return whole.windows * data.sequence_length


def describe(data: DataConfig, cache: Path, *, tell: Tell = _silent) -> int | str:
    """Return the `train_tokens` of a corpus for planning, or why it cannot be had here.

    Local corpora are prepared for it, as a run would do; a hub data set is not downloaded.

    Raises:
        ValueError: the corpus is here, but nothing can be trained on it; see `prepare`.
    """
    try:
        corpora = locate(data)
    except (ValueError, OSError) as error:
        return str(error)
    try:
        remote = [c.name for c in corpora if any(s.kind == "hub" for s in c.sources)]
        if remote and not _folder(data, corpora, cache).exists():
            return (
                f"corpus {remote[0]} has not been downloaded yet; a run does it, "
                "with the package of pip install 'isoflop[datasets]'"
            )
        return train_tokens(prepare(data, cache, tell=tell), data)
    except OSError as error:
        return str(error)


def _folder(
    data: DataConfig, corpora: Sequence[Corpus], cache: Path, tokenizer: Tokenizer | None = None
) -> Path:
    of_files = hashlib.sha256()
    for corpus in corpora:
        for source in corpus.sources:
            of_files.update(f"{source.kind}\0{source.path}\0{source.stamp}\n".encode())
    description = {**canonical(data), "sequence_length": None}
    description.pop("windows", None)
    parts = [FORMAT, sorted(description.items()), of_files.hexdigest(), _versions(data)]
    if isinstance(tokenizer, BpeTokenizer):
        parts.append(hashlib.sha256(tokenizer.specification.encode()).hexdigest())
    return storage.inside(cache, fingerprint(parts)[:20], "tokens")


def _versions(data: DataConfig) -> str:
    return "" if data.tokenizer == "bytes" or not data.is_text else version("tokenizers")


class _Survey(NamedTuple):
    """What the first reading found."""

    digests: bytearray
    """Of each document, one after the other."""
    splits: NDArray[np.uint8]
    """Of each document, (documents,)."""
    bytes: tuple[int, int, int]
    """UTF-8 bytes of text in each split."""
    described: list[dict[str, Any]]
    """Each corpus."""


def _build(
    data: DataConfig,
    corpora: Sequence[Corpus],
    folder: Path,
    tokenizer: Tokenizer | None,
    tell: Tell,
) -> None:
    if not data.is_text:
        of_ids = {"format": FORMAT, "tokenizer": data.tokenizer, "split_seed": data.split_seed}
        described = build_from_ids(data, corpora, folder, partial(_Teller, tell, "reading ids"))
        store.write_description(folder, {**described, **of_ids})
        return
    survey = _survey(data, corpora, _Teller(tell, "reading", _text_bytes(corpora)))
    manifest = {
        "format": FORMAT,
        "tokenizer": data.tokenizer,
        "tokenizers": _versions(data) or None,
        "split_seed": data.split_seed,
        "corpora": survey.described,
    }
    if tokenizer is None and data.tokenizer != "bytes":
        if survey.bytes[splitting.TRAIN] > SAMPLE_BYTES:
            manifest["learnt_from_bytes"] = SAMPLE_BYTES
        tokenizer = BpeTokenizer.train(_sample(corpora, survey, tell), data.vocabulary)
    teller = _Teller(tell, "tokenising", sum(survey.bytes))
    texts = _again(corpora, survey)
    store.write(folder, tokenizer or ByteTokenizer(), texts, manifest, teller.at)


def _text_bytes(corpora: Sequence[Corpus]) -> int | None:
    """Return about how many bytes of text there are; None where no file tells."""
    sources = [source for corpus in corpora for source in corpus.sources]
    if any(source.kind not in ("text", "jsonl") for source in sources):
        return None
    return sum(os.path.getsize(source.path) for source in sources if os.path.exists(source.path))


def _sample(corpora: Sequence[Corpus], survey: _Survey, tell: Tell) -> Iterator[bytes]:
    """Yield what a vocabulary is learnt from: the training split, or a part of its documents.

    Which ones is up to their digests, so that they come from everywhere in the corpora.
    """
    total = survey.bytes[splitting.TRAIN]
    teller = _Teller(tell, "learning the vocabulary", min(total, SAMPLE_BYTES))
    limit = (1 << 64) * SAMPLE_BYTES // max(1, total)
    done = 0
    for (split, text), digest in zip(_again(corpora, survey), _digests(survey), strict=True):
        if split != splitting.TRAIN or int.from_bytes(digest[:8], "little") >= limit:
            continue
        if done and done + len(text) > SAMPLE_BYTES:
            return
        done += len(text)
        yield text
        teller.at(done)


def _survey(data: DataConfig, corpora: Sequence[Corpus], teller: _Teller) -> _Survey:
    skipped: Counter[tuple[int, str]] = Counter()
    digests = bytearray()
    sizes = array("q")
    done = 0
    # By corpus and source: documents, their bytes, and SHA-256 over them one after the other.
    counts: Counter[tuple[int, int]] = Counter()
    lengths: Counter[tuple[int, int]] = Counter()
    hashes: defaultdict[tuple[int, int], Any] = defaultdict(hashlib.sha256)
    for document in documents(corpora, skipped):
        digests += splitting.digest(document.text)
        sizes.append(len(document.text))
        source = document.corpus, document.source
        counts[source] += 1
        lengths[source] += len(document.text)
        hashes[source].update(document.text)
        done += len(document.text)
        teller.at(done)
    splits = splitting.assign(
        digests,
        sizes,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
    )
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
    in_split = np.bincount(splits, np.asarray(sizes), 3).astype(np.int64).tolist()
    return _Survey(digests, splits, tuple(in_split), described)


def _digests(survey: _Survey) -> Iterator[bytes]:
    step = splitting.DIGEST_BYTES
    for start in range(0, len(survey.digests), step):
        yield bytes(survey.digests[start : start + step])


def _again(corpora: Sequence[Corpus], survey: _Survey) -> Iterator[tuple[int, bytes]]:
    """Read the documents once more, with the split of each; they must not have changed."""
    read = documents(corpora, Counter())
    for document, digest, split in zip_longest(read, _digests(survey), survey.splits):
        if document is None or splitting.digest(document.text) != digest:
            names = ", ".join(repr(corpus.name) for corpus in corpora)
            raise ValueError(f"corpus {names} changed while it was read; run the command again")
        yield int(split), document.text
