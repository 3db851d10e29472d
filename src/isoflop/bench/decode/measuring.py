"""Measures steps of decoding: dense and routed models of equal shape, and Hugging Face's Llama.

Each case is timed in a fresh process, in which the contenders take turns. Decisions are forced to
the nominal share, so that speed is not bought by processing less. A prefill is not timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from isoflop.bench.cases import (
    DENSE,
    NO_PEER,
    ROUTED,
    VOCABULARY,
    Implementation,
    hidden_width,
)
from isoflop.bench.decode.decoders import PERIOD, Decoder, EngineDecoder, LlamaDecoder
from isoflop.bench.machine import DTYPES, in_fresh_process, told_bytes
from isoflop.bench.measured import (
    TURN_SECONDS,
    Report,
    Watch,
    conditions,
    in_turns,
    mean_seconds,
    paired,
    thread_words,
)
from isoflop.config import Frozen, ModelConfig, Precision, TopK
from isoflop.costs import cache_bytes, forward_flops, parameters
from isoflop.hardware import usable_cores, use_threads

CONTEXTS = (256, 1024, 2048, 8192)
BATCHES = (1, 16)
HEAD_WIDTH = 64
DEPTH = TopK(capacity=0.125, every=2)
GROWTH = 32
"""A turn adds at most a part in so many to the context, or a period where that is more. Then the
context is set back."""
LEAST_ROUNDS = 3

_MEMORY = Path("/proc/meminfo")


class _Decoded(Frozen):
    """What is decoded, and how."""

    context: int
    """Tokens that each sequence has seen."""
    batch: int
    threads: int
    dtype: Precision

    @property
    def panel(self) -> str:
        """The precision and the threads in words."""
        return f"{self.dtype}, {thread_words(self.threads)}"

    @property
    def place(self) -> str:
        """All of it in words."""
        return f"{self.panel}, batch {self.batch}, {self.context:,} tokens"


class DecodeCase(_Decoded):
    """A dense model, the routed one of its shape, and what they decode."""

    model: ModelConfig
    """The dense one."""
    seconds: float
    """Time for rounds, of which there are at least `LEAST_ROUNDS`."""

    @property
    def routed(self) -> ModelConfig:
        """The routed model of the same shape."""
        return self.model.model_copy(update={"depth": DEPTH})


class DecodeRow(_Decoded):
    """The measured step of one contender, beside the dense model's in the same rounds."""

    variant: str
    implementation: Implementation
    width: int
    blocks: int
    heads: int
    head_width: int
    hidden: int
    vocabulary: int
    parameters: int
    """Total parameters."""
    step_seconds: float
    """Median over rounds."""
    tokens_per_second: float
    """Of all sequences."""
    speed_ratio: float
    """Dense step time over this one: the median over rounds of the paired ratio."""
    low: float
    """Lower quartile over rounds."""
    high: float
    """Upper quartile over rounds."""
    realised_share: float
    """Of the tokens that routed blocks processed; 1 where none is routed."""
    cache_bytes: int
    """Of keys and values stored at this context, as measured."""
    flops_per_step: float
    parameters_read: float
    """Mean weights that a step needs: of a routed block, where any sequence's token goes."""
    bytes_read: float
    """Mean bytes of weights, keys and values that a step needs."""
    flop_ratio: float
    """Dense FLOPs per step over these; as the next two, what would be `speed_ratio` if nothing
    else took time."""
    parameter_ratio: float
    """Dense weights read per step over these."""
    byte_ratio: float
    """Dense bytes read per step over these."""
    cache_ratio: float
    """Cache bytes over the dense model's."""
    rounds: int

    @property
    def name(self) -> str:
        """The contender in words."""
        return self.variant if self.implementation == "isoflop" else "Hugging Face's Llama"

    @property
    def is_routed(self) -> bool:
        """Whether tokens skipped blocks."""
        return self.realised_share < 1

    @property
    def is_reference(self) -> bool:
        """Whether this is the dense model that the others are held against."""
        return not self.is_routed and self.implementation == "isoflop"


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
    cores = usable_cores().count
    threads = tuple(one for one in (1, 2) if one <= cores) if threads is None else threads
    given = {"contexts": contexts, "batches": batches, "threads": threads, "dtypes": dtypes}
    exact = f"a multiple of {PERIOD}, over which a share of {DEPTH.capacity:.1%} is exact"
    several = f"a multiple of {HEAD_WIDTH}, the width of a head"
    wrong = [
        *(f"no {name} are given; expected at least one" for name in given if not given[name]),
        *(f"a context is {n}; expected {exact}" for n in contexts if n < PERIOD or n % PERIOD),
        *(f"a batch is {n}; expected at least 1 sequence" for n in batches if n < 1),
        *(
            f"threads is {n}; expected 1 to {cores}, the cores at hand"
            for n in threads
            if not 1 <= n <= cores
        ),
        *(
            f"width is {n}; expected {several}"
            for n in (width,)
            if n < HEAD_WIDTH or n % HEAD_WIDTH
        ),
        *(
            f"blocks is {n}; expected at least 2, since every other is routed"
            for n in (blocks,)
            if n < DEPTH.every
        ),
    ]
    if wrong:
        raise ValueError(wrong[0])
    model = ModelConfig(
        vocabulary=VOCABULARY,
        width=width,
        blocks=blocks,
        heads=width // HEAD_WIDTH,
        head_width=HEAD_WIDTH,
        hidden=hidden_width(width),
    )
    return tuple(
        DecodeCase(
            model=model, context=context, batch=batch, threads=one, dtype=dtype, seconds=seconds
        )
        for dtype in dict.fromkeys(dtypes)
        for one in sorted(set(threads))
        for batch in sorted(set(batches))
        for context in sorted(set(contexts))
    )


def bench_decode(
    cases: Sequence[DecodeCase], *, force: bool = False, watch: Watch = lambda _: None
) -> DecodeReport:
    """Measure every case in a process of its own.

    The peer is left out with a note where it is not installed, a case where its caches would not
    fit into the memory that is free.

    Args:
        cases: as `decode_cases` makes them.

    Raises:
        ValueError: the machine is busy, or no case fits into memory.
    """
    found = conditions(force=force, threads=cases[0].threads)
    peer = find_spec("transformers") is not None
    notes = [] if peer else [NO_PEER]
    rows: list[DecodeRow] = []
    for number, case in enumerate(cases, 1):
        needed, free = needed_bytes(case, peer=peer), told_bytes(_MEMORY, "MemAvailable")
        if free is not None and needed > free:
            notes.append(
                f"{case.place}: left out, since it needs {needed / 1e9:.1f} GB of memory and "
                f"{free / 1e9:.1f} GB are free"
            )
            continue
        watch(f"{number} of {len(cases)}: {case.place}")
        rows += in_fresh_process(measure, case, peer=peer)
    if not rows:
        raise ValueError(f"there is nothing to measure: {'; '.join(notes) or 'no cases given'}")
    return DecodeReport(
        rows=tuple(rows),
        notes=tuple(notes),
        transformers=version("transformers") if peer else None,
        **found,
    )


def measure(case: DecodeCase, *, peer: bool) -> list[DecodeRow]:
    """Time a case in this process: dense, routed and, where asked for, the peer."""
    reserve = max(1, case.context // GROWTH)
    shape = (case.context, case.batch, max(reserve, PERIOD), DTYPES[case.dtype])
    with use_threads(case.threads):
        dense, routed = EngineDecoder(case.model, *shape), EngineDecoder(case.routed, *shape)
        contenders: list[tuple[Decoder, int]] = [(dense, 1), (routed, PERIOD)]
        if peer:
            contenders.append((LlamaDecoder(case.model, *shape), 1))
        turns = []
        for decoder, unit in contenders:
            turn(decoder, unit)
            units = round(TURN_SECONDS / (turn(decoder, unit) * unit))
            steps = unit * max(1, min(units, reserve // unit))
            turns.append(partial(turn, decoder, steps))
        times = in_turns(turns, seconds=case.seconds, rounds=LEAST_ROUNDS)
    return [
        _row(case, decoder, routed if decoder is routed else dense, dense, (own, times[0]))
        for (decoder, _), own in zip(contenders, times, strict=True)
    ]


def turn(decoder: Decoder, steps: int) -> float:
    """Return the mean seconds of some steps, after which the context is set back."""
    seconds = mean_seconds(decoder.step, steps)
    decoder.rewind(steps)
    return seconds


def needed_bytes(case: DecodeCase, *, peer: bool) -> int:
    """Return the memory that a case takes: weights and caches of all contenders, and copies.

    Our slots grow by doubling; the peer copies a block's cache at a step.
    """
    size = DTYPES[case.dtype].itemsize
    dense = cache_bytes(case.model, case.context, case.batch, size)
    routed = cache_bytes(case.routed, case.context, case.batch, size)
    weights = 4 * parameters(case.routed).total
    return (3 if peer else 2) * (weights + dense) + routed


def _row(
    case: DecodeCase,
    decoder: Decoder,
    ours: EngineDecoder,
    dense: EngineDecoder,
    times: tuple[Sequence[float], Sequence[float]],
) -> DecodeRow:
    """Return what was measured of a decoder, whose shape `ours` has; times are its and dense."""
    own, dense_times = times
    seconds, size, model = median(own), DTYPES[case.dtype].itemsize, ours.engine.model.config
    flops = _flops_per_step(model, case)
    read, dense_read = (of.parameters_read * size + of.cache_bytes_read for of in (ours, dense))
    shape = {"width", "blocks", "heads", "head_width", "hidden", "vocabulary"}
    return DecodeRow(
        variant=DENSE if ours is dense else ROUTED,
        implementation="isoflop" if decoder is ours else "transformers",
        **case.model_dump(include={"context", "batch", "threads", "dtype"}),
        **model.model_dump(include=shape),
        parameters=parameters(model).total,
        step_seconds=seconds,
        tokens_per_second=case.batch / seconds,
        **paired(dense_times, own),
        realised_share=ours.realised_share,
        cache_bytes=decoder.cache_bytes,
        flops_per_step=flops,
        parameters_read=ours.parameters_read,
        bytes_read=read,
        flop_ratio=_flops_per_step(case.model, case) / flops,
        parameter_ratio=dense.parameters_read / ours.parameters_read,
        byte_ratio=dense_read / read,
        cache_ratio=decoder.cache_bytes / dense.cache_bytes,
        rounds=len(own),
    )


def _flops_per_step(model: ModelConfig, case: DecodeCase) -> float:
    """Return the FLOPs of a step at the context: what a period adds to a forward pass."""
    before, after = (forward_flops(model, case.context + more).total for more in (0, PERIOD))
    return case.batch * (after - before) / PERIOD
