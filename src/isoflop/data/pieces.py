"""Cuts one long text into pieces that can be split like documents."""

from __future__ import annotations

FEWEST, MOST = 20, 200
_PIECE_BYTES = 4096


def cut(text: bytes) -> list[bytes]:
    """Cut UTF-8 `text` into about 20 to 200 contiguous pieces that join up to it again.

    Cuts lie behind an empty line if one is near, else behind a line, else behind a space, else
    between two characters. A text shorter than 20 characters gives fewer pieces.
    """
    count = min(MOST, max(FEWEST, len(text) // _PIECE_BYTES))
    size = max(1, len(text) // count)
    pieces = []
    start = 0
    while start < len(text):
        end = _boundary(text, start + size, slack=size // 2)
        pieces.append(text[start:end])
        start = end
    return pieces


def _boundary(text: bytes, wanted: int, slack: int) -> int:
    if wanted >= len(text):
        return len(text)
    for mark in (b"\n\n", b"\n", b" "):
        found = text.find(mark, wanted - 1, wanted + slack)
        if found >= 0:
            return found + len(mark)
    while wanted < len(text) and text[wanted] & 0xC0 == 0x80:
        wanted += 1
    return wanted
