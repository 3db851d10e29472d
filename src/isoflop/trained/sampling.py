"""The text that a trained model writes: `isoflop sample`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isoflop.config import Cap, Decision, SampledToken, TextSample
from isoflop.runs import RunFolder
from isoflop.trained.opened import CACHE, Opened

if TYPE_CHECKING:
    from isoflop.data import TextStream
    from isoflop.generation import Engine, Token

MOST_SEED = (1 << 63) - 1


@dataclass(frozen=True)
class Wishes:
    """What text is asked for."""

    prompt: str = ""
    tokens: int = 200
    """Most that are drawn; a document may end before."""
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    decision: Decision | None = None
    """None for the model's headline decision."""
    cap: Cap | None = None


def sample_run(
    folder: RunFolder,
    wishes: Wishes = Wishes(),
    *,
    cache: Path = CACHE,
    show: Callable[[SampledToken], None] = lambda _: None,
    threads: int | None = None,
) -> TextSample:
    """Continue a prompt with a model, in float32.

    Args:
        folder: a finished run's, or one of a checkpoint.
        wishes: what is asked for.
        cache: where prepared corpora lie; a run on bytes needs none.
        show: gets every token as it comes, those of the prompt first.
        threads: of torch; None for as many as the run was trained with.

    Raises:
        ValueError: the folder holds no finished run and no checkpoint, its tokeniser cannot be had,
            or a wish does not fit the model.
    """
    opened = Opened.of(folder.path)
    _check(wishes, opened)
    import torch

    from isoflop.data import TextStream
    from isoflop.generation import Sampling, WholePasses, engine_for, stream

    sampling = Sampling(wishes.temperature, wishes.top_k, wishes.top_p, wishes.min_p)
    opened.use_threads(threads)
    tokenizer = opened.tokenizer(cache)
    decision = wishes.decision or opened.decision
    engine = engine_for(opened.model(), decision, cap=wishes.cap, seed=wishes.seed)
    model, length = opened.config.model, opened.config.data.sequence_length
    if isinstance(engine, WholePasses):
        named = ", ".join(one.described for one in model.own.values())
        warnings.warn(
            f"{named} does not decode with a cache: each token takes a whole forward pass",
            stacklevel=2,
        )
    ids = [*opened.leads(tokenizer), *tokenizer.encode([wishes.prompt.encode()])[0].tolist()]
    if len(ids) + wishes.tokens > length:
        warnings.warn(
            f"prompt and continuation take up to {len(ids) + wishes.tokens} tokens; the model was "
            f"trained on windows of {length}",
            stacklevel=2,
        )
    try:
        ends = opened.config.data.ends
        text, most = TextStream(tokenizer), wishes.tokens
        steps = stream(engine, [ids], sampling, max_tokens=most, stop=ends, seed=wishes.seed)
        tokens, reason = _written(engine, ids, steps, text, show)
    except FloatingPointError as error:
        raise ValueError(f"the model of {folder.path} cannot generate: {error}") from error
    asked = vars(wishes) | {"decision": engine.decision}
    asked |= {"prompt": tuple(tokens[: len(ids)]), "tokens": tuple(tokens[len(ids) :])}
    return TextSample(
        run_id=opened.name,
        routed_blocks=model.routed_blocks,
        reason=reason,
        torch=torch.__version__,
        **asked,
    )


def _check(wishes: Wishes, opened: Opened) -> None:
    data = opened.config.data
    if wishes.tokens < 1:
        raise ValueError(f"tokens is {wishes.tokens}; expected at least 1")
    if not 0 <= wishes.seed <= MOST_SEED:
        raise ValueError(f"seed is {wishes.seed}; expected from 0 to {MOST_SEED}")
    if not data.spells:
        raise ValueError(
            f"run {opened.name} was trained on token ids, whose text is not known; expected a "
            "run on text, or one that names its data.ids_tokenizer"
        )
    try:
        wishes.prompt.encode()
    except UnicodeEncodeError:
        raise ValueError("the prompt is not valid UTF-8; expected text in UTF-8") from None
    if not wishes.prompt and data.windows == "documents":
        raise ValueError(
            "the prompt is empty; expected some text, since the run was trained within documents "
            "and has never had to begin one"
        )


def _written(
    engine: Engine,
    ids: Sequence[int],
    steps: Iterable[Sequence[Token]],
    text: TextStream,
    show: Callable[[SampledToken], None],
) -> tuple[list[SampledToken], Literal["stop", "length"]]:
    """Return the tokens of the prompt and those drawn, each shown as it comes, and the end."""
    routed = engine.model.config.routed_blocks
    made: list[SampledToken] = []

    def add(one: int, taken: Sequence[bool] | None, *, last: bool = False) -> None:
        blocks = None
        if taken is not None:
            blocks = tuple(block for block, goes in zip(routed, taken, strict=True) if goes)
        made.append(SampledToken(id=one, text=text.add(one, last=last), processed=blocks))
        show(made[-1])

    for one, taken in zip(ids, engine.processed[:, 0].T.tolist(), strict=True):
        add(one, taken)
    reason = None
    for (token,) in steps:
        reason = token.reason
        add(token.id, token.processed, last=reason is not None)
    assert reason is not None
    return made, reason
