"""Loss by position in a window (arXiv 2502.13189, section 3.1).

Axes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isoflop.config import Span, SpanLoss


class SpanSums:
    """Adds up the losses of spans of positions, by document, over windows of single documents.

    Only a window that reaches the end of a span counts to it, so that all positions of the span
    are averaged over the same windows.

    Raises:
        ValueError: a span is empty or lies outside the window.
    """

    def __init__(self, spans: Sequence[Span], sequence_length: int, documents: int) -> None:
        for start, stop in spans:
            if not 0 <= start < stop <= sequence_length:
                raise ValueError(
                    f"a span is ({start}, {stop}); expected positions from 0 to sequence_length = "
                    f"{sequence_length}, the first before the second"
                )
        self._spans = tuple(spans)
        self._nats = np.zeros((len(spans), documents))
        self._windows = np.zeros((len(spans), documents), dtype=np.int64)

    def add(
        self, nats: NDArray[np.float64], document: NDArray[np.int64], mask: NDArray[np.bool_]
    ) -> None:
        """Add a batch of windows: nats and document of each target, and where there is one, (B, T).

        A window's targets are of one document and come before padding.
        """
        documents = self._nats.shape[1]
        targets = mask.sum(1)
        for index, (start, stop) in enumerate(self._spans):
            reaching = targets >= stop
            owner = document[reaching, 0]
            sums = nats[reaching, start:stop].sum(1)
            self._nats[index] += np.bincount(owner, sums, documents)
            self._windows[index] += np.bincount(owner, minlength=documents)

    def losses(self) -> tuple[SpanLoss, ...]:
        """Return the loss of each span that a window reached, in the order of the spans."""
        found = []
        for (start, stop), nats, windows in zip(
            self._spans, self._nats, self._windows, strict=True
        ):
            seen = windows > 0
            if seen.any():
                found.append(
                    SpanLoss(
                        start=start,
                        stop=stop,
                        loss=float(nats.sum()) / (int(windows.sum()) * (stop - start)),
                        document_losses=tuple(round(x, 4) for x in nats[seen].tolist()),
                        document_windows=tuple(windows[seen].tolist()),
                    )
                )
        return tuple(found)
