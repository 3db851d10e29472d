"""A run, another one, and what may be known of them."""

from __future__ import annotations

from given import record_of
from isoflop.config import (
    DecisionMeasures,
    Measures,
    ModelConfig,
    RunConfig,
    RunEvaluation,
    SampledToken,
    TextSample,
)
from isoflop.estimate import Estimate

MODEL = ModelConfig(vocabulary=256, width=32, blocks=2, heads=2, head_width=16, hidden=80)
CONFIG = RunConfig(model=MODEL, steps=10, sequences_per_step=4)
OTHER = RunConfig(model=MODEL, steps=11, sequences_per_step=4)


def evaluation_of(run_id: str, loss: float) -> RunEvaluation:
    one = DecisionMeasures(
        evaluation=record_of(CONFIG).evaluations[0],
        loss=Estimate(value=loss, low=loss - 0.5, high=loss + 0.5),
        bits_per_byte=Estimate(value=1.5 * loss),
    )
    return RunEvaluation(
        run_id=run_id,
        corpus=("sotu", "python"),
        data_sha256="d" * 64,
        sequence_length=256,
        documents=3,
        torch="0",
        measures=Measures(decisions=(one,)),
        token_texts={0: "<|end|>", 233: "\\xe9"},
    )


def sample_of(run_id: str, temperature: float) -> TextSample:
    return TextSample(
        run_id=run_id,
        routed_blocks=(),
        decision="every_token",
        cap=None,
        temperature=temperature,
        top_k=None,
        top_p=1.0,
        min_p=0.0,
        seed=0,
        prompt=(),
        tokens=(SampledToken(id=7, text="\x1b[31m\u2028", processed=()),),
        reason="length",
        torch="0",
    )
