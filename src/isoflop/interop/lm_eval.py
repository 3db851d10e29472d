"""A model for EleutherAI's lm-evaluation-harness, and its command line with that model known.

    python -m isoflop.interop.lm_eval --model isoflop --model_args run=RUN_FOLDER --tasks TASKS

The harness finds models in its own table alone, so that this module has to be imported first; the
line above is its `lm_eval` in all else. Scores are under a causal decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from isoflop.config import Decision, TaskScore, TaskScores
from isoflop.data import Tokenizer
from isoflop.evaluation import control_noise
from isoflop.generation import Sampling, engine_for, stream
from isoflop.runs import RunFolder
from isoflop.text import quoted
from isoflop.trained import Opened

Scored = tuple[object, list[int], list[int]]
"""What was asked, the ids that are given, and those whose likelihood is asked for."""


@register_model("isoflop")
class IsoflopLM(TemplateLM):
    """A finished run, or a checkpoint folder that `isoflop convert` reads.

    Args:
        run: folder of a finished run.
        pretrained: checkpoint folder with a `tokenizer.json`, in place of a run.
        decision: a causal one; None for the model's headline decision.
        batch_size: requests at a time; `auto` is 16.
        max_length: most tokens of a text that are read; None for what the model was trained on.
        device: `cpu` or `cuda`.
        cache: where prepared corpora lie.
        others: of the harness; not used.

    Raises:
        ValueError: neither or both of `run` and `pretrained` are given, or a folder is not one.
    """

    def __init__(
        self,
        run: str | None = None,
        pretrained: str | None = None,
        decision: Decision | None = None,
        batch_size: int | str | None = 16,
        max_length: int | None = None,
        device: str | None = None,
        cache: str = "cache",
        **others: Any,
    ) -> None:
        super().__init__()
        if (run is None) == (pretrained is None):
            raise ValueError(f"run is {run!r} and pretrained {pretrained!r}; expected one of them")
        opened = Opened.of(Path(run or pretrained or ""))
        self.name, self.model = opened.name, opened.model()
        self.tokens: Tokenizer = opened.tokenizer(Path(cache))
        self.leads = list(opened.leads(self.tokens))
        self.end = opened.config.data.end or 0
        length = opened.config.data.sequence_length
        self.model.to(device or "cpu")
        self.decision = decision or opened.decision
        self.seed = opened.config.seed
        self.batch_size = 16 if batch_size in (None, "auto") else int(str(batch_size))
        self.max_length = max_length or length

    @property
    def eot_token_id(self) -> int:
        """The id that ends a document."""
        return self.end

    @property
    def prefix_token_id(self) -> int:
        """The id that stands before a text of which nothing is given."""
        return self.leads[0] if self.leads else self.end

    @property
    def max_gen_toks(self) -> int:
        """Tokens that are generated where a task does not say: half of those read, at most."""
        return min(256, self.max_length // 2)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **others: Any
    ) -> list[int]:
        """Return the ids of a text, led by the end of a document where training was so."""
        ids: list[int] = list(map(int, self.tokens.encode([string.encode()])[0]))
        return ids if add_special_tokens is False else [*self.leads, *ids]

    def _loglikelihood_tokens(
        self, requests: Sequence[Scored], disable_tqdm: bool = False, **others: Any
    ) -> list[tuple[float, bool]]:
        order = sorted(range(len(requests)), key=lambda at: -len(requests[at][1] + requests[at][2]))
        found: dict[int, tuple[float, bool]] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for at, one in zip(batch, self._scores([requests[at] for at in batch]), strict=True):
                found[at] = one
                self.cache_hook.add_partial("loglikelihood", requests[at][0], one)
        return [found[at] for at in range(len(requests))]

    @torch.inference_mode()
    def _scores(self, batch: Sequence[Scored]) -> Iterator[tuple[float, bool]]:
        """Yield the summed log-likelihood of what is asked for, and whether it is the likeliest."""
        rows = [(given + asked)[-(self.max_length + 1) :] for _, given, asked in batch]
        tokens = torch.zeros(len(rows), max(map(len, rows)) - 1, dtype=torch.int64)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids) - 1] = torch.tensor(ids[:-1])
        device = self.model.embedding.weight.device
        decision = self.decision or self.model.config.decisions[0]
        noise = control_noise(self.model, decision, len(rows), tokens.shape[1], self.seed)
        output = self.model(tokens.to(device), decision=decision, noise=noise)
        logits = output.logits.float().cpu()
        for row, ids, (_, _, asked) in zip(logits, rows, batch, strict=True):
            wanted = torch.tensor(ids[-min(len(asked), len(ids) - 1) :])
            told = row[len(ids) - 1 - len(wanted) : len(ids) - 1].log_softmax(-1)
            greedy = bool((told.argmax(-1) == wanted).all())
            yield float(told.gather(1, wanted[:, None]).sum()), greedy

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of each whole text, in windows that do not overlap."""
        found = []
        for (text,) in [request.args for request in requests]:
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            parts = [(None, *utils.make_disjoint_window(window)) for window in windows]
            found.append(sum(one for one, _ in self._loglikelihood_tokens(parts)))
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return what continues each text, up to the first of its ends.

        A text's beginning is left out where the whole would be longer than `max_length`.

        Raises:
            ValueError: a task asks for so many tokens that nothing of a text would be left.
        """
        found = []
        for context, asked in [request.args for request in requests]:
            given = self.tok_encode(context) or [self.prefix_token_id]
            most = int(asked.get("max_gen_toks", self.max_gen_toks))
            drawn = float(asked.get("temperature", 0.0)) if asked.get("do_sample") else 0.0
            sampling = Sampling(temperature=drawn, top_p=float(asked.get("top_p", 1.0)))
            ends = asked.get("until") or []
            ends = [ends] if isinstance(ends, str) else [end for end in ends if end]
            if most >= self.max_length:
                raise ValueError(
                    f"max_gen_toks is {most}; expected fewer than the {self.max_length} tokens "
                    "that the model reads, so that some of the text are among them"
                )
            kept = given[-(self.max_length - most) :]
            engine = engine_for(self.model, self.decision, seed=self.seed)
            made, text = list[int](), ""
            for (token,) in stream(engine, [kept], sampling, max_tokens=most, stop=[self.end]):
                made += [token.id] if token.id != self.end else []
                text = self.tokens.decode(made).decode(errors="replace")
                if any(end in text for end in ends):
                    break
            for end in ends:
                text = text.split(end)[0]
            found.append(text)
            self.cache_hook.add_partial("generate_until", (context, asked), text)
        return found


def score_tasks(
    folder: RunFolder,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    decision: Decision | None = None,
    cache: Path = Path("cache"),
    device: str = "cpu",
) -> TaskScores:
    """Return what the model of a run, or of a checkpoint, reaches in tasks of the harness.

    Tasks and groups of `include_path` are known beside its own; `limit` is of samples of each.
    The model's headline decision routes unless a causal `decision` is given. A ValueError of one
    line where the run is not finished, or a task cannot be had.
    """
    from lm_eval import __version__, simple_evaluate
    from lm_eval.tasks import TaskManager

    model = IsoflopLM(run=str(folder.path), decision=decision, cache=str(cache), device=device)
    manager = TaskManager(include_path=include_path and str(include_path))
    try:
        manager.load(list(tasks))
    except Exception as problem:  # of the harness, of what reads data sets, of the hub
        said = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
        raise ValueError(quoted(f"tasks {', '.join(tasks)} cannot be had: {said}")) from None
    found = simple_evaluate(model, tasks=list(tasks), task_manager=manager, limit=limit)
    scores = []
    for task, told in found["results"].items():
        for name, value in told.items():
            metric, _, chosen = name.partition(",")
            if not chosen or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = told.get(f"{metric}_stderr,{chosen}")
            scores.append(
                TaskScore(
                    task=task,
                    metric=metric,
                    filter=chosen,
                    value=value,
                    error=error if isinstance(error, float) and math.isfinite(error) else None,
                    samples=found["n-samples"].get(task, {}).get("effective"),
                    shots=found["n-shot"].get(task),
                    limit=limit,
                    decision=model.decision or model.model.config.decisions[0],
                )
            )
    return TaskScores(run_id=model.name, scores=tuple(scores), lm_eval=__version__)


def main() -> None:
    """Run the harness's command line."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
