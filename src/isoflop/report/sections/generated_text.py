"""Generated text for the page, each token with the colour of its depth."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.config import SampledToken, TextSample
from isoflop.notation import percent
from isoflop.report.blocks import Piece, Strip
from isoflop.report.routed import DepthColour, depth_colours
from isoflop.text import visible

MOST_TOKENS = 1500
"""Tokens of a sample that a page shows."""
NEW_LINE = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"


def strip(sample: TextSample) -> Strip:
    """Return what a page shows of a sample; control characters are spelt out, markup is not."""
    colours = depth_colours(len(sample.routed_blocks))
    shown = sample.tokens[:MOST_TOKENS]
    return Strip(
        prompt=_pieces(sample.prompt[-MOST_TOKENS:], colours),
        tokens=_pieces(shown, colours),
        legend=colours,
        caption=_caption(sample, len(shown)),
    )


def _pieces(
    tokens: Sequence[SampledToken], colours: Sequence[DepthColour | None]
) -> tuple[Piece, ...]:
    return tuple(
        Piece(
            text=visible(one.text, keep=" \n").replace("\n", f"{NEW_LINE}\n"),
            colours=None if one.processed is None else colours[len(one.processed)],
            told=_told(one),
        )
        for one in tokens
        if one.text
    )


def _told(token: SampledToken) -> str:
    if token.processed is None:
        return "the last token, which no block was run on"
    if not token.processed:
        return "no routed block"
    return f"block{'s' if len(token.processed) > 1 else ''} {', '.join(map(str, token.processed))}"


def _caption(sample: TextSample, shown: int) -> str:
    shares = ", ".join(
        f"{percent(share)} in block {block}"
        for block, share in zip(sample.routed_blocks, sample.shares, strict=True)
    )
    how = f"temperature {sample.temperature:g}"
    cuts = {"top k": sample.top_k, "top p": sample.top_p, "min p": sample.min_p}
    unset = {"top k": None, "top p": 1.0, "min p": 0.0}
    how += "".join(f", {name} {value:g}" for name, value in cuts.items() if value != unset[name])
    capped = ""
    if sample.cap is not None:
        most = "its capacity" if sample.cap.tokens is None else f"{sample.cap.tokens} tokens"
        capped = f", capped at {most} in {sample.cap.window} positions"
    drawn = f"{len(sample.tokens):,} tokens"
    left = f", of which {shown:,} are shown" if shown < len(sample.tokens) else ""
    return (
        f"The prompt, underlined, and {drawn} drawn by this model{left} (seed {sample.seed}, "
        f"{how}). A token is the darker the more of the {len(sample.routed_blocks)} routed blocks "
        f"processed it under {sample.decision}{capped}: {shares}. A character of several tokens "
        "has the colour of its last one."
    )
