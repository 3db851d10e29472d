"""Text that others wrote (names of variants, reasons of failures), made harmless to show."""

from __future__ import annotations

import unicodedata

_LONGEST_LINE = 1000


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
