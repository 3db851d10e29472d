"""Measures steps of decoding: dense and routed models of equal shape, and Hugging Face's Llama.

Each case is timed in a fresh process, in which the contenders take turns. Decisions are forced to
the nominal share, so that speed is not bought by processing less. Steps are plain ones over a
filled cache: random numbers fill it, not a prefill, since how long a step takes does not hang on
what the cache holds, and a prefill of the longest contexts would take minutes.

Axes: B batch, G key/value heads, T time, K head width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.bench.cases import (
    DENSE,
    HEAD_WIDTH,
    NO_PEER,
    ROUTED,
    ROUTED_DEPTH,
    VOCABULARY,
    Implementation,
    llama,
    plain_model,
)
from isoflop.bench.machine import DTYPES, in_fresh_process
from isoflop.bench.measured import (
    TURN_SECONDS,
    Paired,
    Report,
    Watch,
    conditions,
    in_turns,
    mean_seconds,
    paired,
)
from isoflop.config import Frozen, ModelConfig, Precision
from isoflop.costs import forward_flops, parameters
from isoflop.generation import BlockCache, Engine, nominal_share
from isoflop.hardware import usable_cores, use_threads
from isoflop.model import RoutedBlock, build

CONTEXTS = (256, 1024, 2048, 8192)
BATCHES = (1, 16)
PERIOD = 8
"""Tokens after which the nominal share repeats, and is exact; turns are whole periods."""
GROWTH = 32
"""A turn adds at most a part in so many to the context, or a period where that is more. Then the
context is set back."""
LEAST_ROUNDS = 3


class DecodeCase(Frozen):
    """A dense model, the routed one of its shape, and what they decode."""

    context: int
    """Tokens that each sequence has seen."""
    batch: int
    threads: int
    dtype: Precision
    model: ModelConfig
    """The dense one."""
    seconds: float
    """Time for rounds, of which there are at least `LEAST_ROUNDS`."""

    @property
    def routed(self) -> ModelConfig:
        """The routed model of the same shape."""
        return self.model.model_copy(update={"depth": ROUTED_DEPTH})


class DecodeRow(Paired):
    """The measured step of one contender, beside the dense model's in the same rounds."""

    context: int
    batch: int
    threads: int
    dtype: Precision
    variant: str
    implementation: Implementation
    width: int
    blocks: int
    parameters: int
    """Total parameters."""
    tokens_per_second: float
    """Of all sequences."""
    realised_share: float
    """Of the tokens that routed blocks processed; 1 where none is routed."""
    cache_bytes: int
    """Of keys and values stored at this context, as measured."""
    flops_per_step: float

    @property
    def name(self) -> str:
        """The contender in words."""
        return self.variant if self.implementation == "isoflop" else "Hugging Face's Llama"


DecodeReport = Report[DecodeRow]


def decode_cases(
    *,
    contexts: Sequence[int] = CONTEXTS,
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] | None = None,
    dtypes: Sequence[Precision] = ("fp32", "bf16"),
    width: int = 512,
    blocks: int = 8,
    seconds: float = 6.0,
) -> tuple[DecodeCase, ...]:
    """Return the comparison of every dtype, number of threads, batch and context.

    Args:
        contexts: tokens that each sequence has seen.
        batches: sequences decoded together.
        threads: cores to use; None for 1 and, where there are as many, 2.
        dtypes: of weights and cache.
        width: of the model; heads are `HEAD_WIDTH` wide.
        blocks: of the model; every other one is routed.
        seconds: time for the rounds of each case.

    Raises:
        ValueError: a number is out of its range, or there is nothing to measure.
    """
    if threads is None:
        threads = [one for one in (1, 2) if one <= usable_cores().count]
    units = {"context": (contexts, PERIOD), "batch": (batches, 1), "threads": (threads, 1)}
    for name, (given, unit) in (units | {"blocks": ((blocks,), ROUTED_DEPTH.every)}).items():
        for value in given:
            if value < unit or value % unit:
                raise ValueError(f"{name} is {value}; expected {unit} or a multiple of it")
    model = plain_model(width, blocks, HEAD_WIDTH, VOCABULARY)
    cases = tuple(
        DecodeCase(
            model=model, context=context, batch=batch, threads=one, dtype=dtype, seconds=seconds
        )
        for dtype, one, batch, context in product(
            dict.fromkeys(dtypes), sorted(set(threads)), sorted(set(batches)), sorted(set(contexts))
        )
    )
    if not cases:
        raise ValueError("there is nothing to measure; expected a context, batch, threads, dtype")
    return cases


def bench_decode(
    cases: Sequence[DecodeCase], *, force: bool = False, watch: Watch = lambda _: None
) -> DecodeReport:
    """Measure every case in a process of its own.

    The peer is left out with a note where it is not installed, a case where its process was killed.

    Args:
        cases: as `decode_cases` makes them.

    Raises:
        ValueError: the machine is busy.
    """
    found = conditions(force=force, threads=cases[0].threads)
    peer = find_spec("transformers") is not None
    notes = [] if peer else [NO_PEER]
    rows: list[DecodeRow] = []
    for number, case in enumerate(cases, 1):
        place = f"{case.dtype}, batch {case.batch}, {case.context:,} tokens"
        watch(f"{number} of {len(cases)}: {place}, threads: {case.threads}")
        try:
            rows += in_fresh_process(measure, case, peer=peer)
        except BrokenProcessPool:
            notes.append(f"{place}: left out, its process was killed, as where memory runs out")
    return DecodeReport(rows=tuple(rows), notes=tuple(notes), **found)


def measure(case: DecodeCase, *, peer: bool) -> list[DecodeRow]:
    """Time a case in this process: dense, routed and, where asked for, the peer."""
    reserve = max(PERIOD, case.context // GROWTH)
    shape = (case.context, case.batch, reserve, DTYPES[case.dtype])
    with use_threads(case.threads):
        contenders: list[Decoder] = [
            EngineDecoder(case.model, *shape),
            EngineDecoder(case.routed, *shape),
        ]
        if peer:
            contenders.append(LlamaDecoder(case.model, *shape))
        turns = []
        for decoder in contenders:
            turn(decoder, PERIOD)
            periods = round(TURN_SECONDS / (turn(decoder, PERIOD) * PERIOD))
            steps = PERIOD * max(1, min(periods, reserve // PERIOD))
            turns.append(partial(turn, decoder, steps))
        times = in_turns(turns, seconds=case.seconds, rounds=LEAST_ROUNDS)
    return [
        _row(case, decoder, paired(times[0], own))
        for decoder, own in zip(contenders, times, strict=True)
    ]


def turn(decoder: Decoder, steps: int) -> float:
    """Return the mean seconds of some steps, after which the context is set back."""
    seconds = mean_seconds(decoder.step, steps)
    decoder.rewind(steps)
    return seconds


def _row(case: DecodeCase, decoder: Decoder, times: Mapping[str, Any]) -> DecodeRow:
    ours = isinstance(decoder, EngineDecoder)
    share = decoder.realised_share if isinstance(decoder, EngineDecoder) else 1.0
    model = case.model if share == 1 else case.routed
    # What a period adds to a forward pass.
    before, after = (forward_flops(model, case.context + more).total for more in (0, PERIOD))
    return DecodeRow(
        variant=DENSE if model is case.model else ROUTED,
        implementation="isoflop" if ours else "transformers",
        **case.model_dump(include={"context", "batch", "threads", "dtype"}),
        **model.model_dump(include={"width", "blocks"}),
        **times,
        parameters=parameters(model).total,
        tokens_per_second=case.batch / times["step_seconds"],
        realised_share=share,
        cache_bytes=decoder.cache_bytes,
        flops_per_step=case.batch * (after - before) / PERIOD,
    )


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
        forced = nominal_share(made) if made.routed else None
        self.engine = Engine(made, forced=forced)
        positions = torch.arange(context).expand(batch, -1)
        caches = []
        for block, attention in zip(made.blocks, made.attentions, strict=True):
            lengths, slots = [context] * batch, context + reserve
            if isinstance(block, RoutedBlock):
                assert forced is not None
                lengths, slots = forced(made.routed.index(block), positions).sum(1).tolist(), 0
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


SHOWN = (
    *("dtype", "threads", "batch", "context", "name", "step_seconds", "tokens_per_second"),
    *("speed_ratio", "low", "high", "flops_per_step", "realised_share", "cache_bytes"),
)


def describe_decode(report: DecodeReport) -> list[str]:
    """Return a report as lines for a terminal."""
    return report.told(
        "speed ratio: dense step time over this one, median of paired rounds, and its quartiles; "
        f"share: of tokens in routed blocks, forced to {ROUTED_DEPTH.capacity:.1%}",
        SHOWN,
    )
