"""What `isoflop sample` prints: text as it comes, coloured by how many routed blocks read it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.style import Style
from rich.text import Text

from isoflop.config import SampledToken, TextSample
from isoflop.notation import percent
from isoflop.report.routed import depth_colours
from isoflop.text import visible

LEGEND_ENTRIES = 9
"""Most numbers of blocks that the legend names; with more it leaves some out."""


@contextmanager
def text_display(routed: int, *, plain: bool = False) -> Iterator[Callable[[SampledToken], None]]:
    """Give a function that prints tokens to standard output as they come; the line ends with it.

    Control characters in the text are spelt out. Colour is left away where standard output is no
    terminal, or NO_COLOR is set.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    coloured = console.color_system is not None and not console.no_color and not plain
    styles = [
        Style() if one is None else Style(color=one.text, bgcolor=one.background)
        for one in (depth_colours(routed) if coloured and routed else ())
    ]
    encoding, last, begun = sys.stdout.encoding or "utf-8", "\n", False

    def write(text: str, style: Style) -> None:
        nonlocal last
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        last = text[-1:]
        if styles:
            console.print(Text(text, style=style), end="", soft_wrap=True)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def legend() -> None:
        step = -(-routed // (LEGEND_ENTRIES - 1))
        write("routed blocks that processed a token: ", Style(dim=True))
        for number in sorted({*range(0, routed, step), routed}):
            write(f" {number} ", styles[number])
        write(f" of {routed}\n\n", Style(dim=True))

    def show(token: SampledToken) -> None:
        nonlocal begun
        if styles and not begun:
            legend()
        begun = True
        if token.text:
            known = styles and token.processed is not None
            style = styles[len(token.processed or ())] if known else Style()
            write(visible(token.text, keep=" \n\t"), style)

    try:
        yield show
    except BrokenPipeError:
        last = "\n"
        raise
    finally:
        # Also where the text was interrupted.
        if last != "\n":
            write("\n", Style())


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
