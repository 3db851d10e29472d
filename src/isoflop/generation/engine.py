"""Runs a model a token at a time, over a cache; knows token ids only.

Axes: B batch, T time, R routed blocks, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from isoflop.config import Cap, Decision, Own, Routed
from isoflop.generation.cache import BlockCache, Filling, OwnCache, Stepping
from isoflop.model import (
    OwnPart,
    RoutedBlock,
    Transformer,
    control_draws,
    gate,
)
from isoflop.ops import cap_selection, mask_positions

Forced = Callable[[int, Tensor], Tensor]
"""Which tokens a routed block processes, in place of the decision: from the block's number among
the routed ones and positions (B, T) to (B, T) bool."""

LEAST_POSITIONS = 256
"""Of the draws that are made for positions to come."""
MOST_PERIOD = 1 << 10
"""Tokens after which a nominal share repeats, at most."""


class Engine:
    """Decodes a batch of sequences with a key-value cache.

    A routed block is run for the sequences whose token it processes and costs the others nothing
    but the decision. `prefill` begins a batch, each `step` adds a token to every sequence.

    Args:
        model: used as it is; its weights may be float32 or bfloat16.
        decision: a causal one; None for the model's headline decision.
        cap: on what the decision selects; None for none.
        seed: keys what the random control draws.
        forced: takes the place of the decision and the cap, for benchmarks and tests; the decision
            is computed all the same, so that its cost is paid.

    Raises:
        ValueError: the decision or the cap does not fit the model, or a part of it does not decode
            over a cache; `engine_for` has an engine for these too.
    """

    cached = True
    """Whether earlier tokens are kept in caches, which every part of the model has to allow."""

    def __init__(
        self,
        model: Transformer,
        decision: Decision | None = None,
        *,
        cap: Cap | None = None,
        seed: int = 0,
        forced: Forced | None = None,
    ) -> None:
        depth = model.config.depth
        known = _causal(model)
        if decision is not None and decision not in known:
            ahead = ", which ranks tokens that are not there yet" if decision == "top_k" else ""
            raise ValueError(
                f"decision is {decision!r}{ahead}; expected one of {', '.join(known)} for a model "
                f"with depth {depth.kind!r}"
            )
        if self.cached and not decodes(model):
            raise ValueError("a part of the model does not decode over a cache; use engine_for")
        if cap is not None and not isinstance(depth, Routed):
            raise ValueError("a cap is given, but the model has no routed block; leave it out")
        self.model = model
        self.decision: Decision = known[0] if decision is None else decision
        self.cap = None if forced else cap
        self.caches: tuple[BlockCache | OwnCache, ...] = ()
        """By block of the model, once `prefill` has been called."""
        self.lengths: list[int] = []
        """Tokens seen, by sequence."""
        self._seed, self._forced = seed, forced
        self._given = 0
        self._device = model.embedding.weight.device
        self._processed: list[Tensor] = []
        self._wanted: list[Tensor] = []
        self._draws: Tensor | None = None

    @property
    def cache_bytes(self) -> int:
        """Bytes that the caches of all blocks hold in use."""
        return sum(cache.bytes for cache in self.caches)

    @property
    def processed(self) -> Tensor:
        """Which of the tokens last given each routed block processed, (R, B, T) bool.

        T is the longest prompt after `prefill`, with False behind shorter ones, and 1 after `step`.
        """
        if not self._processed:
            return torch.zeros(0, len(self.lengths), self._given, dtype=torch.bool)
        return torch.stack(self._processed)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]], *, reserve: int = 0) -> Tensor:
        """Begin a batch, and return the logits (B, V) after the last token of each prompt.

        Args:
            prompts: token ids; lengths may differ.
            reserve: tokens to come for which dense blocks have room made at once.

        Raises:
            ValueError: there is no prompt, one is empty, or an id is outside the vocabulary.
        """
        self._check_prompts(prompts)
        model, lengths = self.model, [len(prompt) for prompt in prompts]
        batch, longest = len(prompts), max(lengths)
        self.lengths, self._given = lengths, longest
        self._processed, self._wanted = [], []
        self.caches = tuple(
            OwnCache(batch, self._device)
            if isinstance(mixer, OwnPart)
            else BlockCache(mixer, batch, 0 if block in model.routed else longest + reserve)
            for block, mixer in zip(model.blocks, model.mixers, strict=True)
        )
        # Padding lies behind the prompts, so causal attention keeps it out of them.
        tokens = torch.zeros(batch, longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : lengths[row]] = torch.as_tensor(prompt)
        ends = torch.tensor(lengths, device=self._device)
        positions = torch.arange(longest, device=self._device)
        real = positions < ends[:, None]
        cosines, sines = self._tables(longest)
        x: Tensor = model.embedding(tokens.to(self._device))
        for block, inner, cache in zip(model.blocks, model.inner, self.caches, strict=True):
            if not isinstance(block, RoutedBlock):
                x = x + inner(x, cosines, sines, memory=Filling(cache, lengths))[0]
                continue
            logits = block.router_logits(x)
            selected = self._wants(block, x, logits, positions.expand(batch, -1)) & real
            if self.cap is not None:
                most = self.cap.most(block.depth)
                selected, counts = cap_selection(selected, self.cap.window, most)
                self._wanted.append(counts.gather(1, ends[:, None] - 1).squeeze(1))
            self._processed.append(selected)
            if bool(selected.any()):
                chosen, among = mask_positions(selected)
                memory = Filling(cache, selected.sum(1).tolist())
                x, _ = block.processed(x, logits, cosines, sines, chosen, among, memory)
        return model.readout(x[torch.arange(batch, device=self._device), ends - 1])

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Add a token to every sequence, and return the logits (B, V) after it.

        Raises:
            ValueError: there is no batch yet, or the tokens do not fit it.
        """
        self._check_tokens(tokens)
        model, lengths = self.model, self.lengths
        rows = range(len(lengths))
        tables = self._tables(max(lengths) + 1)
        positions = torch.tensor(lengths, device=self._device)[:, None]
        first = lengths[0]
        even = all(length == first for length in lengths)
        cosines, sines = (
            table[first : first + 1] if even else table[positions] for table in tables
        )
        x: Tensor = model.embedding(torch.tensor(tokens, device=self._device)[:, None])
        self._processed, self._given = [], 1
        for block, inner, cache in zip(model.blocks, model.inner, self.caches, strict=True):
            if isinstance(block, RoutedBlock):
                x = self._routed_step(block, cache, x, cosines, sines, positions)
            else:
                memory = Stepping(cache, rows, every=True)
                x = x + inner(x, cosines, sines, memory=memory)[0]
        self.lengths = [length + 1 for length in lengths]
        return model.readout(x[:, 0])

    def keep(self, sequences: Sequence[int]) -> None:
        """Drop all sequences of the batch but those named, which then come in the order named.

        Raises:
            ValueError: none is named, or one is not in the batch.
        """
        if not sequences or not all(0 <= one < len(self.lengths) for one in sequences):
            raise ValueError(
                f"sequences is {list(sequences)}; expected some of 0 to {len(self.lengths) - 1}"
            )
        self.lengths = [self.lengths[one] for one in sequences]
        for cache in self.caches:
            cache.keep(sequences)
        rows = torch.tensor(sequences, device=self._device)
        self._processed = [one[rows] for one in self._processed]
        self._wanted = [one[rows] for one in self._wanted]

    def _routed_step(
        self,
        block: RoutedBlock,
        cache: BlockCache | OwnCache,
        x: Tensor,
        cosines: Tensor,
        sines: Tensor,
        positions: Tensor,
    ) -> Tensor:
        number = len(self._processed)
        # Only these decide by the router; otherwise it is asked for the tokens that go.
        asked = self.decision in ("threshold", "router")
        logits = block.router_logits(x) if asked else None
        selected = self._wants(block, x, logits, positions)
        if self.cap is not None:
            selected, counts = cap_selection(
                selected,
                self.cap.window,
                self.cap.most(block.depth),
                start=positions[:, 0],
                before=self._wanted[number],
            )
            self._wanted[number] = counts[:, 0]
        self._processed.append(selected)
        taken = selected[:, 0].tolist()
        rows = [row for row, goes in enumerate(taken) if goes]
        if not rows:
            return x
        every = len(rows) == len(taken)
        memory = Stepping(cache, rows, every)
        tokens, index = x, memory.index
        if index is not None:
            tokens = x[index]
            logits = None if logits is None else logits[index]
            if cosines.dim() == 3:
                cosines, sines = cosines[index], sines[index]
        if logits is None:
            logits = block.router_logits(tokens)
        update, _ = block.block(tokens, cosines, sines, memory=memory)
        update = (gate(block.depth.gate, logits).unsqueeze(-1) * update).to(x.dtype)
        return x + update if index is None else x.index_add(0, index, update)

    def _wants(
        self, block: RoutedBlock, x: Tensor, logits: Tensor | None, positions: Tensor
    ) -> Tensor:
        """Return which of the tokens `x` (B, T, D) at `positions` (B, T) a block is to process."""
        number = len(self._processed)
        predicted = block.predictor_logits(x) if self.decision == "predictor" else None
        noise = None
        if self.decision == "bernoulli":
            assert self._draws is not None
            noise = self._draws[number][positions]
        wanted = block.wants(self.decision, positions.shape, logits, predicted, noise)
        return wanted if self._forced is None else self._forced(number, positions)

    def _tables(self, length: int) -> tuple[Tensor, Tensor]:
        """Return rotary tables for `length` positions, and have parts and draws decide."""
        for _, part in self.model.own if self.model.config.own else ():
            part.set_decision(self.decision)
        if self.decision == "bernoulli" and (self._draws is None or self._draws.shape[1] < length):
            rounded = max(LEAST_POSITIONS, 1 << (length - 1).bit_length())
            draws = control_draws(rounded, len(self.model.routed), self._seed)
            self._draws = draws.to(self._device)
        return self.model.rotary(length, self._device)

    def _check_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        if not prompts:
            raise ValueError("no prompts are given; expected at least one")
        for number, prompt in enumerate(prompts):
            if not len(prompt):
                raise ValueError(f"prompt {number} is empty; expected at least one token id")
            self._check_ids(prompt)

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        if not self.lengths:
            raise ValueError("there is no batch yet; call prefill first")
        if len(tokens) != len(self.lengths):
            raise ValueError(
                f"{len(tokens)} tokens are given; expected one for each of the "
                f"{len(self.lengths)} sequences of the batch"
            )
        self._check_ids(tokens)

    def _check_ids(self, ids: Sequence[int]) -> None:
        vocabulary = self.model.config.vocabulary
        if not 0 <= min(ids) <= max(ids) < vocabulary:
            wrong = next(one for one in ids if not 0 <= one < vocabulary)
            raise ValueError(f"token id {wrong} is given; expected ids from 0 to {vocabulary - 1}")


def nominal_share(model: Transformer) -> Forced:
    """Return a rule by which every routed block processes exactly its nominal share of tokens.

    The tokens are evenly spaced, and staggered over blocks and sequences, which do not go together
    under a decision either. For 12.5% the rule repeats after eight tokens, and the share is exact
    in every multiple of these. It knows nothing of the text: it is for benchmarks, where speed must
    not be bought by processing less.

    Raises:
        ValueError: the model has no routed block.
    """
    depth = model.config.depth
    if not isinstance(depth, Routed):
        raise ValueError("the model has no routed block; a nominal share needs one")
    share = Fraction(depth.capacity).limit_denominator(MOST_PERIOD)
    taken, period, routed = share.numerator, share.denominator, len(model.routed)

    def forced(number: int, positions: Tensor) -> Tensor:
        # A token is processed where the share, summed up to it, reaches a whole number.
        sequences = torch.arange(len(positions), device=positions.device)[:, None]
        sums = (positions + sequences) * taken + number * period // routed
        return sums % period >= period - taken

    return forced


def decodes(model: Transformer) -> bool:
    """Whether a cache is enough to decode a model: depth of one's own has none."""
    return not isinstance(model.config.depth, Own) and all(one.decodes for _, one in model.own)


def _causal(model: Transformer) -> tuple[Decision, ...]:
    """Return the decisions that generation can be run under, the headline one first."""
    known = tuple(one for one in model.config.decisions if one != "top_k")
    # every_token is also a limit that any routed model can be run in.
    limit = () if "every_token" in known or model.config.own else ("every_token",)
    return (*known, *limit)
