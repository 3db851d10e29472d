"""A plain decoder as Hugging Face describes it, and its weights: to Llama, Qwen3, Mistral and back.

What its configurations are here says `config.start`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from isoflop.config import Choices, ModelConfig
from isoflop.config.start import KINDS, LLAMA3
from isoflop.text import quoted


def is_plain(config: ModelConfig) -> bool:
    """Whether Llama or Qwen3 compute what a model computes."""
    return config.choices == Choices()


def described(config: ModelConfig, sequence_length: int) -> dict[str, Any]:
    """Return the configuration of Llama, or of Qwen3 where queries and keys are normalised.

    A width that is no multiple of the heads is one that transformers' Llama refuses, and Mistral's,
    which computes the same, does not.

    Args:
        config: a plain model; see `is_plain`.
        sequence_length: T, what it was trained on.
    """
    kind = "llama" if config.width % config.heads == 0 else "mistral"
    if config.query_key_norm:
        kind = "qwen3"
    return {
        "architectures": [f"{KINDS[kind]}ForCausalLM"],
        "model_type": kind,
        **sizes(config, sequence_length),
        "intermediate_size": config.hidden,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "rope_parameters": rope_parameters(config),
        "attention_bias": False,
        "attention_dropout": 0.0,
        **({"sliding_window": None} if kind == "mistral" else {}),
    }


def rope_parameters(config: ModelConfig) -> dict[str, Any]:
    """Return how transformers is told of rotary positions."""
    one = config.rope_scaling
    kind = "default" if one is None else one.kind
    told: dict[str, Any] = {"rope_type": kind, "rope_theta": config.rope_base}
    if one is not None:
        told["factor"] = one.factor
        if one.kind == "llama3":
            told |= {theirs: getattr(one, ours) for ours, theirs in LLAMA3.items()}
    return told


def sizes(config: ModelConfig, sequence_length: int) -> dict[str, Any]:
    """Return what every configuration there tells of a model; token 0 ends a document."""
    return {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.blocks,
        "num_attention_heads": config.heads,
        "max_position_embeddings": sequence_length,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "float32",
        "use_cache": True,
    }


def to_peer(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the weights of a plain model by the names of Llama and Qwen3, as views."""
    found = {}
    for ours, theirs in _names(config):
        parts = torch.split(state[ours], [rows for _, rows in theirs])
        found.update({name: part for (name, _), part in zip(theirs, parts, strict=True)})
    return found


def from_peer(state: Mapping[str, Tensor], config: ModelConfig, place: str) -> dict[str, Tensor]:
    """Return weights by the names of the plain model, in float32.

    Raises:
        ValueError: weights are missing, of another shape, or not known.
    """
    found, known = {}, set()
    for ours, theirs in _names(config):
        names = [name for name, _ in theirs]
        if missing := [name for name in names if name not in state]:
            raise ValueError(quoted(f"{place} has no weights {missing[0]!r}"))
        for name, rows in theirs:
            shape, rest = state[name].shape, state[names[0]].shape[1:]
            if shape[:1] != (rows,) or shape[1:] != rest:
                told = f"{list(shape)}; expected {[rows, *rest]}, by its config.json"
                raise ValueError(quoted(f"{place} has weights {name!r} of shape {told}"))
        found[ours] = torch.cat([state[name].float() for name in names])
        known.update(names)
    # What a tied head would be is written by some all the same, and so are tables of positions.
    spare = {"lm_head.weight"} & state.keys() if config.tied_embeddings else set()
    for name in spare:
        found["head.weight"] = state[name].float()
    others = [name for name in state if name not in known | spare and "inv_freq" not in name]
    if others:
        raise ValueError(
            quoted(f"{place} has weights {others[0]!r} that a {KINDS['llama']} model has not")
        )
    return found


def _names(config: ModelConfig) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Yield each weight of a plain model with the names and rows of the peer's that make it."""
    table, width = config.vocabulary, config.width
    queries, keys = config.heads * config.head_width, config.key_value_heads * config.head_width
    yield "embedding.weight", [("model.embed_tokens.weight", table)]
    yield "norm.weight", [("model.norm.weight", width)]
    if not config.tied_embeddings:
        yield "head.weight", [("lm_head.weight", table)]
    parts: dict[str, list[tuple[str, int]]] = {
        "attention_norm": [("input_layernorm", width)],
        "attention.query_key_value": [
            ("self_attn.q_proj", queries),
            ("self_attn.k_proj", keys),
            ("self_attn.v_proj", keys),
        ],
        "attention.output": [("self_attn.o_proj", width)],
        "feed_forward_norm": [("post_attention_layernorm", width)],
        "feed_forward.gate_up": [
            ("mlp.gate_proj", config.hidden),
            ("mlp.up_proj", config.hidden),
        ],
        "feed_forward.down": [("mlp.down_proj", width)],
    }
    if config.query_key_norm:
        parts["attention.query_norm"] = [("self_attn.q_norm", config.head_width)]
        parts["attention.key_norm"] = [("self_attn.k_norm", config.head_width)]
    for block in range(config.blocks):
        for ours, theirs in parts.items():
            named = [(f"model.layers.{block}.{name}.weight", rows) for name, rows in theirs]
            yield f"blocks.{block}.{ours}.weight", named
