"""Routed and block attention models as a class of transformers; importing this registers it.

`AutoModelForCausalLM.from_pretrained(FOLDER)` then gives an `IsoflopForCausalLM`, without
`trust_remote_code`; `generate` runs over this package's compact cache, under a causal decision.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from isoflop.config import Decision, ModelConfig
from isoflop.evaluation import control_noise
from isoflop.generation import Engine, engine_for
from isoflop.model import Transformer
from isoflop.model.peers import sizes


class IsoflopConfig(PretrainedConfig):
    """What `config.json` holds: the model as this package describes it, and who decides.

    Args:
        model: fields of `ModelConfig`; None for a small baseline, which transformers builds to see
            what is usual.
        decision: under which tokens are routed; None for the model's headline decision.
        seed: keys what a random control draws.
        sequence_length: T, tokens the model was trained on at a time.
        others: settings of transformers' own.
    """

    model_type = "isoflop"

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        decision: Decision | None = None,
        seed: int = 0,
        sequence_length: int = 256,
        **others: Any,
    ) -> None:
        described = ModelConfig.model_validate(model or SMALL)
        self.model = described.model_dump(mode="json")
        self.decision = decision
        self.seed = seed
        self.sequence_length = sequence_length
        super().__init__(**{**sizes(described, sequence_length), **others})

    @property
    def described(self) -> ModelConfig:
        """The model."""
        return ModelConfig.model_validate(self.model)


SMALL = {"vocabulary": 256, "width": 16, "blocks": 2, "heads": 1, "head_width": 16, "hidden": 32}
"""A model that stands where none is given."""


class EngineCache(Cache):
    """This package's compact cache where transformers expects one of its own."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(layers=[])
        self.engine = engine

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the tokens of the longest sequence seen."""
        return max(self.engine.lengths, default=0)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with the sequences named, which beam search does."""
        self.engine.keep(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with the sequences named."""
        self.engine.keep(indices.tolist())


class IsoflopForCausalLM(PreTrainedModel, GenerationMixin):
    """A model of this package with the methods of transformers."""

    config_class = IsoflopConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"model.head.weight": "model.embedding.weight"}  # noqa: RUF012

    def __init__(self, config: IsoflopConfig) -> None:
        super().__init__(config)
        self.model = Transformer(config.described)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Draw matrices as `isoflop.build` does."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding."""
        found: nn.Module = self.model.embedding
        return found

    def get_output_embeddings(self) -> nn.Module:
        """Return the head."""
        found: nn.Module = self.model.head
        return found

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: EngineCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits, the loss where there are labels, and the cache where one is asked for.

        Args:
            input_ids: (B, T); with a cache only the last one is new.
            attention_mask: (B, T), zero at padding, which may lie on either side.
            past_key_values: what an earlier call returned.
            labels: (B, T), -100 where nothing is predicted.
            use_cache: whether a cache is made; the logits are then of the last tokens alone.
            logits_to_keep: last positions whose logits are wanted; 0 for all.
            others: of transformers; not used.
        """
        if past_key_values is not None:
            logits = past_key_values.engine.step(input_ids[:, -1].tolist())
            return CausalLMOutputWithPast(logits=logits[:, None], past_key_values=past_key_values)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if use_cache and labels is None and not self.training:
            engine = engine_for(self.model, self.config.decision, seed=self.config.seed)
            prompts = [row[kept.bool()].tolist() for row, kept in zip(input_ids, real, strict=True)]
            logits = engine.prefill(prompts)
            return CausalLMOutputWithPast(
                logits=logits[:, None], past_key_values=EngineCache(engine)
            )
        # Padding goes behind the text, where no causal model reads it.
        order = torch.argsort(real, dim=1, descending=True, stable=True)
        decision, noise = None, None
        if not self.training:
            decision = self.config.decision or self.model.config.decisions[0]
            rows, length = input_ids.shape
            noise = control_noise(self.model, decision, rows, length, self.config.seed)
        output = self.model(input_ids.gather(1, order), decision=decision, noise=noise)
        back = order.argsort(dim=1)
        logits = output.logits.gather(1, back[..., None].expand_as(output.logits))
        loss = None
        if labels is not None:
            targets = labels[:, 1:].reshape(-1)
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets)
        return CausalLMOutputWithPast(loss=loss, logits=logits[:, -logits_to_keep:])

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: EngineCache | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = True,
        **others: Any,
    ) -> dict[str, Any]:
        """Return the arguments of `forward` for the next token."""
        return {
            "input_ids": input_ids if past_key_values is None else input_ids[:, -1:],
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "use_cache": use_cache,
        }


AutoConfig.register(IsoflopConfig.model_type, IsoflopConfig)
AutoModelForCausalLM.register(IsoflopConfig, IsoflopForCausalLM)
