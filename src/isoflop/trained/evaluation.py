"""How well a trained model predicts, by routing decision: `isoflop eval`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from isoflop.config import Cap, Decision, Precision, RunConfig, RunEvaluation, Split
from isoflop.hardware import choose_precision
from isoflop.runs import RunFolder
from isoflop.trained.opened import CACHE, Opened


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


def evaluate_run(
    folder: RunFolder,
    held_out: HeldOut = HeldOut(),
    *,
    cache: Path = CACHE,
    device: str = "cpu",
    threads: int | None = None,
) -> RunEvaluation:
    """Measure a model under each of its decisions.

    Args:
        folder: a finished run's, or one of a checkpoint.
        held_out: what is read.
        cache: where prepared corpora lie.
        device: `cpu` or `cuda`.
        threads: of torch; None for as many as the run was trained with.

    Raises:
        ValueError: the folder holds no finished run and no checkpoint, the corpus cannot be had or
            changed, a decision or the cap does not fit the model, or `threads` is below 1.
    """
    opened = Opened.of(folder.path)
    config = opened.config
    import torch

    from isoflop.data.tokenizer import END
    from isoflop.evaluation.measuring import measure

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
    opened.use_threads(threads)
    data, store = opened.text(held_out.corpus, cache)
    model = opened.model(device)
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
                text=config.evaluation_text,
                seed=config.seed,
            )
    except FloatingPointError as error:
        raise ValueError(f"the model of {folder.path} cannot be evaluated: {error}") from error
    return RunEvaluation(
        run_id=opened.name,
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
