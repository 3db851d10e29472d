"""What `isoflop sample` prints: text as it comes, coloured by how many routed blocks read it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.style import Style
from rich.text import Text

from isoflop.config import SampledToken, TextSample
from isoflop.notation import percent
from isoflop.report.routed import depth_colours
from isoflop.text import visible

LEGEND_ENTRIES = 9
"""Most numbers of blocks that the legend names; with more it leaves some out."""


class TextDisplay:
    """Prints tokens to standard output as they come.

    Control characters in the text are spelt out. Colour is left away where standard output is no
    terminal, or NO_COLOR is set.
    """

    def __init__(self, routed: int, *, plain: bool = False) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        coloured = self._console.color_system is not None and not self._console.no_color
        self._routed = routed
        self._styles = (
            [
                Style() if one is None else Style(color=one.text, bgcolor=one.background)
                for one in depth_colours(routed)
            ]
            if coloured and routed and not plain
            else None
        )
        self._begun = False
        self._within_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the line, also where the text was interrupted."""
        if self._within_line and not isinstance(error, BrokenPipeError):
            self._print("\n", Style())

    def show(self, token: SampledToken) -> None:
        """Print a token."""
        if not self._begun:
            self._begun = True
            self._legend()
        if not token.text:
            return
        style = Style()
        if self._styles is not None and token.processed is not None:
            style = self._styles[len(token.processed)]
        self._print(visible(token.text, keep=" \n\t"), style)

    def _legend(self) -> None:
        if self._styles is None:
            return
        step = -(-self._routed // (LEGEND_ENTRIES - 1))
        self._print("routed blocks that processed a token: ", Style(dim=True))
        for number in sorted({*range(0, self._routed, step), self._routed}):
            self._print(f" {number} ", self._styles[number])
        self._print(f" of {self._routed}\n\n", Style(dim=True))

    def _print(self, text: str, style: Style) -> None:
        encoding = sys.stdout.encoding or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._within_line = not text.endswith("\n")
        if self._styles is None:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            self._console.print(Text(text, style=style), end="", soft_wrap=True)


def summary(sample: TextSample) -> str:
    """Return what was done, in one line."""
    ended = ", then the document ended" if sample.reason == "stop" else ""
    told = f"{len(sample.tokens)} tokens{ended}"
    if not sample.routed_blocks:
        return told
    shares = ", ".join(
        f"block {block}: {percent(share)}"
        for block, share in zip(sample.routed_blocks, sample.shares, strict=True)
    )
    return f"{told}; processed under {sample.decision}, prompt included: {shares}"
