"""Training steps as plain calls: ours, and those of Hugging Face's Llama.

Axes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.bench.cases import Case
from isoflop.config import EveryToken, FullAttention, ModelConfig, RunConfig, SwiGlu
from isoflop.training import random_tokens, repeated_step

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Step = Callable[[], None]
"""One optimiser step on a batch that stays the same."""


def prepare_step(case: Case) -> Step:
    """Return the step of a case, its model made and its optimiser at hand.

    Raises:
        ValueError: the peer has no such model.
        ModuleNotFoundError: the peer is not installed.
    """
    if case.implementation == "transformers":
        return _llama_step(case.config, random_tokens(case.config), compiled=case.compiled)
    return repeated_step(case.config, compiled=case.compiled)


def llama(model: ModelConfig, positions: int) -> LlamaForCausalLM:
    """Return Hugging Face's Llama of the shape of a model, on its fast attention.

    Args:
        model: its shape.
        positions: tokens of the longest sequence.

    Raises:
        ValueError: Llama has no such model.
        ModuleNotFoundError: transformers is not installed.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if (
        not isinstance(model.attention, FullAttention)
        or not isinstance(model.depth, EveryToken)
        or not isinstance(model.feed_forward, SwiGlu)
        or model.query_key_norm
    ):
        raise ValueError(f"Llama has no such model: {model}; expected the plain decoder")
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.vocabulary,
            hidden_size=model.width,
            intermediate_size=model.hidden,
            num_hidden_layers=model.blocks,
            num_attention_heads=model.heads,
            num_key_value_heads=model.key_value_heads,
            head_dim=model.head_width,
            max_position_embeddings=positions,
            rms_norm_eps=model.norm_epsilon,
            tie_word_embeddings=model.tied_embeddings,
            use_cache=False,
        )
    )
    made.set_attn_implementation("sdpa")
    return made


def _llama_step(config: RunConfig, tokens: Tensor, *, compiled: bool) -> Step:
    recipe = config.recipe
    model = llama(config.model, config.data.sequence_length)
    model.train()
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=inputs).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    # The loss is compiled along, which gives the peer the larger graph.
    compute = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = compute(inputs, targets)
        # The type stub of backward is untyped in torch.
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip, foreach=True)
        # Our step reports both, so the peer's does too.
        float(loss.detach()), float(norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step
