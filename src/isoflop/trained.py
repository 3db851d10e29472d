"""What the model of a finished run is asked: how well it predicts, and what it writes.

`isoflop eval` and `isoflop sample` are these two functions. Torch, which takes seconds to load, is
imported once nothing is left to refuse.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isoflop.config import (
    Cap,
    DataConfig,
    Decision,
    Precision,
    RunConfig,
    RunEvaluation,
    RunRecord,
    SampledToken,
    Split,
    TextSample,
)
from isoflop.hardware import choose_precision
from isoflop.runs import RunFolder

if TYPE_CHECKING:
    from isoflop.data import TextStream, Tokenizer, TokenStore
    from isoflop.generation import Engine, Sampling

MOST_SEED = (1 << 63) - 1
CACHE = Path("cache")


@dataclass(frozen=True)
class HeldOut:
    """What a model is measured on, and how."""

    split: Split = "test"
    tokens: int | None = None
    """Targets to read; None for as many as the record's evaluations."""
    corpus: str | None = None
    """To read in place of the run's own, split alike and with the run's tokeniser."""
    decisions: tuple[Decision, ...] = ()
    """To take; empty for all."""
    cap: Cap | None = None
    """Each causal decision is taken as it is, and once more under this cap."""
    precision: Precision | None = None
    """To compute in; None for the run's, with a warning where that is slow here."""


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


def evaluate_run(
    folder: RunFolder,
    held_out: HeldOut = HeldOut(),
    *,
    cache: Path = CACHE,
    device: str = "cpu",
    threads: int | None = None,
) -> RunEvaluation:
    """Measure the model of a finished run under each of its decisions.

    Args:
        folder: the run's.
        held_out: what is read.
        cache: where prepared corpora lie.
        device: `cpu` or `cuda`.
        threads: of torch; None for as many as the run was trained with.

    Raises:
        ValueError: the folder holds no finished run or no checkpoint, the corpus cannot be had or
            changed, a decision or the cap does not fit the model, or `threads` is below 1.
    """
    _check_threads(threads)
    record = finished_record(folder)
    config = record.config
    import torch

    from isoflop.data.tokenizer import END
    from isoflop.evaluation.measuring import measure
    from isoflop.training import load_model

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
    torch.set_num_threads(threads or record.environment.threads)
    model = load_model(folder, device)
    data, store = _text(config, record, held_out.corpus, cache)
    precision, tokens = held_out.precision, held_out.tokens
    if precision is None:
        precision = config.recipe.precision
        slow = slow_precision(config, device=device, threads=torch.get_num_threads())
        if slow is not None:
            warnings.warn(f"{slow}; --precision fp32 is faster", stacklevel=2)
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            measures = measure(
                model,
                store.split(held_out.split),
                data.sequence_length,
                split=held_out.split,
                among=held_out.decisions,
                cap=held_out.cap,
                windows=data.windows,
                spans=config.spans,
                limit_tokens=config.evaluation_tokens if tokens is None else tokens,
                seed=config.seed,
            )
    except FloatingPointError as error:
        raise ValueError(f"the model of {folder.path} cannot be evaluated: {error}") from error
    return RunEvaluation(
        run_id=record.run_id,
        corpus=data.corpus,
        data_sha256=store.sha256,
        sequence_length=data.sequence_length,
        documents=len(measures.decisions[0].evaluation.document_tokens),
        torch=torch.__version__,
        measures=measures,
        token_texts={
            token: store.tokenizer.decode([token]).decode(errors="backslashreplace")
            if token != data.end or not data.spells
            else END
            for token in sorted(measures.named_tokens)
        },
    )


def sample_run(
    folder: RunFolder,
    wishes: Wishes = Wishes(),
    *,
    cache: Path = CACHE,
    show: Callable[[SampledToken], None] = lambda _: None,
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
    _check_threads(threads)
    if not config.data.spells:
        raise ValueError(
            f"run {record.run_id} was trained on token ids, whose text is not known; expected a "
            "run on text, or one that names its data.ids_tokenizer"
        )
    _check_prompt(wishes.prompt, config)
    import torch

    from isoflop.data import TextStream
    from isoflop.generation import Sampling, WholePasses, engine_for
    from isoflop.training import load_model

    sampling = Sampling(wishes.temperature, wishes.top_k, wishes.top_p, wishes.min_p)
    torch.set_num_threads(threads or record.environment.threads)
    tokenizer = tokenizer_of(config, record, cache)
    engine = engine_for(load_model(folder), wishes.decision, cap=wishes.cap, seed=wishes.seed)
    if isinstance(engine, WholePasses):
        named = ", ".join(one.described for one in config.model.own.values())
        warnings.warn(
            f"{named} does not decode with a cache: each token takes a whole forward pass",
            stacklevel=2,
        )
    ids = _prompt_ids(wishes, config, tokenizer)
    try:
        text, stop = TextStream(tokenizer), config.data.ends
        tokens, reason = _written(engine, ids, sampling, wishes, text, stop, show)
    except FloatingPointError as error:
        raise ValueError(f"the model of {folder.path} cannot generate: {error}") from error
    return TextSample(
        run_id=record.run_id,
        routed_blocks=config.model.routed_blocks,
        reason=reason,
        torch=torch.__version__,
        **{
            **vars(wishes),
            "decision": engine.decision,
            "prompt": tuple(tokens[: len(ids)]),
            "tokens": tuple(tokens[len(ids) :]),
        },
    )


def _written(
    engine: Engine,
    ids: Sequence[int],
    sampling: Sampling,
    wishes: Wishes,
    text: TextStream,
    stop: Sequence[int],
    show: Callable[[SampledToken], None],
) -> tuple[list[SampledToken], Literal["stop", "length"]]:
    """Return the tokens of the prompt and those drawn, each shown as it comes, and the end."""
    from isoflop.generation import stream

    routed = engine.model.config.routed_blocks
    made: list[SampledToken] = []

    def add(one: int, taken: Sequence[bool] | None, *, last: bool = False) -> None:
        blocks = None
        if taken is not None:
            blocks = tuple(block for block, goes in zip(routed, taken, strict=True) if goes)
        made.append(SampledToken(id=one, text=text.add(one, last=last), processed=blocks))
        show(made[-1])

    steps = stream(
        engine,
        [ids],
        sampling,
        max_tokens=wishes.tokens,
        stop=stop,
        seed=wishes.seed,
    )
    for one, taken in zip(ids, engine.processed[:, 0].T.tolist(), strict=True):
        add(one, taken)
    reason = None
    for (token,) in steps:
        reason = token.reason
        add(token.id, token.processed, last=reason is not None)
    assert reason is not None
    return made, reason


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")


def finished_record(folder: RunFolder) -> RunRecord:
    """Return the record of a run that is finished and has its checkpoint."""
    if not (folder.path / "config.json").is_file():
        raise ValueError(
            f"{folder.path} is not a run folder: it has no config.json; "
            "expected one such as runs/STUDY/runs/RUN_ID"
        )
    if any(folder.path.glob("*.safetensors")):
        raise ValueError(
            f"{folder.path} is a checkpoint's folder, not a run's; expected one such as "
            "runs/STUDY/runs/RUN_ID. isoflop.interop.load_pretrained reads it in Python, and a "
            "study that names it in [start] trains from it"
        )
    folder.config()  # refused where it is a link, or damaged
    record = folder.record()
    if record is None or record.state != "finished":
        raise ValueError(
            f"the run of {folder.path} is {folder.state()}; expected a finished one, "
            "whose model is the one that its record tells of"
        )
    if not folder.checkpoints.is_dir() or not any(folder.checkpoints.iterdir()):
        raise ValueError(
            f"{folder.path} has no checkpoint, as after `isoflop clean`; train the model again: "
            f"isoflop train {folder.path / 'config.json'}"
        )
    return record


def slow_precision(config: RunConfig, *, device: str, threads: int) -> str | None:
    """Return that a run computes in bf16, which is slow here, in words; None where it is not.

    Measured where the run is in bf16, which takes half a second and torch.
    """
    if config.recipe.precision != "bf16":
        return None
    here = choose_precision([config], device=device, threads=threads)
    times = here.slowness("bf16")
    if times is None:
        return None
    return (
        f"run {config.run_id} computes in bf16, which is {times:.2g} times as slow as fp32 on this "
        f"machine ({here.figures})"
    )


def _text(
    config: RunConfig, record: RunRecord, corpus: str | None, cache: Path
) -> tuple[DataConfig, TokenStore]:
    """Return what to read, and its store."""
    from isoflop.data import prepare

    own = config.data
    # Whose tokeniser is to be had by its text alone.
    trained = own.tokenizer_name.startswith("bpe:")
    store = _own_store(config, record, cache) if trained or not corpus else None
    if corpus is None:
        assert store is not None
        return own, store
    other = DataConfig.model_validate({**own.model_dump(), "corpus": corpus})
    return other, prepare(other, cache, None if store is None else store.tokenizer)


def _own_store(config: RunConfig, record: RunRecord, cache: Path) -> TokenStore:
    """Return what a run was trained on."""
    from isoflop.data import prepare

    store = prepare(config.data, cache)
    if store.sha256 != record.data_sha256:
        as_another = ", or read it as another one with --corpus"
        raise ValueError(
            f"the data of run {record.run_id} changed: it was trained on SHA-256 "
            f"{record.data_sha256}, now the data has {store.sha256}; restore the corpus"
            f"{'' if config.data.tokenizer_name.startswith('bpe:') else as_another}"
        )
    return store


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


def _prompt_ids(wishes: Wishes, config: RunConfig, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode([wishes.prompt.encode()])[0].tolist()
    # In a stream of documents the end of one stands before the next; within documents it never is
    # read.
    if config.data.windows == "stream":
        ids = [*config.data.ends, *ids]
    if len(ids) + wishes.tokens > config.data.sequence_length:
        warnings.warn(
            f"prompt and continuation take up to {len(ids) + wishes.tokens} tokens; the model was "
            f"trained on windows of {config.data.sequence_length}",
            stacklevel=3,
        )
    return ids


def tokenizer_of(config: RunConfig, record: RunRecord, cache: Path) -> Tokenizer:
    """Return the tokeniser that a run was trained with, from its prepared corpus if need be."""
    from isoflop.data import ByteTokenizer

    if config.data.tokenizer == "bytes":
        return ByteTokenizer()
    return _own_store(config, record, cache).tokenizer
