"""A model under each of its decisions over the same text: losses, and what routing does there.

Axes: R routed blocks, B batch, W whole windows, T time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack

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
    Stretch,
)
from isoflop.data import TokenSplit
from isoflop.data.windows import Batch
from isoflop.evaluation import routing
from isoflop.evaluation.future import future_change
from isoflop.evaluation.intervals import leak, over_documents
from isoflop.evaluation.loss import LossSums, Reading, ReadingKeywords, control_noise, evaluating
from isoflop.model import Output, Transformer

PERTURBED_WINDOWS = 32
"""Windows whose future is changed, spread evenly over the text."""
MEASURED_TOKENS = 1 << 20
"""Tokens of whole windows from which on no more routing is measured: 5 R + 4 bytes are held of each
under each decision, and 16 besides."""
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
    how = Reading(sequence_length=sequence_length, **reading).held_by(model)
    seen = {rule: _Seen(model, held_out, how) for rule in _rules(model.config, among, cap)}
    full, document = _look(model, held_out, how, seen)
    looks_ahead = TOP_K in seen
    if looks_ahead and not len(full):
        raise ValueError(
            f"no window of {sequence_length} tokens is full of text; expected one at least, since "
            "routing is measured on whole windows: evaluate more tokens"
        )
    evaluations = {rule: one.losses.evaluation(*rule) for rule, one in seen.items()}
    spread = np.linspace(0, len(full) - 1, min(PERTURBED_WINDOWS, len(full))).astype(int)
    found = []
    for rule, one in seen.items():
        losses, evaluation = one.losses, evaluations[rule]
        nats = over_documents(losses.losses, losses.tokens)
        assert nats is not None
        of_routing: dict[str, Any] = {}
        if looks_ahead:
            of_routing = {
                "leak": None if rule == TOP_K else leak(evaluation, evaluations[TOP_K]),
                "future": future_change(
                    model, full[spread], rule.decision, cap=rule.cap, seed=how.seed
                ),
            }
        if model.routed:
            top_k = None if rule == TOP_K else seen[TOP_K].selected
            of_routing |= _routing(model.config, one, full, document, top_k, minimum_occurrences)
        found.append(
            DecisionMeasures(
                evaluation=evaluation,
                loss=nats,
                bits_per_byte=over_documents(losses.losses / math.log(2), losses.bytes),
                **of_routing,
            )
        )
    if not model.routed:
        return Measures(decisions=tuple(found))
    frequent = routing.selected_ids(full, np.zeros(full.shape, dtype=bool), minimum_occurrences)
    sample = RoutingSample(
        windows=len(full),
        tokens=full.size,
        minimum_occurrences=minimum_occurrences,
        frequent_ids=len(frequent),
    )
    return Measures(decisions=tuple(found), sample=sample)


class _Rule(NamedTuple):
    """A decision, and the cap that it is taken under."""

    decision: Decision
    cap: Cap | None = None


TOP_K = _Rule("top_k")


class _Seen:
    """What was seen under one rule: losses, and of whole windows what routing did."""

    def __init__(self, model: Transformer, held_out: TokenSplit, how: Reading) -> None:
        self.losses = LossSums(model, held_out, how)
        self._selected: list[NDArray[np.bool_]] = []
        self._weights: list[NDArray[np.float32]] = []
        self._entropy: list[NDArray[np.float32]] = []

    def add(self, output: Output, window: Batch, looked_at: bool) -> None:
        """Add what the model gave for a batch; what routing did only where it is looked at."""
        self.losses.add(output, window)
        if output.routing and looked_at:
            rows = torch.from_numpy(window[2].all(1))
            decided = output.routing
            self._selected.append(np.stack([one.selected.cpu()[rows].numpy() for one in decided]))
            self._weights.append(
                np.stack([one.logits.float().cpu()[rows].numpy() for one in decided])
            )
            self._entropy.append(routing.prediction_entropy(output.logits).cpu()[rows].numpy())

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Processed tokens of all whole windows, (R, W, T)."""
        return np.concatenate(self._selected, axis=1)

    def scores(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return router weights of the same, (R, W, T), and entropy of predictions, (W, T)."""
        entropy = np.concatenate(self._entropy).astype(np.float64)
        return np.concatenate(self._weights, axis=1), entropy


def _look(
    model: Transformer, held_out: TokenSplit, how: Reading, seen: Mapping[_Rule, _Seen]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Run the model under every rule; returns ids and documents of whole windows, each (W, T)."""
    noise = {
        rule: control_noise(model, rule.decision, how.sequences, how.sequence_length, how.seed)
        for rule in seen
    }
    whole: list[NDArray[np.int64]] = []
    documents: list[NDArray[np.int64]] = []
    held = 0
    with evaluating(model) as device:
        for window in how.of(held_out):
            tokens, document, mask = window
            batch = torch.from_numpy(tokens[:, :-1]).to(device)
            looked_at = held < MEASURED_TOKENS
            if looked_at:
                whole.append(tokens[mask.all(1), :-1])
                documents.append(document[mask.all(1)])
                held += whole[-1].size
            for rule, one in seen.items():
                output = model(batch, decision=rule.decision, noise=noise[rule], cap=rule.cap)
                one.add(output, window, looked_at)
    return np.concatenate(whole), np.concatenate(documents)


def _routing(
    config: ModelConfig,
    seen: _Seen,
    tokens: NDArray[np.int64],
    document: NDArray[np.int64],
    top_k: NDArray[np.bool_] | None,
    minimum: int,
) -> dict[str, Any]:
    """Return the fields of `DecisionMeasures` on what routed blocks did in whole windows.

    `tokens` and `document` (W, T) are ids and their targets'; `top_k` (R, W, T) is what top-k
    selects, None for top-k itself; ids are told of from `minimum` occurrences on.
    """
    assert isinstance(config.depth, Routed)
    length = tokens.shape[1]
    selected, (weights, entropy) = seen.selected, seen.scores()
    blocks = []
    for index, (block, mine) in enumerate(zip(config.routed_blocks, selected, strict=True)):
        rows = routing.selected_ids(tokens, mine, minimum)
        blocks.append(
            BlockMeasures(
                block=block,
                nominal_capacity=config.depth.selected_tokens(length) / length,
                realised_capacity=float(mine.mean()),
                agreement=None if top_k is None else routing.agreement(mine, top_k[index]),
                entropy=routing.routed_entropy(entropy, mine, document),
                share_by_position=routing.share_by_position(mine),
                never_selected=routing.never_selected(rows),
                most_selected=tuple(routing.most_selected(rows)[:EXTREMES]),
                least_selected=tuple(routing.most_selected(rows, -1)[:EXTREMES]),
                router_weights=routing.weight_histogram(weights[index], mine),
            )
        )
    anywhere = routing.selected_ids(tokens, np.logical_or.reduce(selected), minimum)
    return {
        "blocks": tuple(blocks),
        "never_selected": routing.never_selected(anywhere),
        "stretch": Stretch(
            tokens=tuple(tokens[0, :STRETCH_TOKENS].tolist()),
            processed=tuple(tuple(one[0, :STRETCH_TOKENS].tolist()) for one in selected),
        ),
    }


def _rules(config: ModelConfig, among: Sequence[Decision], cap: Cap | None) -> tuple[_Rule, ...]:
    """Return what to measure under, the headline decision first, top-k among them, caps last."""
    known = config.decisions
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
