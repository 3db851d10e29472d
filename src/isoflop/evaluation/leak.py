"""How much top-k gains by looking ahead."""

from __future__ import annotations

import numpy as np

from isoflop.config import Evaluation, Leak
from isoflop.evaluation.intervals import over_documents


def leak(causal: Evaluation, top_k: Evaluation) -> Leak:
    """Return how much lower the loss under top-k is, paired by document.

    Raises:
        ValueError: the two are not of the same tokens.
    """
    if causal.split != top_k.split or causal.document_tokens != top_k.document_tokens:
        raise ValueError(
            f"the evaluations are of {causal.tokens} tokens of {causal.split} and {top_k.tokens} "
            f"of {top_k.split}; expected the same documents, each with as many tokens"
        )
    losses = np.array(causal.document_losses)
    gains = losses - np.array(top_k.document_losses)
    nats = over_documents(gains, np.array(causal.document_tokens))
    if nats is None:
        raise ValueError("the evaluations have no losses by document; evaluate the model anew")
    return Leak(nats=nats, share=over_documents(gains, losses))
