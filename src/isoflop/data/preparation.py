"""From a description of the data to the token store, once; afterwards from the cache."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from isoflop import storage
from isoflop.config import DataConfig, canonical, fingerprint
from isoflop.data import splitting, store
from isoflop.data.corpora import Corpus, Document, documents, locate
from isoflop.data.store import TokenStore
from isoflop.data.tokenizer import BpeTokenizer, ByteTokenizer, Tokenizer
from isoflop.data.windows import whole_windows

FORMAT = 1
"""Raised when the same data would give other files."""


@dataclass(frozen=True)
class CorpusSize:
    """How much there is to train on."""

    train_tokens: int
    """Tokens that an epoch goes through; see `train_tokens`."""
    train_bytes: int
    train_documents: int


@dataclass(frozen=True)
class Unavailable:
    """Why a corpus cannot be had."""

    reason: str


def prepare(data: DataConfig, cache: Path, tokenizer: Tokenizer | None = None) -> TokenStore:
    """Read, split and tokenise the corpora of `data`, or open what was prepared before.

    The store lies in `cache/<key>/tokens`, where the key is a hash of `data` (but its windows and
    their length) and of the path, size, modification and change time of every file, so that
    opening it again reads no text. An edit that leaves all of these as they are goes unnoticed;
    any other gives another store, and other content another `TokenStore.sha256`. A hub data set
    is asked for once. Documents are read two times (three with BPE), never held together in
    memory. When two processes prepare the same store, the second waits and opens it.

    Args:
        data: the corpora and how they are split.
        cache: where stores lie.
        tokenizer: of another store, to read these corpora with; None for one of their own.

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
                    folder, lambda target: _build(data, corpora, target, tokenizer)
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
    whole = whole_windows(store.split("train"), data.sequence_length)
    return int(whole.sum()) * data.sequence_length


def describe(data: DataConfig, cache: Path) -> CorpusSize | Unavailable:
    """Return the size of the training split for planning, or why it cannot be had here.

    Local corpora are prepared for it, as a run would do; a hub data set is not downloaded.

    Raises:
        ValueError: the corpus is here, but nothing can be trained on it; see `prepare`.
    """
    try:
        corpora = locate(data)
    except (ValueError, OSError) as error:
        return Unavailable(str(error))
    try:
        remote = [c.name for c in corpora if any(s.kind == "hub" for s in c.sources)]
        if remote and not _folder(data, corpora, cache).exists():
            return Unavailable(
                f"corpus {remote[0]} has not been downloaded yet; a run does it, "
                "with the package of pip install 'isoflop[datasets]'"
            )
        store = prepare(data, cache)
        tokens = train_tokens(store, data)
    except OSError as error:
        return Unavailable(str(error))
    train = store.manifest["splits"]["train"]
    return CorpusSize(tokens, train["bytes"], train["documents"])


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
    return "" if data.tokenizer == "bytes" else version("tokenizers")


@dataclass(frozen=True)
class _Survey:
    """What the first reading found out."""

    digests: list[bytes]
    splits: NDArray[np.uint8]
    corpora: list[dict[str, Any]]


def _build(
    data: DataConfig, corpora: Sequence[Corpus], folder: Path, tokenizer: Tokenizer | None
) -> None:
    survey = _survey(data, corpora)
    tokenizer = tokenizer or _tokenizer(data, lambda: _again(corpora, survey))
    texts = ((split, document.text) for split, document in _again(corpora, survey))
    manifest = {
        "format": FORMAT,
        "tokenizer": data.tokenizer,
        "tokenizers": _versions(data) or None,
        "split_seed": data.split_seed,
        "corpora": survey.corpora,
    }
    store.write(folder, tokenizer, texts, manifest)


def _survey(data: DataConfig, corpora: Sequence[Corpus]) -> _Survey:
    skipped: Counter[tuple[int, str]] = Counter()
    digests: list[bytes] = []
    sizes: list[int] = []
    files = _FileHashes()
    for document in documents(corpora, skipped):
        digests.append(splitting.digest(document.text))
        sizes.append(len(document.text))
        files.add(document)
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
                {"name": source.name, **files.found[index, number]}
                for number, source in enumerate(corpus.sources)
                if (index, number) in files.found
            ],
        }
        for index, corpus in enumerate(corpora)
    ]
    return _Survey(digests, splits, described)


class _FileHashes:
    """SHA-256 over the texts of each source, one source after the other."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], dict[str, Any]] = {}
        self._current: tuple[int, int] | None = None
        self._hash = hashlib.sha256()

    def add(self, document: Document) -> None:
        source = (document.corpus, document.source)
        if source != self._current:
            self._current, self._hash = source, hashlib.sha256()
            self.found[source] = {"documents": 0, "bytes": 0, "sha256": ""}
        self._hash.update(document.text)
        entry = self.found[source]
        entry["documents"] += 1
        entry["bytes"] += len(document.text)
        entry["sha256"] = self._hash.hexdigest()


def _again(corpora: Sequence[Corpus], survey: _Survey) -> Iterator[tuple[int, Document]]:
    """Read the documents once more, with the split of each; they must not have changed."""
    triples = zip_longest(documents(corpora, Counter()), survey.digests, survey.splits)
    for document, digest, split in triples:
        if document is None or splitting.digest(document.text) != digest:
            names = ", ".join(repr(corpus.name) for corpus in corpora)
            raise ValueError(f"corpus {names} changed while it was read; run the command again")
        yield int(split), document


def _tokenizer(data: DataConfig, again: Callable[[], Iterator[tuple[int, Document]]]) -> Tokenizer:
    if data.tokenizer == "bytes":
        return ByteTokenizer()
    training = (document.text for split, document in again() if split == splitting.TRAIN)
    return BpeTokenizer.train(training, data.vocabulary)
