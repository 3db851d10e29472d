"""The leak of a model that is made to have one, and of made-up losses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.known_leak import LENGTH, leaking_model, text
from isoflop.config import Evaluation
from isoflop.evaluation import evaluate
from isoflop.evaluation.intervals import leak
from isoflop.fit.intervals import document_estimate

LN2 = math.log(2)


def made(losses: tuple[float, ...], tokens: tuple[int, ...], **changes: object) -> Evaluation:
    return Evaluation(
        **{
            "split": "test",
            "decision": "predictor",
            "loss": sum(losses) / sum(tokens),
            "bits_per_byte": 1.0,
            "tokens": sum(tokens),
            "document_losses": losses,
            "document_tokens": tokens,
            **changes,
        }
    )


def test_the_leak_that_a_model_was_built_with_is_found() -> None:
    model, held_out = leaking_model(), text("BCC", "CB", "CCCC", "B")
    causal, top_k = (
        evaluate(model, held_out, LENGTH, split="test", decision=decision, sequences=3)
        for decision in ("predictor", "top_k")
    )
    # Of 20 targets ten follow an A; top-k tells the seven that are C.
    assert causal.loss == pytest.approx(10 / 20 * LN2, rel=1e-6)
    assert top_k.loss == pytest.approx(3 / 20 * LN2, rel=1e-6)
    found = leak(causal, top_k)
    assert found.nats.value == pytest.approx(7 / 20 * LN2, rel=1e-3)
    # Targets of each document: its first A is none, the last one of the text is.
    expected = document_estimate(np.array([2, 1, 4, 0]) * LN2, [5, 4, 8, 3])
    interval = expected.interval()
    assert (found.nats.low, found.nats.high) == pytest.approx(
        (interval.low, interval.high), rel=1e-3
    )
    assert found.share.value == pytest.approx(7 / 10, rel=1e-3)
    assert found.share.low < 7 / 10


def test_pairing_takes_out_what_documents_have_in_common() -> None:
    tokens = (100, 80, 120, 90, 110)
    base = np.array([1.0, 3.0, 2.0, 1.5, 2.5]) * tokens
    causal = made(tuple((base + 0.1 * np.array(tokens)).tolist()), tokens)
    found = leak(causal, made(tuple(base.tolist()), tokens, decision="top_k"))
    assert found.nats.value == pytest.approx(0.1)
    assert (found.nats.low, found.nats.high) == pytest.approx((0.1, 0.1))


def test_a_lower_causal_loss_is_a_negative_leak() -> None:
    found = leak(made((2.0, 4.0), (2, 2)), made((3.0, 4.5), (2, 2)))
    assert found.nats.value == pytest.approx(-1.5 / 4)
    assert found.share.value == pytest.approx(-1.5 / 6)


def test_no_share_of_a_loss_of_zero() -> None:
    assert leak(made((0.0, 0.0), (2, 2)), made((0.0, 0.0), (2, 2))).share is None


@pytest.mark.parametrize(
    "other", [made((1.0, 1.0), (2, 3)), made((1.0, 1.0), (2, 2), split="validation")]
)
def test_losses_of_other_tokens_are_refused(other: Evaluation) -> None:
    with pytest.raises(ValueError, match="expected the same documents"):
        leak(made((1.0, 1.0), (2, 2)), other)


def test_losses_without_documents_are_refused() -> None:
    bare = made((1.0,), (2,)).model_copy(update={"document_losses": (), "document_tokens": ()})
    with pytest.raises(ValueError, match="no losses by document"):
        leak(bare, bare)
