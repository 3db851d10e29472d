"""Continues prompts by drawing tokens from a model, all at once or as they come."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from isoflop.generation.engine import Engine
from isoflop.generation.sampling import GREEDY, Sampler, Sampling

Reason = Literal["stop", "length"]
"""Why a sequence ended: at a stop id, or at the most tokens."""


class Token(NamedTuple):
    """A token that was drawn."""

    sequence: int
    """Which of the prompts it continues."""
    id: int
    processed: tuple[bool, ...] | None
    """Whether each routed block processed it, in order; None for the last token of a sequence,
    which the model is not run on."""
    reason: Reason | None
    """Why it is the last of its sequence; None where it is not."""


class Continuation(NamedTuple):
    """What was drawn for one prompt."""

    tokens: tuple[Token, ...]
    """A stop id that ended it among them."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids drawn."""
        return tuple(token.id for token in self.tokens)

    @property
    def reason(self) -> Reason:
        """Why it ended."""
        reason = self.tokens[-1].reason
        assert reason is not None
        return reason


def stream(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling = GREEDY,
    *,
    max_tokens: int,
    stop: Collection[int] = (),
    seed: int = 0,
) -> Iterator[tuple[Token, ...]]:
    """Yield the next token of every sequence that still runs, step by step.

    A token is yielded once the model has been run on it, with what its routed blocks decided.

    Args:
        engine: taken up from the start by the prompts.
        prompts: token ids; lengths may differ.
        sampling: how tokens are drawn.
        max_tokens: most tokens drawn for a prompt.
        stop: ids that end a sequence.
        seed: prompt number i draws with seed + i, and so gives the same text alone with that seed.

    Raises:
        ValueError: an argument is out of its range; nothing is run then.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; expected at least 1")
    vocabulary = engine.model.config.vocabulary
    for one in stop:
        if not 0 <= one < vocabulary:
            raise ValueError(f"stop id {one} is given; expected ids from 0 to {vocabulary - 1}")
    # Caches grow with what is drawn beyond that.
    logits = engine.prefill(prompts, reserve=min(max_tokens, 1 << 12) - 1)
    sampler = Sampler(sampling, [seed + number for number in range(len(prompts))])

    def steps() -> Iterator[tuple[Token, ...]]:
        nonlocal logits
        running = list(range(len(prompts)))
        for drawn in range(1, max_tokens + 1):
            ids = sampler.draw(logits)
            end: Reason | None = "length" if drawn == max_tokens else None
            reasons: list[Reason | None] = ["stop" if one in stop else end for one in ids]
            going = [row for row, reason in enumerate(reasons) if reason is None]
            processed: dict[int, tuple[bool, ...]] = {}
            if going:
                if len(going) < len(running):
                    engine.keep(going)
                    sampler.keep(going)
                logits = engine.step([ids[row] for row in going])
                decided = engine.processed[:, :, 0].T.tolist()
                processed = {row: tuple(taken) for row, taken in zip(going, decided, strict=True)}
            yield tuple(
                Token(sequence, ids[row], processed.get(row), reasons[row])
                for row, sequence in enumerate(running)
            )
            running = [running[row] for row in going]
            if not running:
                return

    return steps()


def generate(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling = GREEDY,
    *,
    max_tokens: int,
    stop: Collection[int] = (),
    seed: int = 0,
) -> list[Continuation]:
    """Return a continuation of each prompt. Arguments and errors are those of `stream`."""
    drawn: list[list[Token]] = [[] for _ in prompts]
    for tokens in stream(engine, prompts, sampling, max_tokens=max_tokens, stop=stop, seed=seed):
        for token in tokens:
            drawn[token.sequence].append(token)
    return [Continuation(tuple(tokens)) for tokens in drawn]
