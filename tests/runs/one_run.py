"""A run, another one, and their records."""

from __future__ import annotations

from given import ENVIRONMENT
from isoflop.config import Evaluation, ModelConfig, ParameterCount, RunConfig, RunRecord

MODEL = ModelConfig(vocabulary=256, width=32, blocks=2, heads=2, head_width=16, hidden=80)
CONFIG = RunConfig(model=MODEL, steps=10, sequences_per_step=4)
OTHER = RunConfig(model=MODEL, steps=11, sequences_per_step=4)


def record_of(config: RunConfig, **changes: object) -> RunRecord:
    fields: dict[str, object] = {
        "run_id": config.run_id,
        "state": "finished",
        "config": config,
        "parameters": ParameterCount(total=3, non_embedding=2, active=1),
        "forward_flops": 1.5,
        "train_flops": {"causal": 1e12},
        "seconds": 3.25,
        "evaluations": (
            Evaluation(
                split="test", decision="every_token", loss=1.25, bits_per_byte=1.8, tokens=7
            ),
        ),
        "data_sha256": "d" * 64,
        "environment": ENVIRONMENT,
    }
    return RunRecord.model_validate(fields | changes)
