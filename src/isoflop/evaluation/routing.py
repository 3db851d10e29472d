"""What a routed block does: which tokens it selects, how hard they are, how far top-k agrees.

After arXiv 2404.02258, section 3.5 and figure 5.

Axes: B batch, W windows, T time, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoflop.config import Agreement, RoutedEntropy, RouterWeights, TokenSelection
from isoflop.evaluation.intervals import difference_over_documents, over_documents

POSITION_RANGES = 16
"""Equal ranges that the positions of a window are put into, or one for each where T is smaller."""
KEPT = 1 << 18
"""Tokens of a block whose router weights are kept, the first ones."""
WEIGHT_RANGES = 48
OUTSIDE = 0.001
"""Share of the weights at either end that the outermost ranges take up."""

Selected = NDArray[np.bool_]
"""Tokens that a block processed, (W, T)."""


def prediction_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each next-token prediction in nats: (B, T, V) give (B, T)."""
    # A sequence at a time, since the logarithms of all of them take as much memory as the logits.
    chances = (sequence.float().softmax(-1) for sequence in logits)
    return torch.stack([torch.special.entr(one).sum(-1) for one in chances])


def agreement(selected: Selected, top_k: Selected) -> Agreement:
    """Return how the selection of a decision compares with that of top-k."""
    both, taken = int((selected & top_k).sum()), int(selected.sum())
    return Agreement(
        accuracy=int((selected == top_k).sum()) / selected.size,
        precision=both / taken if taken else None,
        recall=both / int(top_k.sum()),
    )


def routed_entropy(
    entropy: NDArray[np.float64], selected: Selected, document: NDArray[np.int64]
) -> RoutedEntropy:
    """Return the entropy of predictions at processed and at skipped tokens.

    `entropy` (W, T) is in nats of the prediction at each token, `document` (W, T) of its target.
    """
    count = int(document.max()) + 1
    processed, skipped = (
        (
            np.bincount(document[mask], entropy[mask], count),
            np.bincount(document[mask], minlength=count),
        )
        for mask in (selected, ~selected)
    )
    return RoutedEntropy(
        processed=over_documents(*processed),
        skipped=over_documents(*skipped),
        difference=difference_over_documents(*processed, *skipped),
    )


def share_by_position(selected: Selected) -> tuple[float, ...]:
    """Return the share selected in each range of positions, in order."""
    parts = np.array_split(selected.sum(0), min(POSITION_RANGES, selected.shape[1]))
    return tuple(float(part.mean() / len(selected)) for part in parts)


def selected_ids(
    tokens: NDArray[np.int64], selected: Selected, minimum: int
) -> list[TokenSelection]:
    """Return how often each id that occurs `minimum` times at least is selected, by id.

    `tokens` are ids, (W, T); ids that do not occur are never told of.
    """
    occurrences = np.bincount(tokens.ravel())
    taken = np.bincount(tokens[selected], minlength=len(occurrences))
    return [
        TokenSelection(token=token, occurrences=int(occurrences[token]), selected=int(taken[token]))
        for token in np.flatnonzero(occurrences >= max(1, minimum)).tolist()
    ]


def most_selected(rows: list[TokenSelection], sign: int = 1) -> list[TokenSelection]:
    """Return ids by share selected, the largest first; the smallest with -1 for `sign`.

    Ties go to the id that occurs more often, then to the lower one.
    """
    return sorted(rows, key=lambda one: (-sign * one.share, -one.occurrences, one.token))


def never_selected(rows: list[TokenSelection]) -> tuple[int, ...]:
    """Return the ids of which no occurrence is selected."""
    return tuple(one.token for one in rows if not one.selected)


def weight_histogram(weights: NDArray[np.float32], selected: Selected) -> RouterWeights:
    """Return how a block's first router weights (W, T) are spread, by what became of the token."""
    wide, processed = weights.ravel()[:KEPT].astype(np.float64), selected.ravel()[:KEPT]
    low, high = np.quantile(wide, [OUTSIDE, 1 - OUTSIDE])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, WEIGHT_RANGES + 1)
    inside = wide.clip(low, high)
    return RouterWeights(
        edges=tuple(edges.tolist()),
        processed=tuple(np.histogram(inside[processed], edges)[0].tolist()),
        skipped=tuple(np.histogram(inside[~processed], edges)[0].tolist()),
    )
