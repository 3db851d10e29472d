"""`isoflop eval`: the model of a finished run under each of its decisions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.cli.settling import slow_precision
from isoflop.config import (
    Cap,
    DataConfig,
    Decision,
    Measures,
    Precision,
    RunConfig,
    RunEvaluation,
    RunRecord,
    Split,
)
from isoflop.runs import RunFolder

if TYPE_CHECKING:
    from isoflop.data import Tokenizer, TokenStore


def evaluate_run(
    folder: RunFolder,
    *,
    cache: Path,
    split: Split = "test",
    tokens: int | None = None,
    corpus: str | None = None,
    among: Sequence[Decision] = (),
    cap: Cap | None = None,
    device: str = "cpu",
    threads: int | None = None,
    precision: Precision | None = None,
) -> RunEvaluation:
    """Measure the model of a finished run.

    Args:
        folder: the run's.
        cache: where prepared corpora lie.
        split: held-out text to read.
        tokens: targets to read; None for as many as the record's evaluations.
        corpus: to read in place of the run's own, split alike and with the run's tokeniser.
        among: decisions to take; empty for all.
        cap: each causal decision is taken as it is, and once more under this cap.
        device: `cpu` or `cuda`.
        threads: of torch; None for as many as the run was trained with.
        precision: to compute in; None for the run's, with a warning where that is slow here.

    Raises:
        ValueError: the folder holds no finished run or no checkpoint, the corpus cannot be had or
            changed, a decision or the cap does not fit the model, or `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")
    record = finished_record(folder)
    config = record.config
    # Torch takes seconds to load, which nobody should wait for to read of a mistake.
    import torch

    from isoflop.evaluation.measuring import measure
    from isoflop.training import load_model

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
    torch.set_num_threads(threads or record.environment.threads)
    model = load_model(folder, device)
    data, store = _text(config, record, corpus, cache)
    held_out = store.split(split)
    if precision is None:
        precision = config.recipe.precision
        slow = slow_precision(config, device=device, threads=torch.get_num_threads())
        if slow is not None:
            warnings.warn(f"{slow}; --precision fp32 is faster", stacklevel=2)
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            measures = measure(
                model,
                held_out,
                data.sequence_length,
                split=split,
                among=among,
                cap=cap,
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
        token_texts=_texts(measures, store.tokenizer),
    )


def keep(folder: RunFolder, evaluation: RunEvaluation) -> Path:
    """Write `evaluation.json` into the run's folder and return its path."""
    with folder.claim():
        return folder.write_evaluation(evaluation)


def finished_record(folder: RunFolder) -> RunRecord:
    """Return the record of a run that is finished and has its checkpoint.

    Raises:
        ValueError: the folder holds no such run.
    """
    if not (folder.path / "config.json").is_file():
        raise ValueError(
            f"{folder.path} is not a run folder: it has no config.json; "
            "expected one such as runs/STUDY/runs/RUN_ID"
        )
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


def _text(
    config: RunConfig, record: RunRecord, corpus: str | None, cache: Path
) -> tuple[DataConfig, TokenStore]:
    """Return what to read, and its store."""
    from isoflop.data import prepare

    own = config.data
    if corpus is not None and own.tokenizer == "bytes":
        other = DataConfig.model_validate({**own.model_dump(), "corpus": corpus})
        return other, prepare(other, cache)
    store = own_store(config, record, cache)
    if corpus is None:
        return own, store
    other = DataConfig.model_validate({**own.model_dump(), "corpus": corpus})
    return other, prepare(other, cache, store.tokenizer)


def own_store(config: RunConfig, record: RunRecord, cache: Path) -> TokenStore:
    """Return what a run was trained on.

    Raises:
        ValueError: the corpus cannot be had, or changed.
    """
    from isoflop.data import prepare

    store = prepare(config.data, cache)
    if store.sha256 != record.data_sha256:
        raise ValueError(
            f"the data of run {record.run_id} changed: it was trained on SHA-256 "
            f"{record.data_sha256}, now the data has {store.sha256}; restore the corpus"
            + (
                ", or read it as another one with --corpus"
                if config.data.tokenizer == "bytes"
                else ""
            )
        )
    return store


def _texts(measures: Measures, tokenizer: Tokenizer) -> dict[int, str]:
    """Return the text of every id that the measures name."""
    from isoflop.data.tokenizer import END

    return {
        token: tokenizer.decode([token]).decode(errors="backslashreplace") if token else END
        for token in sorted(measures.named_tokens)
    }
