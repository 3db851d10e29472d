"""The subcommands on one trained model: measure it, let it write, take it elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from isoflop import storage
from isoflop.cli.options import CACHE, Cache, Json, OfModel, taken, tell
from isoflop.config import Decision
from isoflop.runs import RunFolder
from isoflop.text import quoted
from isoflop.trained import HeldOut, Opened, Wishes, evaluate_run, finished_record, sample_run

if TYPE_CHECKING:
    from isoflop.config import RunEvaluation, TaskScores


@dataclass(frozen=True, kw_only=True)
class Evaluate(OfModel):
    """Measure a trained model by routing decision: loss, the leak, agreement with top-k, tokens.

    Without options that say otherwise, the result is kept as evaluation.json in the run's folder.
    Under a cap, each causal decision is shown as it is and capped. With --tasks, scores are kept as
    tasks.json there. Of a checkpoint nothing is kept, and --corpus says what it reads.
    """

    split: Annotated[Literal["test", "validation"], arg(help="Held-out text to read.")] = "test"
    tokens: Annotated[int | None, arg(metavar="INT")] = None
    """Tokens to read; the run's evaluation_tokens else."""
    corpus: Annotated[str | None, arg(metavar="NAME")] = None
    """Another corpus to read, with the run's tokeniser."""
    decisions: tuple[Decision, ...] = ()
    """Who decides, top-k aside; all that the model knows else."""
    device: Annotated[Literal["cpu", "cuda"], arg(help="What to evaluate on.")] = "cpu"
    precision: Annotated[Literal["bf16", "fp32"] | None, arg(metavar="bf16|fp32")] = None
    """The run's if left out."""
    tasks: Annotated[str | None, arg(metavar="NAME,...")] = None
    """Score tasks of lm-evaluation-harness in place of a text."""
    include_path: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Tasks of one's own; with --tasks."""
    limit: Annotated[int | None, arg(metavar="INT")] = None
    """Samples of each task at most; with --tasks."""
    out: Annotated[Path | None, arg(metavar="FILE", help="Write it there, as JSON.")] = None
    json: Json = False

    def __call__(self) -> None:
        from isoflop.terminal.evaluation import evaluation_tables, scores_table
        from isoflop.terminal.tables import answer

        folder = RunFolder(self.checkpoint)
        if self.out is not None and self.out.is_dir():
            raise ValueError(f"--out is {self.out}, a folder; expected the file to write")
        if self.tasks is None and (self.include_path or self.limit is not None):
            raise ValueError("--limit and --include-path are of tasks; expected --tasks with them")
        if self.tasks is not None:
            scores = self._scored(folder, self.tasks.split(","))
            told, tables = scores.model_dump(mode="json"), iter([scores_table(scores)])
        else:
            found = self._measured(folder)
            told = found.model_dump(mode="json")
            tables = evaluation_tables(found, Opened.of(folder.path).config)
        if self.out is not None:
            storage.write_json(self.out, told)
            tell(f"wrote {self.out}")
        answer(told, tables, json=self.json)

    def _measured(self, folder: RunFolder) -> RunEvaluation:
        """Measure on held-out text, and keep that where nothing else was asked for."""
        held_out = taken(HeldOut, self)
        found = evaluate_run(
            folder, held_out, cache=self.cache, device=self.device, threads=self.threads
        )
        if held_out == HeldOut():
            with folder.claim():
                tell(f"wrote {folder.write_evaluation(found)}")
        return found

    def _scored(self, folder: RunFolder, tasks: list[str]) -> TaskScores:
        """Score tasks, and keep the scores as tasks.json in the run's folder."""
        of_text = ("split", "tokens", "corpus", "cap_window", "cap_tokens", "threads", "precision")
        other = [one for one in of_text if getattr(self, one) != getattr(Evaluate, one)]
        if other or len(self.decisions) > 1:
            named = f"--{other[0].replace('_', '-')}" if other else "several --decisions"
            raise ValueError(f"--tasks scores tasks, whose text is their own; expected no {named}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}; expected at least 1")
        try:
            from isoflop.interop.lm_eval import score_tasks
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] != "lm_eval":
                raise
            raise ValueError('--tasks needs lm-eval; pip install "isoflop[lm-eval]"') from None
        found = score_tasks(
            folder,
            [one for one in tasks if one],
            include_path=self.include_path,
            limit=self.limit,
            decision=self.decisions[0] if self.decisions else None,
            cache=self.cache,
            device=self.device,
        )
        if Opened.of(folder.path).record is not None:
            with folder.claim():
                tell(f"wrote {folder.add_scores(found)}")
        return found


@dataclass(frozen=True, kw_only=True)
class Sample(OfModel):
    """Generate text, each token coloured by how many routed blocks processed it."""

    prompt: Annotated[str, arg(metavar="TEXT", help="What is continued.")] = ""
    tokens: Annotated[int, arg(help="Tokens to draw, unless the document ends before.")] = 200
    temperature: Annotated[float, arg(help="Divides the logits; 0 takes the likeliest.")] = 0.8
    top_k: Annotated[int | None, arg(metavar="INT")] = None
    """Draw from so many likely tokens; all else."""
    top_p: Annotated[float, arg(help="Draw from the likeliest of this probability.")] = 1.0
    min_p: float = 0.0
    """Draw from tokens at least so many times as likely as the likeliest."""
    seed: Annotated[int, arg(help="The same seed gives the same text.")] = 0
    decision: Decision | None = None
    """Who decides, not top_k; the model's headline decision else."""
    plain: Annotated[bool, arg(help="Text without colours.")] = False
    write: bool = False
    """Keep it as sample.json in the run's folder, for the report; of a run alone."""
    json: Annotated[bool, arg(help="Print JSON when it is done, in place of text.")] = False

    def __call__(self) -> None:
        from isoflop.terminal.sample import summary, text_display
        from isoflop.terminal.tables import show_json

        folder, wishes = RunFolder(self.checkpoint), taken(Wishes, self)
        if self.write:
            finished_record(folder)
        if self.json:
            found = sample_run(folder, wishes, cache=self.cache, threads=self.threads)
            show_json(found)
        else:
            routed = len(Opened.of(folder.path).config.model.routed_blocks)
            with text_display(routed, plain=self.plain) as show:
                found = sample_run(
                    folder, wishes, cache=self.cache, show=show, threads=self.threads
                )
            print(summary(found), file=sys.stderr)
        if self.write:
            with folder.claim():
                tell(f"wrote {folder.write_sample(found)}")


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Write a run's model for transformers (--to hf), or read one from there (--from hf)."""

    source: Annotated[str, Positional, arg(metavar="SOURCE", help="What is read.")]
    out: Annotated[Path | None, Positional, arg(metavar="[OUT]")] = None
    """Folder to write; SOURCE-hf else."""
    to: Annotated[Literal["hf"] | None, arg(help="SOURCE is a run's folder.")] = None
    from_: Annotated[Literal["hf"] | None, arg(name="from")] = None
    """SOURCE is a folder of transformers, or OWNER/NAME of the hub."""
    as_: Annotated[tuple[str, ...], arg(name="as", metavar="CHOICE...")] = ()
    """Choices to put in place of its own, such as depth=top_k:0.125; with --from."""
    decision: Decision | None = None
    """Who routes when it writes, with --to; the headline decision else."""
    remote_code: bool = False
    """Also write a module for trust_remote_code; with --to."""
    cache: Cache = CACHE

    def __call__(self) -> None:
        from isoflop.interop import export_run, import_checkpoint, parsed_choices

        if (self.to is None) == (self.from_ is None):
            raise ValueError(
                "expected one of --to hf (a run goes out) and --from hf (a model comes in)"
            )
        target = self.out or Path(f"{Path(self.source).name}-{'hf' if self.to else 'isoflop'}")
        if self.to:
            if self.as_:
                raise ValueError("--as changes a model that comes in; expected it with --from hf")
            written = export_run(
                RunFolder(Path(self.source)),
                target,
                cache=self.cache,
                decision=self.decision,
                remote_code=self.remote_code,
            )
            told = written.architecture + ("" if written.tokenizer else ", without a tokeniser")
            told += ", read with trust_remote_code=True" if written.remote else ""
        else:
            if self.decision is not None or self.remote_code:
                one = "--remote-code" if self.remote_code else "--decision"
                raise ValueError(f"{one} is of a run that goes out; expected it with --to hf")
            found = import_checkpoint(self.source, target, parsed_choices(self.as_))
            added = f"; new weights, untrained: {len(found.added)}" if found.added else ""
            told = f"{found.model.blocks} blocks of width {found.model.width}{added}"
        print(quoted(f"wrote {target}: {told}"))
