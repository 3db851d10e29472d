"""What tests of several rooms take as given: an environment, a recipe, and made-up records."""

from __future__ import annotations

from isoflop.config import Environment, Evaluation, Recipe, RunConfig, RunRecord, decisions
from isoflop.costs import forward_flops, parameters
from isoflop.planning import achieved_flops

ENVIRONMENT = Environment(
    isoflop="0",
    torch="0",
    python="0",
    machine="test",
    device="cpu",
    threads=1,
    compiled=False,
    code="0",
)

RECIPE = Recipe(
    learning_rate=8e-3,
    reference_width=16,
    reference_blocks=2,
    warmup_fraction=0.1,
    final_fraction=0.0,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.95,
    epsilon=1e-8,
    gradient_clip=1.0,
    router_rate=1.0,
    embedding_scale=1.0,
    router_scale=0.02,
    precision="fp32",
)
"""Every field is named, so that a change of the defaults is no change of what is tested."""

FP32 = Recipe(precision="fp32")
"""The default recipe of a run, quick on every processor."""


def record_of(
    config: RunConfig,
    loss: float | None,
    state: str = "finished",
    reason: str | None = None,
    data_sha256: str = "0" * 64,
) -> RunRecord:
    """Return a record as training would leave it, without losses where there is none."""
    flops = achieved_flops(config)
    length = config.data.sequence_length
    return RunRecord(
        run_id=config.run_id,
        state=state,
        reason=reason,
        config=config,
        parameters=parameters(config.model),
        forward_flops=forward_flops(config.model, length, config.convention).per_token,
        train_flops={"causal": flops, "full": flops, "6nd": flops},
        seconds=1.0,
        train_loss=loss,
        evaluations=tuple(
            Evaluation(split=split, decision=decision, loss=loss, bits_per_byte=loss, tokens=512)
            for split in ("validation", "test")
            for decision in decisions(config.model.depth)
            if loss is not None and state == "finished"
        ),
        data_sha256=data_sha256,
        environment=ENVIRONMENT,
    )
