"""What a run leaves behind: the record that fits and figures are made from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isoflop.config.model import Cap, Decision
from isoflop.config.run import RunConfig
from isoflop.frozen import Frozen, left_out

State = Literal["pending", "running", "preempted", "interrupted", "finished", "diverged", "failed"]
"""Where a run stands; derived from what is on disk. The last three are final.

A `preempted` run was asked to stop, by SIGTERM or Ctrl-C, and saved a checkpoint; an `interrupted`
one was killed, or its last attempt failed. Both go on.
"""

Split = Literal["validation", "test"]

Weights = Literal["last", "average"]


class SpanLoss(Frozen):
    """Loss over a span of positions, from the windows of documents that reach the span's end."""

    start: int = Field(ge=0)
    stop: int = Field(ge=1)
    """Positions from `start` up to but not including `stop`."""
    loss: float
    """Mean negative log-likelihood, nats per token."""
    document_losses: tuple[float, ...]
    """Summed negative log-likelihood in the span of each document that has such a window, nats."""
    document_windows: tuple[int, ...]
    """Windows of each of these documents."""

    @model_validator(mode="after")
    def _by_document(self) -> SpanLoss:
        if len(self.document_losses) != len(self.document_windows) or self.stop <= self.start:
            raise ValueError(
                f"positions {self.start} to {self.stop} have {len(self.document_losses)} losses "
                f"and windows of {len(self.document_windows)} documents; expected as many of both"
            )
        return self

    @property
    def windows(self) -> int:
        """Windows that reach the span's end."""
        return sum(self.document_windows)

    @property
    def tokens(self) -> int:
        """Targets that the loss is the mean of."""
        return self.windows * (self.stop - self.start)


class Evaluation(Frozen):
    """Held-out loss under one routing decision."""

    split: Split
    decision: Decision
    cap: Cap | None = Field(default=None, exclude_if=left_out)
    """On what the decision selects, its `tokens` told; not written where there was none."""
    weights: Weights = Field(default="last", exclude_if=lambda weights: weights == "last")
    """Those after the last step, or the run's average of them; see `Recipe.average_half_life`."""
    loss: float = Field(ge=0)
    """Mean negative log-likelihood, nats per token."""
    bits_per_byte: float | None
    """None where the targets stand for no text, as with corpora of token ids."""
    tokens: int = Field(ge=1)
    document_losses: tuple[float, ...] = ()
    """Summed negative log-likelihood of each document, nats."""
    document_tokens: tuple[int, ...] = ()
    realised_capacity: tuple[float, ...] = ()
    """Share of tokens processed by each routed block."""
    spans: tuple[SpanLoss, ...] = ()
    """Losses by position, as the run's `positions` asks for; a span that no window reaches is left
    out."""

    def per_byte(self) -> Evaluation:
        """Return the same with its losses in bits per byte of text, where that is known."""
        nat = (self.bits_per_byte or self.loss) / (self.loss or 1.0)
        spans = tuple(one.model_copy(update=_times(nat, one)) for one in self.spans)
        return self.model_copy(update={**_times(nat, self), "spans": spans})

    @model_validator(mode="after")
    def _by_document(self) -> Evaluation:
        if len(self.document_losses) != len(self.document_tokens):
            raise ValueError(
                f"there are losses of {len(self.document_losses)} documents and tokens of "
                f"{len(self.document_tokens)}; expected as many of both"
            )
        return self


def _times(nat: float, one: Evaluation | SpanLoss) -> dict[str, object]:
    documents = tuple(nats * nat for nats in one.document_losses)
    return {"loss": one.loss * nat, "document_losses": documents}


class CurvePoint(Frozen):
    """One point of the thinned training curve; the loss is the mean since the point before."""

    step: int = Field(ge=1)
    loss: float
    span_losses: tuple[float, ...] = Field(default=(), exclude_if=lambda losses: not losses)
    """The same of each of the run's spans of positions; not written where there are none."""


class ParameterCount(Frozen):
    """Parameters of a model."""

    total: int = Field(ge=1)
    non_embedding: int = Field(ge=1)
    active: int = Field(ge=1)
    """What one token passes through on average: routed blocks weighted by capacity."""


Recompute = Literal["none", "selective", "full"]
"""What the backward pass of a block computes again: nothing, all but matrix products and attention,
or all from the block's input."""


AttentionKernel = Literal["fused", "tiled", "cudnn", "flash", "efficient"]
"""What attends all keys: torch's own choice, `ops.tiled`, or one of torch's several on a GPU."""


class Environment(Frozen):
    """What may change bits but not meaning; pinned in the run folder at first start."""

    isoflop: str
    torch: str
    python: str
    machine: str
    """Architecture and processor model."""
    device: str
    threads: int
    """Of each rank."""
    ranks: int = Field(default=1, ge=1, exclude_if=lambda count: count == 1)
    """Processes that share the sequences of a step; not written where it is one."""
    sharded: bool = Field(default=False, exclude_if=lambda split: not split)
    """Whether each rank holds a part of the blocks and of their state; not written where none."""
    compiled: bool
    code: str
    """Fingerprint of the package's sources."""
    micro_batch: int | None = Field(default=None, ge=1, exclude_if=left_out)
    """Sequences that a step holds at a time; None, and not written, where it holds all."""
    recompute: Recompute = Field(default="none", exclude_if=lambda kind: kind == "none")
    """Of each block; not written where it is `none`."""
    attention: AttentionKernel | None = Field(default=None, exclude_if=left_out)
    """Of training over all keys; None, and not written, for the rule of `ops.causal_attention`."""


class RunRecord(Frozen):
    """The outcome of one run."""

    run_id: str
    state: Literal["finished", "diverged", "failed"]
    reason: str | None = None
    """Why a run diverged or failed."""
    config: RunConfig
    parameters: ParameterCount
    forward_flops: float = Field(gt=0)
    """Forward FLOPs per token under the run's convention, averaged over a full sequence."""
    train_flops: dict[str, float]
    """FLOPs of the whole training under each convention."""
    seconds: float = Field(ge=0)
    """Time spent in training steps, over all attempts; in its own ones, where it has a parent."""
    parent: str | None = Field(default=None, exclude_if=left_out)
    """Run whose first steps it shares, which it was not trained in itself (`Study.reuse`)."""
    parent_step: int = Field(default=0, ge=0, exclude_if=lambda steps: not steps)
    """How many these are."""
    attempts: int = Field(default=1, ge=1)
    train_loss: float | None = None
    """Mean training loss over the last twentieth of the steps."""
    curve: tuple[CurvePoint, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    data_sha256: str
    environment: Environment
    resumed_under: tuple[Environment, ...] = Field(default=(), exclude_if=lambda found: not found)
    """Other environments in which it went on, in order. Not written where there are none: only
    then do its bits come from `environment` alone."""

    @property
    def bits_per_nat(self) -> float | None:
        """Bits per byte of the test text that a nat per token is; None where no text is known."""
        one = self.evaluation("test")
        return None if one is None or not one.bits_per_byte else one.bits_per_byte / one.loss

    def per_byte(self) -> RunRecord:
        """Return it with losses in bits per byte; a ValueError where ids spell no known text."""
        nat = self.bits_per_nat
        if nat is None and self.state == "finished":
            raise ValueError(
                f"run {self.run_id} has no losses per byte, since its ids stand for no text that "
                "is known; expected runs on text, or with data.ids_tokenizer: leave --per out"
            )
        nat = nat or 1.0
        points = (one.model_copy(update={"loss": one.loss * nat}) for one in self.curve)
        return self.model_copy(
            update={
                "evaluations": tuple(one.per_byte() for one in self.evaluations),
                "train_loss": self.train_loss and self.train_loss * nat,
                "curve": tuple(points),
            }
        )

    @property
    def spent_flops(self) -> float:
        """FLOPs of the steps that it was trained in itself, under its own convention."""
        shared = self.parent_step * self.config.tokens_per_step
        # A backward pass is twice a forward pass by definition.
        return self.train_flops[self.config.convention] - 3 * self.forward_flops * shared

    def evaluation(
        self,
        split: Split = "test",
        decision: Decision | None = None,
        weights: Weights = "last",
    ) -> Evaluation | None:
        """Return the evaluation on `split`, under the headline decision unless one is named."""
        wanted = split, decision or self.config.model.decisions[0], weights
        found = (e for e in self.evaluations if (e.split, e.decision, e.weights) == wanted)
        return next(found, None)
