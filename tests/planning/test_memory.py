from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.config import DataConfig, Depth, EveryToken, ModelConfig, Recipe, RunConfig, TopK
from isoflop.model import build, predictor_loss
from isoflop.planning import estimate_memory


def run_config(depth: Depth, precision: str, sequences: int = 3) -> RunConfig:
    return RunConfig(
        model=ModelConfig(
            vocabulary=256,
            width=64,
            blocks=4,
            heads=2,
            head_width=32,
            hidden=176,
            depth=depth,
        ),
        data=DataConfig(sequence_length=128),
        recipe=Recipe.model_validate({"precision": precision}),
        steps=1,
        sequences_per_step=sequences,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("depth", [EveryToken(), TopK(capacity=0.125)])
def test_what_is_kept_for_the_backward_pass_is_estimated_within_a_factor_of_two(
    depth: Depth, precision: str
) -> None:
    config = run_config(depth, precision)
    model = build(config.model, seed=0).train()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(config.sequences_per_step, 128, dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        output = model(tokens)
        loss = F.cross_entropy(output.logits.flatten(0, 1).float(), tokens.flatten())
        for routing in output.routing:
            loss = loss + predictor_loss(routing)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    estimate = estimate_memory(config)
    assert 0.5 < estimate.sequences * estimate.sequence_bytes / measured < 2


def test_memory_is_state_and_what_each_sequence_needs() -> None:
    one = estimate_memory(run_config(EveryToken(), "fp32", sequences=1))
    nine = estimate_memory(run_config(EveryToken(), "fp32", sequences=9))
    assert nine.state_bytes == one.state_bytes
    assert nine.total_bytes - one.total_bytes == 8 * one.sequence_bytes
    lean = estimate_memory(run_config(EveryToken(), "bf16", sequences=1))
    assert lean.sequence_bytes < one.sequence_bytes
    assert lean.state_bytes > one.state_bytes


def test_routing_saves_memory() -> None:
    dense = estimate_memory(run_config(EveryToken(), "bf16")).sequence_bytes
    routed = estimate_memory(run_config(TopK(capacity=0.125), "bf16")).sequence_bytes
    whole = estimate_memory(run_config(TopK(capacity=1.0), "bf16")).sequence_bytes
    assert routed < dense < whole
