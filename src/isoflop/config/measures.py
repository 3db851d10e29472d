"""What is asked of a trained model beyond its loss: who decides, what that changes, what it writes.

Here rather than where it is measured, so that a report reads it without torch. Intervals are those
that other documents would give, at 95%; an estimate has no ends with fewer than two documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from isoflop.config.model import Cap, Decision
from isoflop.config.record import Evaluation
from isoflop.estimate import Estimate
from isoflop.frozen import Frozen


class Leak(Frozen):
    """How much lower the loss is under top-k, which looks ahead, than under a causal decision."""

    nats: Estimate
    """Nats per token, paired by document; positive where top-k is lower."""
    share: Estimate | None
    """The same as a share of the causal loss; None where that is zero."""


class FutureChange(Frozen):
    """What becomes of the logits up to a random position when every later token is another one."""

    windows: int
    logits: int
    """Next-token logits compared, one set for each position up to the cut of each window."""
    changed: float
    """Share of them that differ in any bit."""
    changed_visibly: float
    """Share of them with an entry that differs by more than 1e-3."""


class Agreement(Frozen):
    """How a decision compares with membership in the top k of the same windows."""

    accuracy: float
    """Share of tokens that both select or both skip."""
    precision: float | None
    """Share of the selected tokens that are in the top k; None where none is selected."""
    recall: float
    """Share of the top k that is selected."""


class RoutedEntropy(Frozen):
    """Entropy of the next-token prediction at tokens that a block processed and skipped, nats."""

    processed: Estimate | None
    """None where no token was processed."""
    skipped: Estimate | None
    """None where none was skipped."""
    difference: Estimate | None
    """Processed less skipped."""


class TokenSelection(Frozen):
    """How often a vocabulary id was processed."""

    token: int
    occurrences: int = Field(ge=1)
    selected: int

    @property
    def share(self) -> float:
        """Share of the occurrences that were processed."""
        return self.selected / self.occurrences


class RouterWeights(Frozen):
    """How many router weights r = w.x lie in each of equal ranges, by what became of the token."""

    edges: tuple[float, ...]
    """Ends of the ranges, one more than there are; the outer two hold what lies beyond them."""
    processed: tuple[int, ...]
    skipped: tuple[int, ...]

    @model_validator(mode="after")
    def _by_range(self) -> RouterWeights:
        if not len(self.edges) - 1 == len(self.processed) == len(self.skipped):
            raise ValueError("edges, processed and skipped differ in their number of ranges")
        if min((*self.processed, *self.skipped), default=0) < 0:
            raise ValueError("processed and skipped count tokens; expected none below 0")
        return self


class BlockMeasures(Frozen):
    """What one routed block does under one decision."""

    block: int
    """Index in the model."""
    nominal_capacity: float
    """Share of a window that top-k selects."""
    realised_capacity: float
    agreement: Agreement | None
    """None for top-k itself."""
    entropy: RoutedEntropy
    share_by_position: tuple[float, ...] = Field(min_length=1)
    """Share selected in each of equal ranges of a window's positions, in order."""
    never_selected: tuple[int, ...]
    """Frequent ids, of which no occurrence is selected in this block."""
    most_selected: tuple[TokenSelection, ...]
    """Frequent ids with the largest share selected, the largest first."""
    least_selected: tuple[TokenSelection, ...]
    """Frequent ids with the smallest share selected, the smallest first."""
    router_weights: RouterWeights | None = None
    """Of the first windows; None in evaluations of earlier versions."""


class Stretch(Frozen):
    """Tokens that follow one another in a window, from its start, and who processed each."""

    tokens: tuple[int, ...]
    processed: tuple[tuple[bool, ...], ...]
    """By routed block, then by token."""

    @model_validator(mode="after")
    def _by_token(self) -> Stretch:
        if any(len(row) != len(self.tokens) for row in self.processed):
            raise ValueError(f"processed has rows that are not of {len(self.tokens)} tokens")
        return self


class DecisionMeasures(Frozen):
    """A model under one routing decision."""

    evaluation: Evaluation
    loss: Estimate
    """Nats per token."""
    bits_per_byte: Estimate | None
    """None where the targets stand for no text."""
    leak: Leak | None = None
    """None for top-k and for models without routed blocks."""
    future: FutureChange | None = None
    """None for models without routed blocks."""
    blocks: tuple[BlockMeasures, ...] = ()
    never_selected: tuple[int, ...] = ()
    """Frequent ids, of which no occurrence is selected in any block."""
    stretch: Stretch | None = None
    """Of the first whole window; None for models without routed blocks."""

    @model_validator(mode="after")
    def _by_block(self) -> DecisionMeasures:
        if self.stretch is not None and len(self.stretch.processed) != len(self.blocks):
            raise ValueError(f"stretch is not of {len(self.blocks)} blocks, which are measured")
        return self

    @property
    def decision(self) -> Decision:
        """Who decides."""
        return self.evaluation.decision

    @property
    def described(self) -> str:
        """Who decides, and under which cap: `predictor, 8 of 64`."""
        cap = self.evaluation.cap
        return self.decision if cap is None else f"{self.decision}, {cap.tokens} of {cap.window}"

    @property
    def realised_capacity(self) -> float | None:
        """Share of tokens that a routed block processes, over all of them; None without any."""
        return _mean([block.realised_capacity for block in self.blocks])

    @property
    def nominal_capacity(self) -> float | None:
        """Share that it processes under top-k."""
        return _mean([block.nominal_capacity for block in self.blocks])


class RoutingSample(Frozen):
    """What the measures of routing rest on: windows that are full of tokens."""

    windows: int
    tokens: int
    minimum_occurrences: int = Field(ge=1)
    """How often an id occurs at least to count as frequent."""
    frequent_ids: int


class Measures(Frozen):
    """A model under each of its decisions, over the same text.

    The headline decision comes first; decisions under a cap, if one was asked for, come last.
    """

    decisions: tuple[DecisionMeasures, ...] = Field(min_length=1)
    sample: RoutingSample | None = None
    """None for models without routed blocks."""

    @model_validator(mode="after")
    def _same_stretch(self) -> Measures:
        stretches = {one.stretch.tokens for one in self.decisions if one.stretch is not None}
        if len(stretches) > 1:
            raise ValueError("decisions are shown on different tokens; expected the same stretch")
        return self

    @property
    def named_tokens(self) -> frozenset[int]:
        """Vocabulary ids that the measures name."""
        named: set[int] = set()
        for one in self.decisions:
            named.update(one.never_selected)
            named.update(one.stretch.tokens if one.stretch is not None else ())
            for block in one.blocks:
                named.update(block.never_selected)
                named.update(row.token for row in (*block.most_selected, *block.least_selected))
        return frozenset(named)

    def under(self, decision: Decision) -> DecisionMeasures | None:
        """Return the measures under a decision without a cap, None where they were not taken."""
        uncapped = (one for one in self.decisions if one.evaluation.cap is None)
        return next((one for one in uncapped if one.decision == decision), None)


class RunEvaluation(Frozen):
    """What `isoflop eval` finds out about a model; the content of `evaluation.json` of a run."""

    run_id: str
    """Or the folder of a checkpoint."""
    corpus: str | tuple[str, ...]
    """What was read, as a study names it."""
    data_sha256: str
    sequence_length: int
    documents: int
    """Documents that a target of the loss lies in."""
    torch: str
    measures: Measures
    token_texts: dict[int, str]
    """Text of each id that the measures name; bytes that are not UTF-8 are escaped."""

    @model_validator(mode="after")
    def _texts_of_all(self) -> RunEvaluation:
        missing = self.measures.named_tokens - self.token_texts.keys()
        if missing:
            raise ValueError(f"token_texts lacks the text of id {min(missing)}")
        return self


class TaskScore(Frozen):
    """What a model reached in a task of lm-evaluation-harness, by one metric."""

    task: str
    metric: str
    filter: str = "none"
    """What the harness made of answers before it scored them."""
    value: float
    error: float | None = Field(default=None, ge=0)
    """Standard error over samples, as the harness tells it."""
    samples: int | None = None
    shots: int | None = None
    """Examples given before each question."""
    limit: int | None = None
    """Samples asked for at most; None for all."""
    decision: Decision
    """Who routed."""

    @property
    def asked(self) -> tuple[object, ...]:
        """What the score answers: a later answer to the same takes its place."""
        return self.task, self.metric, self.filter, self.limit, self.decision


class TaskScores(Frozen):
    """Scores of a run's model in tasks; the content of `tasks.json` in a run's folder."""

    run_id: str
    scores: tuple[TaskScore, ...]
    lm_eval: str
    """Version of the harness that scored last."""

    def joined(self, later: TaskScores) -> TaskScores:
        """Return later scores, and these as far as they answer something else."""
        asked = {one.asked for one in later.scores}
        kept = (one for one in self.scores if one.asked not in asked)
        return later.model_copy(update={"scores": (*kept, *later.scores)})


def _mean(shares: Sequence[float]) -> float | None:
    return sum(shares) / len(shares) if shares else None


class SampledToken(Frozen):
    """A token of a sample."""

    id: int
    text: str
    """Characters that it completes, as they are; empty while one is incomplete. At the end of a
    sample, bytes that are not UTF-8 are replacement characters."""
    processed: tuple[int, ...] | None
    """Routed blocks that processed it, as indices in the model; None for the last token, which
    the model is not run on."""


class TextSample(Frozen):
    """A prompt and its continuation; the content of `sample.json` in a run's folder."""

    run_id: str
    routed_blocks: tuple[int, ...]
    """Indices in the model; empty for a dense one."""
    decision: Decision
    cap: Cap | None
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    seed: int
    prompt: tuple[SampledToken, ...]
    """With the id that ends documents before it, where the model has seen documents follow it."""
    tokens: tuple[SampledToken, ...] = Field(min_length=1)
    """What was drawn."""
    reason: Literal["stop", "length"]
    """Why it ended: with its document, or at the most tokens."""
    torch: str

    @model_validator(mode="after")
    def _known_blocks(self) -> TextSample:
        for one in (*self.prompt, *self.tokens):
            blocks = one.processed or ()
            if not set(blocks) <= set(self.routed_blocks) or len(set(blocks)) != len(blocks):
                raise ValueError(
                    f"a token was processed by blocks {list(blocks)}; expected distinct ones of "
                    f"the routed blocks {list(self.routed_blocks)}"
                )
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the tokens that each routed block processed, those that it was run on."""
        run = [one.processed for one in (*self.prompt, *self.tokens) if one.processed is not None]
        return tuple(
            sum(block in one for one in run) / max(1, len(run)) for block in self.routed_blocks
        )
