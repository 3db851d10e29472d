"""Text that others wrote (names of variants, reasons of failures), made harmless to show."""

from __future__ import annotations

import unicodedata


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
