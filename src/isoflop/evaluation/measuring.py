"""A model under each of its decisions over the same text: losses, and what routing does there.

Axes: R routed blocks, B batch, W whole windows, T time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from isoflop.config import (
    BlockMeasures,
    Cap,
    Decision,
    DecisionMeasures,
    Measures,
    ModelConfig,
    Routed,
    RoutingSample,
    Span,
    Split,
    Stretch,
    Windows,
    decisions,
)
from isoflop.data import TokenSplit
from isoflop.data.windows import Batch
from isoflop.evaluation.agreement import AgreementSums
from isoflop.evaluation.entropy import EntropySums, prediction_entropy
from isoflop.evaluation.future import future_change
from isoflop.evaluation.intervals import over_documents
from isoflop.evaluation.leak import leak
from isoflop.evaluation.loss import LossSums, control_noise, evaluating, windows_of
from isoflop.evaluation.router_weights import WeightSums
from isoflop.evaluation.selection import SelectionSums
from isoflop.model import Output, Transformer

PERTURBED_WINDOWS = 32
"""Windows whose future is changed, spread evenly over the text."""
STRETCH_TOKENS = 128
"""Tokens at the start of the first whole window whose decisions are told one by one."""
EXTREMES = 8
"""Ids that are named of those most and of those least selected."""


def measure(
    model: Transformer,
    held_out: TokenSplit,
    sequence_length: int,
    *,
    split: Split,
    among: Sequence[Decision] = (),
    cap: Cap | None = None,
    windows: Windows = "stream",
    spans: Sequence[Span] = (),
    limit_tokens: int | None = None,
    sequences: int = 32,
    seed: int = 0,
    minimum_occurrences: int = 100,
) -> Measures:
    """Return the loss under each decision, and what routing does under it.

    Losses are those of `evaluate`, from the same batches. Routing is measured on the windows that
    are full of tokens, since padding competes with text for a place in the top k.

    Args:
        model: evaluated as it is, in the precision of the surrounding autocast; its training mode
            is restored.
        held_out: the token stream.
        sequence_length: T.
        split: what to call the split.
        among: the decisions to take; empty for all. Top-k, which others are held against, is
            always among them.
        cap: each causal decision is taken as it is, and once more under this cap; None for none.
            Top-k is never capped.
        windows: see `evaluate`.
        spans: see `evaluate`.
        limit_tokens: see `evaluate`.
        sequences: B, windows at a time.
        seed: keys what the random control draws, and where the future is changed.
        minimum_occurrences: how often an id occurs at least to be told of.

    Raises:
        FloatingPointError: a loss is not finite.
        ValueError: a decision or the cap does not fit the model, there is no target, or no whole
            window.
    """
    taken = _rules(model.config, among, cap)
    sums = {rule: _Sums(model, held_out, sequence_length, spans, rule.decision) for rule in taken}
    noise = {
        rule: control_noise(model, rule.decision, sequences, sequence_length, seed)
        for rule in taken
    }
    # Top-k first, since the others are held against it.
    order = sorted(taken, key=lambda rule: rule.decision != "top_k")
    whole: list[NDArray[np.int64]] = []
    with evaluating(model) as device:
        for window in windows_of(held_out, sequence_length, sequences, windows, limit_tokens):
            tokens, _, mask = window
            batch = torch.from_numpy(tokens[:, :-1]).to(device)
            whole.append(tokens[mask.all(1), :-1])
            top_k = None
            for rule in order:
                output = model(batch, decision=rule.decision, noise=noise[rule], cap=rule.cap)
                selected = sums[rule].add(output, window, top_k)
                top_k = selected if rule.decision == "top_k" else top_k
    full = np.concatenate(whole)
    if model.routed and not len(full):
        raise ValueError(
            f"no window of {sequence_length} tokens is full of text; expected one at least, since "
            "routing is measured on whole windows: evaluate more tokens"
        )
    evaluations = {rule: one.losses.evaluation(split, *rule) for rule, one in sums.items()}
    spread = np.linspace(0, len(full) - 1, min(PERTURBED_WINDOWS, len(full))).astype(int)
    found = []
    for rule, evaluation in evaluations.items():
        one = sums[rule]
        nats = over_documents(one.losses.losses, one.losses.tokens)
        assert nats is not None
        found.append(
            DecisionMeasures(
                evaluation=evaluation,
                loss=nats,
                bits_per_byte=over_documents(one.losses.losses / math.log(2), one.losses.bytes),
                leak=leak(evaluation, evaluations[TOP_K])
                if model.routed and rule != TOP_K
                else None,
                future=future_change(model, full[spread], rule.decision, cap=rule.cap, seed=seed)
                if model.routed
                else None,
                blocks=one.blocks(minimum_occurrences),
                never_selected=one.selection.never(minimum_occurrences),
                stretch=one.stretch,
            )
        )
    sample = RoutingSample(
        windows=len(full),
        tokens=full.size,
        minimum_occurrences=minimum_occurrences,
        frequent_ids=len(sums[taken[0]].selection.frequent(minimum_occurrences)),
    )
    return Measures(decisions=tuple(found), sample=sample if model.routed else None)


class _Rule(NamedTuple):
    """A decision, and the cap that it is taken under."""

    decision: Decision
    cap: Cap | None = None


TOP_K = _Rule("top_k")


class _Sums:
    """What is added up under one rule."""

    def __init__(
        self,
        model: Transformer,
        held_out: TokenSplit,
        sequence_length: int,
        spans: Sequence[Span],
        decision: Decision,
    ) -> None:
        routed = len(model.routed)
        self.losses = LossSums(model, held_out, sequence_length, spans)
        self.selection = SelectionSums(routed, sequence_length, model.config.vocabulary)
        self._agreement = None if decision == "top_k" else AgreementSums(routed)
        self._entropy = EntropySums(routed, held_out.documents)
        self._weights = WeightSums(routed)
        self.stretch: Stretch | None = None
        self._config = model.config
        self._length = sequence_length

    def add(
        self, output: Output, window: Batch, top_k: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        """Add a batch; returns what was selected in its whole windows, (R, W, T).

        Args:
            output: of the model.
            window: the batch.
            top_k: what top-k selected; None for top-k itself, and without routed blocks.
        """
        self.losses.add(output, window)
        if not output.routing:
            return None
        tokens, document, mask = window
        whole = mask.all(1)
        rows = torch.from_numpy(whole)
        selected = np.stack([one.selected.cpu()[rows].numpy() for one in output.routing])
        entropy = prediction_entropy(output.logits).double().cpu()[rows].numpy()
        self._entropy.add(entropy, selected, document[whole])
        weights = np.stack([one.logits.float().cpu()[rows].numpy() for one in output.routing])
        self._weights.add(weights, selected)
        if self.stretch is None and whole.any():
            self.stretch = Stretch(
                tokens=tuple(tokens[whole][0, :-1][:STRETCH_TOKENS].tolist()),
                processed=tuple(tuple(one[0, :STRETCH_TOKENS].tolist()) for one in selected),
            )
        self.selection.add(tokens[whole, :-1], selected)
        if self._agreement is not None:
            assert top_k is not None
            self._agreement.add(selected, top_k)
        return selected

    def blocks(self, minimum: int) -> tuple[BlockMeasures, ...]:
        """Return what each routed block did."""
        found = []
        for index, block in enumerate(self._config.routed_blocks):
            assert isinstance(self._config.depth, Routed)
            selected = self._config.depth.selected_tokens(self._length)
            found.append(
                BlockMeasures(
                    block=block,
                    nominal_capacity=selected / self._length,
                    realised_capacity=self.selection.realised_capacity(index),
                    agreement=None if self._agreement is None else self._agreement.agreement(index),
                    entropy=self._entropy.entropy(index),
                    share_by_position=self.selection.share_by_position(index),
                    never_selected=self.selection.never(minimum, index),
                    most_selected=tuple(self.selection.most_selected(minimum, index)[:EXTREMES]),
                    least_selected=tuple(self.selection.least_selected(minimum, index)[:EXTREMES]),
                    router_weights=self._weights.histogram(index),
                )
            )
        return tuple(found)


def _rules(config: ModelConfig, among: Sequence[Decision], cap: Cap | None) -> tuple[_Rule, ...]:
    """Return what to measure under, the headline decision first, top-k among them, caps last."""
    known = decisions(config.depth)
    for decision in among:
        if decision not in known:
            raise ValueError(
                f"decision is {decision!r}; expected one of {', '.join(known)} for a model with "
                f"depth {config.depth.kind!r}"
            )
    free = [_Rule(one) for one in known if not among or one in among or one == "top_k"]
    if cap is None:
        return tuple(free)
    if not config.routed_blocks:
        raise ValueError("a cap is given, but the model has no routed block; leave it out")
    capped = [_Rule(rule.decision, cap) for rule in free if rule != TOP_K]
    if not capped:
        raise ValueError(
            "a cap is given with top_k alone, which takes none; name a causal decision besides"
        )
    return (*free, *capped)
