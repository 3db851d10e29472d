"""Text to ids in order, by this process or by several others at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from isoflop.data.pieces import SEGMENT, Text, segments
from isoflop.data.tokenizer import Ids, LibraryTokenizer, Tokenizer


class Part(NamedTuple):
    """A segment of a document."""

    split: int
    text: bytes
    last: bool
    """Whether the document ends with it."""


Batch = list[Part]


def encoded(
    tokenizer: Tokenizer, texts: Iterable[tuple[int, Text]], processes: int
) -> Generator[tuple[Batch, list[Ids]], None, None]:
    """Yield parts of `texts`, which are a split and a document each, in order, and their ids.

    With more than one, processes tokenise beside this one, which reads and hands out. They end
    with this one, however it ends, and hear no Ctrl-C. Close the iterator to end them earlier.

    Raises:
        BrokenExecutor: one of them ended; a line.
    """
    cuts = tokenizer.cuts if isinstance(tokenizer, LibraryTokenizer) else b" \n"
    if processes == 1 or not isinstance(tokenizer, LibraryTokenizer):
        for batch in _batches(texts, cuts):
            yield batch, tokenizer.encode([part.text for part in batch])
        return
    with ExitStack() as stack:
        idle = [stack.enter_context(_worker(tokenizer)) for _ in range(processes)]
        batches = enumerate(_batches(texts, cuts))
        busy: dict[Connection, int] = {}
        under_way: dict[int, Batch] = {}
        done: dict[int, list[Ids]] = {}
        given = 0
        while True:
            while idle and len(under_way) < 4 * processes:
                following = next(batches, None)
                if following is None:
                    break
                number, batch = following
                line = idle.pop()
                under_way[number], busy[line] = batch, number
                with _alive():
                    line.send([part.text for part in batch])
            if not busy:
                return
            ready = wait(list(busy))
            for line in [one for one in busy if one in ready]:
                with _alive():
                    done[busy.pop(line)] = line.recv()
                idle.append(line)
            while given in done:
                yield under_way.pop(given), done.pop(given)
                given += 1


@contextmanager
def _worker(tokenizer: LibraryTokenizer) -> Iterator[Connection]:
    """Start a process that tokenises, and give the line to it; it is killed in the end.

    A new interpreter and no fork, since threads would not survive one; nor a process of
    `multiprocessing`, which would run the script of whoever calls this once more.
    """
    ours, theirs = Pipe()
    code = "import sys; sys.path[:] = {!r}; from {} import work; work({})"
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", code.format(sys.path, __name__, theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )
        try:
            with _alive():
                ours.send((tokenizer.specification, tokenizer.end))
            yield ours
        finally:
            process.kill()
            process.wait()


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise BrokenExecutor(
            "a process that tokenises ended before its work was done, as the system does with it "
            "where memory runs out; run the same command again, it goes on from what was saved"
        ) from None


def work(descriptor: int) -> None:
    """Tokenise what comes over a line, until it is closed."""
    line = Connection(descriptor)
    try:
        tokenizer = LibraryTokenizer(*line.recv())
        while True:
            line.send(tokenizer.encode(line.recv()))
    except (EOFError, OSError):
        return


def _batches(texts: Iterable[tuple[int, Text]], cuts: bytes) -> Iterator[Batch]:
    """Group parts of documents into batches of about a mebibyte."""
    batch: Batch = []
    size = 0
    for split, text in texts:
        left = len(text)
        for segment in segments(text, cuts):
            left -= len(segment)
            batch.append(Part(split, segment, not left))
            size += len(segment)
            if size >= SEGMENT:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
