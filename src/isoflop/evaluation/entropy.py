"""Whether a block processes the tokens whose successor is hard to tell (arXiv 2404.02258).

Axes: R routed blocks, B batch, W windows, T time, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoflop.config import RoutedEntropy
from isoflop.evaluation.intervals import difference_over_documents, over_documents


def prediction_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of each next-token prediction in nats: (B, T, V) give (B, T)."""
    # A sequence at a time, since the logarithms of all of them take as much memory as the logits.
    return torch.stack([_entropy(sequence.float()) for sequence in logits])


def _entropy(logits: Tensor) -> Tensor:
    chances = logits.softmax(-1)
    entropy: Tensor = torch.special.entr(chances).sum(-1)
    return entropy


class EntropySums:
    """Adds up entropies of predictions by routed block and document, processed and skipped apart.

    Args:
        routed: R.
        documents: how many the split has.
    """

    def __init__(self, routed: int, documents: int) -> None:
        self._nats = np.zeros((2, routed, documents))
        self._tokens = np.zeros((2, routed, documents))

    def add(
        self,
        entropy: NDArray[np.float64],
        selected: NDArray[np.bool_],
        document: NDArray[np.int64],
    ) -> None:
        """Add windows.

        Args:
            entropy: (W, T) nats of the prediction at each token.
            selected: (R, W, T) True where a block processed the token.
            document: (W, T) of each prediction's target.
        """
        documents = self._nats.shape[2]
        for index, processed in enumerate(selected):
            for kind, mask in enumerate((processed, ~processed)):
                owner = document[mask]
                self._nats[kind, index] += np.bincount(owner, entropy[mask], documents)
                self._tokens[kind, index] += np.bincount(owner, minlength=documents)

    def entropy(self, index: int) -> RoutedEntropy:
        """Return what was added for the routed block with this index."""
        processed, skipped = self._nats[:, index]
        processed_tokens, skipped_tokens = self._tokens[:, index]
        return RoutedEntropy(
            processed=over_documents(processed, processed_tokens),
            skipped=over_documents(skipped, skipped_tokens),
            difference=difference_over_documents(
                processed, processed_tokens, skipped, skipped_tokens
            ),
        )
