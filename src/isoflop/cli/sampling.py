"""`isoflop sample`: text from the model of a finished run, and who processed each token."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.cli.evaluating import finished_record, own_store
from isoflop.config import Cap, Decision, RunConfig, RunRecord, SampledToken, TextSample
from isoflop.runs import RunFolder

if TYPE_CHECKING:
    from isoflop.data import Tokenizer

END_OF_DOCUMENT = 0
MOST_SEED = (1 << 63) - 1


@dataclass(frozen=True)
class Wishes:
    """What text is asked for."""

    prompt: str
    tokens: int
    """Most that are drawn; a document may end before."""
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    seed: int
    decision: Decision | None
    """None for the model's headline decision."""
    cap: Cap | None


def sample_run(
    folder: RunFolder,
    wishes: Wishes,
    *,
    cache: Path,
    show: Callable[[SampledToken], None],
    threads: int | None = None,
) -> TextSample:
    """Continue a prompt with the model of a finished run, in float32.

    Args:
        folder: the run's.
        wishes: what is asked for.
        cache: where prepared corpora lie; a run on bytes needs none.
        show: gets every token as it comes, those of the prompt first.
        threads: of torch; None for as many as the run was trained with.

    Raises:
        ValueError: the folder holds no finished run or no checkpoint, its tokeniser cannot be had,
            or a wish does not fit the model.
    """
    record = finished_record(folder)
    config = record.config
    if wishes.tokens < 1:
        raise ValueError(f"tokens is {wishes.tokens}; expected at least 1")
    if not 0 <= wishes.seed <= MOST_SEED:
        raise ValueError(f"seed is {wishes.seed}; expected from 0 to {MOST_SEED}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")
    _check_prompt(wishes.prompt, config)
    # Torch takes seconds to load, which nobody should wait for to read of a mistake.
    import torch

    from isoflop.data import TextStream
    from isoflop.generation import Engine, Sampling, stream
    from isoflop.training import load_model

    sampling = Sampling(wishes.temperature, wishes.top_k, wishes.top_p, wishes.min_p)
    torch.set_num_threads(threads or record.environment.threads)
    tokenizer = _tokenizer(config, record, cache)
    engine = Engine(load_model(folder), wishes.decision, cap=wishes.cap, seed=wishes.seed)
    ids = _prompt_ids(wishes.prompt, config, tokenizer)
    if len(ids) + wishes.tokens > config.data.sequence_length:
        warnings.warn(
            f"prompt and continuation take up to {len(ids) + wishes.tokens} tokens; the model was "
            f"trained on windows of {config.data.sequence_length}",
            stacklevel=2,
        )
    text = TextStream(tokenizer)
    routed = config.model.routed_blocks

    def token(one: int, taken: Sequence[bool] | None, *, last: bool = False) -> SampledToken:
        blocks = None
        if taken is not None:
            blocks = tuple(block for block, goes in zip(routed, taken, strict=True) if goes)
        made = SampledToken(id=one, text=text.add(one, last=last), processed=blocks)
        show(made)
        return made

    try:
        steps = stream(
            engine,
            [ids],
            sampling,
            max_tokens=wishes.tokens,
            stop=[END_OF_DOCUMENT],
            seed=wishes.seed,
        )
        decided = engine.processed[:, 0].T.tolist()
        prompt = [token(one, taken) for one, taken in zip(ids, decided, strict=True)]
        drawn, reason = [], None
        for (one,) in steps:
            reason = one.reason
            drawn.append(token(one.id, one.processed, last=reason is not None))
    except FloatingPointError as error:
        raise ValueError(f"the model of {folder.path} cannot generate: {error}") from error
    assert reason is not None
    return TextSample(
        run_id=record.run_id,
        routed_blocks=routed,
        decision=engine.decision,
        cap=wishes.cap,
        temperature=wishes.temperature,
        top_k=wishes.top_k,
        top_p=wishes.top_p,
        min_p=wishes.min_p,
        seed=wishes.seed,
        prompt=tuple(prompt),
        tokens=tuple(drawn),
        reason=reason,
        torch=torch.__version__,
    )


def keep(folder: RunFolder, sample: TextSample) -> Path:
    """Write `sample.json` into the run's folder and return its path."""
    with folder.claim():
        return folder.write_sample(sample)


def _check_prompt(prompt: str, config: RunConfig) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ValueError("the prompt is not valid UTF-8; expected text in UTF-8") from None
    if not prompt and config.data.windows == "documents":
        raise ValueError(
            "the prompt is empty; expected some text, since the run was trained within documents "
            "and has never had to begin one"
        )


def _prompt_ids(prompt: str, config: RunConfig, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode([prompt.encode()])[0].tolist()
    # In a stream of documents the end of one stands before the next; within documents it never is
    # read.
    return [END_OF_DOCUMENT, *ids] if config.data.windows == "stream" else ids


def _tokenizer(config: RunConfig, record: RunRecord, cache: Path) -> Tokenizer:
    from isoflop.data import ByteTokenizer

    if config.data.tokenizer == "bytes":
        return ByteTokenizer()
    return own_store(config, record, cache).tokenizer
