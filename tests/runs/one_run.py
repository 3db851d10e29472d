"""A run, another one, and a routed one that something is known of."""

from __future__ import annotations

from given import record_of
from isoflop.config import ModelConfig, RunConfig, TopK

MODEL = ModelConfig(vocabulary=256, width=32, blocks=2, heads=2, head_width=16, hidden=80)
CONFIG = RunConfig(model=MODEL, steps=10, sequences_per_step=4)
OTHER = RunConfig(model=MODEL, steps=11, sequences_per_step=4)
ROUTED = record_of(
    RunConfig(
        model=MODEL.model_copy(update={"depth": TopK(capacity=0.5)}), steps=9, sequences_per_step=4
    )
)
