"""A model under each of its decisions over the same text: losses, and what routing does there.

Axes: R routed blocks, B batch, W whole windows, T time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from isoflop.config import (
    BlockMeasures,
    Cap,
    Decision,
    DecisionMeasures,
    Evaluation,
    Measures,
    ModelConfig,
    Routed,
    RoutingSample,
    Stretch,
    decisions,
)
from isoflop.data import TokenSplit
from isoflop.data.windows import Batch
from isoflop.evaluation.agreement import AgreementSums
from isoflop.evaluation.entropy import EntropySums, prediction_entropy
from isoflop.evaluation.future import future_change
from isoflop.evaluation.intervals import over_documents
from isoflop.evaluation.leak import leak
from isoflop.evaluation.loss import LossSums, Reading, ReadingKeywords, control_noise, evaluating
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
    among: Sequence[Decision] = (),
    cap: Cap | None = None,
    minimum_occurrences: int = 100,
    **reading: Unpack[ReadingKeywords],
) -> Measures:
    """Return the loss under each decision, and what routing does under it.

    Losses are those of `evaluate`, from the same batches. Routing is measured on the windows that
    are full of tokens, since padding competes with text for a place in the top k.

    Args:
        model: evaluated as it is, in the precision of the surrounding autocast; its training mode
            is restored.
        held_out: the token stream.
        sequence_length: T.
        among: the decisions to take; empty for all. Top-k, which others are held against, is
            always among them.
        cap: each causal decision is taken as it is, and once more under this cap; None for none.
            Top-k is never capped.
        minimum_occurrences: how often an id occurs at least to be told of.
        reading: `split` and what else of `Reading` is not at its default.

    Raises:
        FloatingPointError: a loss is not finite.
        ValueError: a decision or the cap does not fit the model, there is no target, or no whole
            window.
    """
    how = Reading(sequence_length=sequence_length, **reading)
    taken = _rules(model.config, among, cap)
    sums = {rule: _Sums(model, held_out, how, rule) for rule in taken}
    full = _add_up(model, held_out, how, sums)
    if model.routed and not len(full):
        raise ValueError(
            f"no window of {sequence_length} tokens is full of text; expected one at least, since "
            "routing is measured on whole windows: evaluate more tokens"
        )
    evaluations = {rule: one.losses.evaluation(*rule) for rule, one in sums.items()}
    spread = np.linspace(0, len(full) - 1, min(PERTURBED_WINDOWS, len(full))).astype(int)
    found = []
    for rule, evaluation in evaluations.items():
        of_rule = sums[rule].measures(evaluation, minimum_occurrences)
        if model.routed:
            future = future_change(model, full[spread], rule.decision, cap=rule.cap, seed=how.seed)
            ahead = None if rule == TOP_K else leak(evaluation, evaluations[TOP_K])
            of_rule = of_rule.model_copy(update={"future": future, "leak": ahead})
        found.append(of_rule)
    sample = RoutingSample(
        windows=len(full),
        tokens=full.size,
        minimum_occurrences=minimum_occurrences,
        frequent_ids=len(sums[taken[0]].selection.frequent(minimum_occurrences)),
    )
    return Measures(decisions=tuple(found), sample=sample if model.routed else None)


def _add_up(
    model: Transformer, held_out: TokenSplit, how: Reading, sums: dict[_Rule, _Sums]
) -> NDArray[np.int64]:
    """Run the model under every rule over the same windows; returns the whole ones, (W, T)."""
    noise = {
        rule: control_noise(model, rule.decision, how.sequences, how.sequence_length, how.seed)
        for rule in sums
    }
    # Top-k first, since the others are held against it.
    order = sorted(sums, key=lambda rule: rule.decision != "top_k")
    whole: list[NDArray[np.int64]] = []
    with evaluating(model) as device:
        for window in how.of(held_out):
            tokens, _, mask = window
            batch = torch.from_numpy(tokens[:, :-1]).to(device)
            whole.append(tokens[mask.all(1), :-1])
            top_k = None
            for rule in order:
                output = model(batch, decision=rule.decision, noise=noise[rule], cap=rule.cap)
                selected = sums[rule].add(output, window, top_k)
                top_k = selected if rule.decision == "top_k" else top_k
    return np.concatenate(whole)


class _Rule(NamedTuple):
    """A decision, and the cap that it is taken under."""

    decision: Decision
    cap: Cap | None = None


TOP_K = _Rule("top_k")


class _Sums:
    """What is added up under one rule."""

    def __init__(self, model: Transformer, held_out: TokenSplit, how: Reading, rule: _Rule) -> None:
        routed, sequence_length = len(model.routed), how.sequence_length
        self.losses = LossSums(model, held_out, how)
        self.selection = SelectionSums(routed, sequence_length, model.config.vocabulary)
        self._agreement = None if rule == TOP_K else AgreementSums(routed)
        self._entropy = EntropySums(routed, held_out.documents)
        self._weights = WeightSums(routed)
        self._stretch: Stretch | None = None
        self._config, self._length = model.config, sequence_length

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
        if self._stretch is None and whole.any():
            self._stretch = Stretch(
                tokens=tuple(tokens[whole][0, :-1][:STRETCH_TOKENS].tolist()),
                processed=tuple(tuple(one[0, :STRETCH_TOKENS].tolist()) for one in selected),
            )
        self.selection.add(tokens[whole, :-1], selected)
        if self._agreement is not None:
            assert top_k is not None
            self._agreement.add(selected, top_k)
        return selected

    def measures(self, evaluation: Evaluation, minimum: int) -> DecisionMeasures:
        """Return what was added up, of ids that occur so often at least."""
        losses = self.losses
        nats = over_documents(losses.losses, losses.tokens)
        assert nats is not None
        return DecisionMeasures(
            evaluation=evaluation,
            loss=nats,
            bits_per_byte=over_documents(losses.losses / math.log(2), losses.bytes),
            blocks=self._blocks(minimum),
            never_selected=self.selection.never(minimum),
            stretch=self._stretch,
        )

    def _blocks(self, minimum: int) -> tuple[BlockMeasures, ...]:
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
