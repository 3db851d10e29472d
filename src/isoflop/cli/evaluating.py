"""The subcommand that measures a model: on held-out text, or in tasks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from isoflop import storage
from isoflop.cli.options import (
    CACHE,
    Cache,
    CapTokens,
    CapWindow,
    Checkpoint,
    Json,
    TorchThreads,
    cap_of,
)
from isoflop.config import Decision
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.config import RunEvaluation, TaskScores
    from isoflop.runs import RunFolder


@dataclass(frozen=True)
class EvaluationOptions:
    """What a model is measured on, and where that goes."""

    split: Annotated[Literal["test", "validation"], arg(help="Held-out text to read.")] = "test"
    tokens: Annotated[
        int | None, arg(metavar="INT", help="Tokens to read; the run's evaluation_tokens else.")
    ] = None
    corpus: Annotated[
        str | None,
        arg(metavar="NAME", help="Another corpus to read, with the run's tokeniser."),
    ] = None
    decisions: Annotated[
        tuple[Decision, ...], arg(help="Who decides, top-k aside; all that the model knows else.")
    ] = ()
    cap_window: CapWindow = None
    cap_tokens: CapTokens = None
    cache: Cache = CACHE
    device: Annotated[Literal["cpu", "cuda"], arg(help="What to evaluate on.")] = "cpu"
    threads: TorchThreads = None
    precision: Annotated[
        Literal["bf16", "fp32"] | None, arg(metavar="bf16|fp32", help="The run's if left out.")
    ] = None
    tasks: Annotated[
        str | None,
        arg(metavar="NAME,...", help="Score tasks of lm-evaluation-harness in place of a text."),
    ] = None
    include_path: Annotated[
        Path | None, arg(metavar="FOLDER", help="Tasks of one's own; with --tasks.")
    ] = None
    limit: Annotated[
        int | None, arg(metavar="INT", help="Samples of each task at most; with --tasks.")
    ] = None
    out: Annotated[Path | None, arg(metavar="FILE", help="Write it there, as JSON.")] = None
    json: Json = False


def _scored(folder: RunFolder, options: EvaluationOptions) -> TaskScores:
    """Score tasks, and keep the scores as tasks.json in the run's folder."""
    of_text = ("split", "tokens", "corpus", "cap_window", "cap_tokens", "threads", "precision")
    other = [one for one in of_text if getattr(options, one) != getattr(EvaluationOptions, one)]
    if other or len(options.decisions) > 1:
        named = f"--{other[0].replace('_', '-')}" if other else "several --decisions"
        raise ValueError(f"--tasks scores tasks, whose text is their own; expected no {named}")
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"limit is {options.limit}; expected at least 1")
    try:
        from isoflop.interop.lm_eval import score_tasks
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "lm_eval":
            raise
        raise ValueError('--tasks needs lm-eval; pip install "isoflop[lm-eval]"') from None
    found = score_tasks(
        folder,
        [one for one in str(options.tasks).split(",") if one],
        include_path=options.include_path,
        limit=options.limit,
        decision=options.decisions[0] if options.decisions else None,
        cache=options.cache,
        device=options.device,
    )
    with folder.claim():
        print(quoted(f"wrote {folder.add_scores(found)}"), file=sys.stderr)
    return found


def evaluate(
    checkpoint: Checkpoint,
    options: Annotated[EvaluationOptions, arg(name="")],
) -> None:
    """Measure a trained model by routing decision: loss, the leak, agreement with top-k, tokens.

    Without options that say otherwise, the result is kept as evaluation.json in the run's folder.
    Under a cap, each causal decision is shown as it is and capped. With --tasks, scores are kept as
    tasks.json there.
    """
    from isoflop.runs import RunFolder
    from isoflop.terminal.evaluation import evaluation_tables, scores_table
    from isoflop.terminal.tables import answer

    folder = RunFolder(checkpoint)
    if options.tasks is not None:
        scored = _scored(folder, options)
        told, tables = scored.model_dump(mode="json"), iter([scores_table(scored)])
    else:
        found = _measured(folder, options)
        told, tables = found.model_dump(mode="json"), evaluation_tables(found, folder.config())
    if options.out is not None:
        storage.write_json(options.out, told)
        print(quoted(f"wrote {options.out}"), file=sys.stderr)
    answer(told, tables, json=options.json)


def _measured(folder: RunFolder, options: EvaluationOptions) -> RunEvaluation:
    """Measure on held-out text, and keep that where nothing else was asked for."""
    from isoflop.trained import HeldOut, evaluate_run

    cap = cap_of(options.cap_window, options.cap_tokens)
    held_out = HeldOut(
        *(options.split, options.tokens, options.corpus, options.decisions),
        *(cap, options.precision),
    )
    found = evaluate_run(
        folder, held_out, cache=options.cache, device=options.device, threads=options.threads
    )
    if held_out == HeldOut():
        with folder.claim():
            print(quoted(f"wrote {folder.write_evaluation(found)}"), file=sys.stderr)
    return found
