"""What is in a file: its bytes decompressed, and as text where it is text."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

LARGEST = 100_000_000
"""Bytes of a table, decompressed: more would take gigabytes of memory."""
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\ufffd]")


def content(path: Path) -> bytes:
    """Return what a file holds, decompressed where its first bytes say that it is compressed.

    Raises:
        ValueError: it is too large, or the compressed data are damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = _limited(file)
    opened = next((one for magic, one in _OPENERS.items() if data.startswith(magic)), None)
    if opened is None:
        return data
    try:
        return _limited(opened(io.BytesIO(data)))
    except ValueError:
        raise
    except Exception as error:
        # Each library has its own errors.
        raise ValueError(f"its compressed data are damaged: {error}") from None


def text(data: bytes) -> str:
    """Return bytes as text with line feeds: UTF-8, UTF-16 or UTF-32, else the Western code page.

    Raises:
        ValueError: they are no text.
    """
    encoding = json.detect_encoding(data)
    try:
        decoded = data.decode(encoding)
    except UnicodeDecodeError as error:
        decoded = data.decode("cp1252", errors="replace")
        if encoding != "utf-8" or _CONTROLS.search(decoded):
            raise ValueError(f"it is no text: {error}") from None
    if "\0" in decoded:
        raise ValueError(f"it holds the byte 0 at character {decoded.index(chr(0)) + 1}: no text")
    return decoded.replace("\r\n", "\n").replace("\r", "\n")


def _limited(file: IO[bytes]) -> bytes:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST:,} bytes; expected a table of runs")
    return data


def _zstandard(raw: BinaryIO) -> Any:
    try:
        import zstandard
    except ImportError:
        raise ValueError(
            "Zstandard needs a package of its own; pip install 'isoflop[zstd]'"
        ) from None
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)


_OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _zstandard,
}
