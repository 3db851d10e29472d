"""Text that a trained model generated, and which blocks processed it: what a report shows of it.

Here rather than in `generation`, so that a report reads it without torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isoflop.config.model import Cap, Decision
from isoflop.frozen import Frozen


class SampledToken(Frozen):
    """A token of a sample."""

    id: int
    text: str
    """Characters that it completes, as they are; empty while one is incomplete. At the end of a
    sample, bytes that are not UTF-8 are replacement characters."""
    processed: tuple[int, ...] | None
    """Routed blocks that processed it, as indices in the model; None for the last token, which
    the model is not run on."""


class TextSample(Frozen):
    """A prompt and its continuation; the content of `sample.json` in a run's folder."""

    run_id: str
    routed_blocks: tuple[int, ...]
    """Indices in the model; empty for a dense one."""
    decision: Decision
    cap: Cap | None
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    seed: int
    prompt: tuple[SampledToken, ...]
    """With the id that ends documents before it, where the model has seen documents follow it."""
    tokens: tuple[SampledToken, ...] = Field(min_length=1)
    """What was drawn."""
    reason: Literal["stop", "length"]
    """Why it ended: with its document, or at the most tokens."""
    torch: str

    @model_validator(mode="after")
    def _known_blocks(self) -> TextSample:
        for one in (*self.prompt, *self.tokens):
            blocks = one.processed or ()
            if not set(blocks) <= set(self.routed_blocks) or len(set(blocks)) != len(blocks):
                raise ValueError(
                    f"a token was processed by blocks {list(blocks)}; expected distinct ones of "
                    f"the routed blocks {list(self.routed_blocks)}"
                )
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the tokens that each routed block processed, those that it was run on."""
        run = [one.processed for one in (*self.prompt, *self.tokens) if one.processed is not None]
        return tuple(
            sum(block in one for one in run) / max(1, len(run)) for block in self.routed_blocks
        )
