"""Decoding without a cache: every token by a forward pass over all before it.

For models with a variant of one's own that has no `decode`, or whose depth is of one's own.

Axes: B batch, T time, R routed blocks, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isoflop.config import Cap, Decision
from isoflop.generation.engine import Engine, decodes
from isoflop.model import Transformer, control_draws


class WholePasses(Engine):
    """An engine that keeps token ids alone; used and answering as `Engine`."""

    cached = False

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]], *, reserve: int = 0) -> Tensor:
        """Begin a batch; as `Engine.prefill`."""
        self._check_prompts(prompts)
        self._texts = [list(prompt) for prompt in prompts]
        return self._pass(max(len(prompt) for prompt in prompts))

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Add a token to every sequence; as `Engine.step`."""
        self._check_tokens(tokens)
        for text, token in zip(self._texts, tokens, strict=True):
            text.append(token)
        return self._pass(1)

    def keep(self, sequences: Sequence[int]) -> None:
        """Drop all sequences but those named; as `Engine.keep`."""
        super().keep(sequences)
        self._texts = [self._texts[one] for one in sequences]

    def _pass(self, given: int) -> Tensor:
        """Return the logits (B, V) after each text; decisions are told of its last tokens."""
        routed = len(self.model.routed)
        self.lengths, self._given = [len(text) for text in self._texts], given
        processed = torch.zeros(routed, len(self._texts), given, dtype=torch.bool)
        logits = []
        # One by one, since padding might compete with text for what a variant shares out.
        for row, text in enumerate(self._texts):
            draws = None
            if self.decision == "bernoulli":
                draws = control_draws(len(text), routed, self._seed).to(self._device)
            output = self.model(
                torch.tensor([text], device=self._device),
                decision=self.decision,
                noise=draws,
                cap=self.cap,
            )
            logits.append(output.logits[0, -1])
            for number, one in enumerate(output.routing):
                last = one.selected[0, -given:]
                processed[number, row, : len(last)] = last.cpu()
        self._processed = list(processed.to(self._device))
        return torch.stack(logits)


def engine_for(
    model: Transformer, decision: Decision | None = None, *, cap: Cap | None = None, seed: int = 0
) -> Engine:
    """Return what decodes a model: over a cache, or by whole passes where a part cannot."""
    return (Engine if decodes(model) else WholePasses)(model, decision, cap=cap, seed=seed)
