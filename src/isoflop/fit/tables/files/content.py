"""What is in a file: its bytes decompressed, and as text where it is text."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from pathlib import Path
from typing import BinaryIO

LARGEST = 100_000_000
"""Bytes of a table, decompressed: more would take gigabytes of memory."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

_MAGIC = {
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def content(path: Path) -> bytes:
    """Return what a file holds, decompressed where its first bytes say that it is compressed.

    Raises:
        ValueError: it is too large, or the compressed data are damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = _limited(file)
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if kind is None:
        return data
    raw = io.BytesIO(data)
    try:
        match kind:
            case "gz":
                return _limited(gzip.GzipFile(fileobj=raw))
            case "bz2":
                return _limited(bz2.BZ2File(raw))
            case "xz":
                return _limited(lzma.LZMAFile(raw))
            case _:
                return _zstandard(raw)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"its compressed data are damaged: {error}") from None


def text(data: bytes) -> str:
    """Return bytes as text with line feeds: UTF-8, UTF-16 or UTF-32, else the Western code page.

    Raises:
        ValueError: they are no text.
    """
    decoded = _decoded(data)
    if "\0" in decoded:
        raise ValueError(f"it holds the byte 0 at character {decoded.index(chr(0)) + 1}: no text")
    return decoded.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    head = data[:1000]
    if len(head) > 3 and 0 not in head[::2] and head[1::2].count(0) > len(head) // 3:
        return data.decode("utf-16-le")
    if len(head) > 3 and 0 not in head[1::2] and head[::2].count(0) > len(head) // 3:
        return data.decode("utf-16-be")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        western = data.decode("cp1252", errors="replace")
        if _CONTROLS.search(western) or "\ufffd" in western:
            raise ValueError(f"it is no text: {error}") from None
        return western


def _limited(file: BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile) -> bytes:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST:,} bytes; expected a table of runs")
    return bytes(data)


def _zstandard(raw: BinaryIO) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise ValueError(
            "Zstandard needs a package of its own; pip install 'isoflop[zstd]'"
        ) from None
    try:
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as reader:
            return _limited(reader)
    except zstandard.ZstdError as error:
        raise ValueError(f"its compressed data are damaged: {error}") from None
