"""Text that may be larger than memory, and how it is cut.

Into pieces that are split like documents where there are no others; into segments that give the
same tokens as the whole.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

FEWEST, MOST = 20, 200
_PIECE_BYTES = 4096
SEGMENT = 1 << 20
"""Bytes of text that are held at a time, where it can be cut."""


@dataclass(frozen=True)
class FileText:
    """The text of a stretch of a file, which is not held in memory."""

    path: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


Text = bytes | FileText
"""UTF-8 text of a document."""


def blocks(text: Text) -> Iterator[bytes]:
    """Yield the bytes of `text` in order, so many at a time as may be held.

    Raises:
        ValueError: its file cannot be read or became shorter.
    """
    if isinstance(text, bytes):
        yield text
        return
    try:
        with open(text.path, "rb") as file:
            file.seek(text.start)
            for first in range(text.start, text.stop, SEGMENT):
                block = file.read(min(SEGMENT, text.stop - first))
                if not block:
                    raise ValueError(f"{text.path} changed while it was read; run again")
                yield block
    except OSError as error:
        raise ValueError(f"cannot read {text.path}: {error.strerror or error}") from error


def segments(text: Text, cuts: bytes = b" \n") -> Iterator[bytes]:
    """Yield `text` in parts of about SEGMENT bytes that are tokenised as the whole is.

    Byte-level BPE joins nothing over the beginning of white space. So parts begin with a space or
    an end of line behind a character that is no white space; where there is none, nothing is cut.
    `cuts` are these two, or which of them.
    """
    rest = b""
    for block in blocks(text):
        for start in range(0, len(block), SEGMENT):
            before, held = len(rest), rest + block[start : start + SEGMENT]
            end = _last_safe(held, max(1, before), cuts) if len(held) < len(text) else 0
            if end:
                yield held[:end]
            rest = held[end:]
    yield rest


def _last_safe(held: bytes, first: int, cuts: bytes) -> int:
    """Return the last place from `first` on where segments may be cut; 0 where there is none."""
    end = len(held)
    while (end := max((held.rfind(b"%c" % one, first, end) for one in cuts), default=0)) > 0:
        before = held[max(0, end - 4) : end].decode(errors="ignore")
        if before and not before[-1].isspace():
            return end
    return 0


def cut(text: Text) -> list[Text]:
    """Cut UTF-8 `text` into about 20 to 200 contiguous pieces that join up to it again.

    Cuts lie behind an empty line if one is near, else behind a line, else behind a space, else
    between two characters. A text shorter than 20 characters gives fewer pieces.
    """
    if isinstance(text, bytes):
        return [text[start:end] for start, end in _borders(text)]
    with (
        open(text.path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        return [FileText(text.path, start, end) for start, end in _borders(mapped)]


def _borders(text: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    count = min(MOST, max(FEWEST, len(text) // _PIECE_BYTES))
    size = max(1, len(text) // count)
    start = 0
    while start < len(text):
        end = _boundary(text, start + size, slack=size // 2)
        yield start, end
        start = end


def _boundary(text: bytes | mmap.mmap, wanted: int, slack: int) -> int:
    if wanted >= len(text):
        return len(text)
    for mark in (b"\n\n", b"\n", b" "):
        found = text.find(mark, wanted - 1, wanted + slack)
        if found >= 0:
            return found + len(mark)
    while wanted < len(text) and text[wanted] & 0xC0 == 0x80:
        wanted += 1
    return wanted
