"""Colours for how many routed blocks processed a token, on a page and in a terminal."""

from __future__ import annotations

from typing import NamedTuple

LIGHTEST, DARKEST = (0xCF, 0xE6, 0xF5), (0x00, 0x50, 0x8C)
"""One hue from light to dark, so that colour vision and grey prints do not matter. The darkest
still stands out from a dark terminal."""


class DepthColour(NamedTuple):
    """A background, and black or white to write on it, as hexadecimal codes."""

    background: str
    text: str


def depth_colours(routed: int) -> tuple[DepthColour | None, ...]:
    """Return the colour of tokens that 0, 1, ... `routed` blocks processed.

    None for those that no block did, which are left as they are.
    """
    return (None, *(_colour((i / (routed - 1)) if routed > 1 else 1.0) for i in range(routed)))


def _colour(share: float) -> DepthColour:
    mixed = tuple(
        round(light + share * (dark - light)) for light, dark in zip(LIGHTEST, DARKEST, strict=True)
    )
    luminance = sum(
        weight * _linear(value / 255)
        for weight, value in zip((0.2126, 0.7152, 0.0722), mixed, strict=True)
    )
    # Of black and white, the one with the higher contrast ratio (WCAG 2).
    on_white, on_black = 1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05
    background = "#" + "".join(f"{value:02x}" for value in mixed)
    return DepthColour(background, "#000000" if on_black >= on_white else "#ffffff")


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)
