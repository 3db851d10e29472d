"""Text that others wrote (files, names of variants, reasons of failures), made harmless."""

from __future__ import annotations

import shlex
import unicodedata
from pathlib import Path

MAX_BYTES = 1_000_000
"""Larger than any study or variant; what exceeds it is some other file given by mistake."""
_LONGEST_LINE = 1000


def file_text(path: Path, *, expected: str, hint: str) -> str:
    """Return the text of a file of bounded size.

    Args:
        path: of the file.
        expected: what it should be, in words.
        hint: what to do where there is no such file.

    Raises:
        ValueError: it cannot be read, or is no text; in words that do not name it.
    """
    try:
        if "\0" in str(path):
            raise OSError(0, "a path has no NUL character")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ValueError(f"is a folder; expected {expected}") from None
    except FileNotFoundError:
        raise ValueError(f"no such file; {hint}") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES:,} bytes; expected {expected}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start}); expected {expected}") from None


def typed(*words: object) -> str:
    """Return a command of isoflop as it is typed, with words quoted for the shell where need be."""
    return shlex.join(["isoflop", *map(str, words)])


def visible(text: str, *, keep: str = " ") -> str:
    r"""Return `text` with control and formatting characters spelt out, such as \x1b for ESC.

    Markup is escaped where a page is made; this is for what terminals, fonts and the direction
    of writing would act on. Characters in `keep` stay.
    """
    if text.isprintable():  # nearly every text: nothing in it is to be spelt out
        return text
    return "".join(
        character
        if character in keep or unicodedata.category(character)[0] not in "CZ"
        else " "
        if unicodedata.category(character) == "Zs"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shortened(text: str) -> str:
    """Return `text` without its middle where it is too long to be read."""
    if len(text) <= _LONGEST_LINE:
        return text
    return f"{text[: _LONGEST_LINE // 2]} ... {text[-_LONGEST_LINE // 2 :]}"


def quoted(text: str) -> str:
    """Return `text` on one line, with control characters escaped so that they stay inert."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
