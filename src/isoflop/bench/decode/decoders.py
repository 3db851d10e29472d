"""Decoding as plain steps over a filled cache: ours, and those of Hugging Face's Llama.

Caches are filled with random numbers, not by a prefill: how long a step takes does not hang on what
they hold, and a prefill of the longest contexts would take minutes.

Axes: B batch, G key/value heads, T time, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isoflop.bench.cases import llama
from isoflop.config import EveryToken, ModelConfig
from isoflop.generation import BlockCache, Engine, nominal_share
from isoflop.model import RoutedBlock, build

PERIOD = 8
"""Tokens after which the nominal share repeats, and is exact; the routed model's turns are whole
periods."""


class EngineDecoder:
    """Ours; a routed model processes its nominal share of tokens.

    Args:
        model: plain or routed.
        context: tokens that every sequence has seen.
        batch: sequences.
        reserve: steps at most between rewinds.
        dtype: of weights and cache.
    """

    def __init__(
        self, model: ModelConfig, context: int, batch: int, reserve: int, dtype: torch.dtype
    ) -> None:
        made = build(model, seed=0).to(dtype)
        forced = None if isinstance(model.depth, EveryToken) else nominal_share(made)
        self.engine = Engine(made, forced=forced)
        positions = torch.arange(context + PERIOD).expand(batch, -1)
        read = sum(weight.numel() for weight in made.parameters()) + batch * model.width
        self.parameters_read = float(read - made.embedding.weight.numel())
        """Mean weights that a step reads: of a block that no sequence needs, none; of the embedding
        a row for each sequence."""
        caches = []
        routed = 0
        for block, attention in zip(made.blocks, made.attentions, strict=True):
            lengths, slots = [context] * batch, context + reserve
            if isinstance(block, RoutedBlock):
                assert forced is not None
                taken = forced(routed, positions)
                lengths, slots = taken[:, :context].sum(1).tolist(), 0
                idle = 1 - taken[:, context:].any(0).double().mean().item()
                weights = sum(weight.numel() for weight in block.block.parameters())
                self.parameters_read -= idle * weights
                routed += 1
            cache = BlockCache(attention, batch, slots)
            k, v = _random(batch, attention.groups, max(lengths), attention.head_width, dtype)
            cache.fill(k, v, lengths)
            caches.append(cache)
        self.engine.caches = tuple(caches)
        self.engine.lengths = [context] * batch
        self._filled = [list(cache.lengths) for cache in caches]
        self._ids = [0] * batch
        self._taken = self._offered = 0

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that are stored."""
        return self.engine.cache_bytes

    @property
    def cache_bytes_read(self) -> float:
        """Mean bytes of keys and values that a step reads: of sequences that skip a block, none."""
        model = self.engine.model
        return sum(
            cache.bytes * (self.realised_share if isinstance(block, RoutedBlock) else 1.0)
            for block, cache in zip(model.blocks, self.engine.caches, strict=True)
        )

    @property
    def realised_share(self) -> float:
        """Share of tokens that routed blocks processed in all steps; 1 where none is routed."""
        return self._taken / self._offered if self._offered else 1.0

    def step(self) -> None:
        """Take the likeliest token of every sequence, and run the model on it."""
        self._ids = self.engine.step(self._ids).argmax(-1).tolist()

    def rewind(self, steps: int) -> None:
        """Forget the last steps, so that the context is what it was."""
        engine, batch = self.engine, len(self._ids)
        engine.lengths = [length - steps for length in engine.lengths]
        for block, cache, filled in zip(
            engine.model.blocks, engine.caches, self._filled, strict=True
        ):
            if isinstance(block, RoutedBlock):
                self._taken += sum(cache.lengths) - sum(filled)
                self._offered += steps * batch
            cache.lengths = list(filled)


class LlamaDecoder:
    """Hugging Face's, a token a step over the cache that its `generate` takes by default.

    Arguments are as for `EngineDecoder`.

    Raises:
        ValueError: Llama has no such model.
        ModuleNotFoundError: transformers is not installed.
    """

    def __init__(
        self, model: ModelConfig, context: int, batch: int, reserve: int, dtype: torch.dtype
    ) -> None:
        from transformers import DynamicCache

        made: nn.Module = llama(model, context + reserve)
        self.model = made.to(dtype).eval()
        self.cache = DynamicCache()
        self.cache_bytes = 0
        """Bytes of keys and values that are stored."""
        for block in range(model.blocks):
            k, v = _random(batch, model.key_value_heads, context, model.head_width, dtype)
            self.cache_bytes += sum(x.nbytes for x in self.cache.update(k, v, block))
        self._ids = torch.zeros(batch, 1, dtype=torch.int64)

    @torch.inference_mode()
    def step(self) -> None:
        """Take the likeliest token of every sequence, and run the model on it."""
        found = self.model(input_ids=self._ids, past_key_values=self.cache, use_cache=True)
        self._ids = found.logits[:, -1].argmax(-1, keepdim=True)

    def rewind(self, steps: int) -> None:
        """Forget the last steps, so that the context is what it was."""
        self.cache.crop(-steps)


Decoder = EngineDecoder | LlamaDecoder
"""A model with a batch of sequences of one context."""


def _random(
    batch: int, groups: int, tokens: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return keys and values (B, G, T, K), the same for all sequences."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(2, 1, groups, tokens, width, generator=generator).to(dtype)
    keys, values = made.expand(2, batch, groups, tokens, width)
    return keys, values
