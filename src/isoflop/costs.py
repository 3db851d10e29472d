"""Parameters, FLOPs and cache bytes of a model, as closed forms over its configuration.

A multiply-accumulate is two FLOPs: a product of an (m, k) with a (k, n) matrix costs 2mnk. Norms,
rotary positions, softmax, activations and the gate's product are not counted; router, decision
head and logits are. A backward pass is twice a forward pass by definition.

Conventions, which differ in what attention is charged for:

- `causal`: a query is charged for the keys it may attend, T(T+1)/2 pairs in a dense block and
  k(k+1)/2 in a routed one. The default, and fair between kinds of attention.
- `full`: T^2 pairs, and k^2 in a routed block, as Chinchilla and Mixture-of-Depths count.
- `6nd`: 2N FLOPs per token forward and 6N in training, where N is every parameter except the
  embedding and an untied head, routed or not, as Mixture of Block Attention counts.
"""

from __future__ import annotations

from typing import assert_never

from isoflop.config import (
    Convention,
    EveryToken,
    Frozen,
    FullAttention,
    Gelu,
    ModelConfig,
    ParameterCount,
    RandomK,
    SwiGlu,
    TopK,
)

BACKWARD_OVER_FORWARD = 2
"""FLOPs of a backward pass over those of a forward pass, by definition."""


class ForwardFlops(Frozen):
    """FLOPs of one forward pass over one full sequence, split by part."""

    sequence_length: int
    embedding: int
    """A lookup: zero."""
    attention_projections: int
    """Queries, keys, values and output."""
    attention_scores: int
    """Scores and the weighted sum of values."""
    feed_forward: int
    router: int
    decision_head: int
    logits: int

    @property
    def parts(self) -> dict[str, int]:
        """FLOPs per sequence by the name of the part."""
        return {
            "embedding": self.embedding,
            "attention_projections": self.attention_projections,
            "attention_scores": self.attention_scores,
            "feed_forward": self.feed_forward,
            "router": self.router,
            "decision_head": self.decision_head,
            "logits": self.logits,
        }

    @property
    def parts_per_token(self) -> dict[str, float]:
        """FLOPs per token by the name of the part, averaged over a full sequence."""
        return {name: flops / self.sequence_length for name, flops in self.parts.items()}

    @property
    def total(self) -> int:
        """FLOPs per sequence."""
        return sum(self.parts.values())

    @property
    def per_token(self) -> float:
        """FLOPs per token, averaged over a full sequence."""
        return self.total / self.sequence_length


def parameters(config: ModelConfig) -> ParameterCount:
    """Count the parameters of a model.

    Returns:
        `total`; `non_embedding`, the total without the embedding and an untied head; `active`,
        the total with the weights of a routed block counted at its capacity, its router and
        decision head whole, rounded.
    """
    width, routed = config.width, len(config.routed_blocks)
    per_block = _attention_weights(config) + _feed_forward_weights(config) + _norm_weights(config)
    router, decision_head = _routing_weights(config)
    non_embedding = config.blocks * per_block + routed * (router + decision_head) + width
    total = non_embedding + config.vocabulary * width * (1 if config.tied_embeddings else 2)
    idle = routed * per_block * (1 - _capacity(config))
    return ParameterCount(total=total, non_embedding=non_embedding, active=round(total - idle))


def forward_flops(
    config: ModelConfig, sequence_length: int, convention: Convention = "causal"
) -> ForwardFlops:
    """Count the FLOPs of a forward pass over one sequence, as training runs it.

    Args:
        config: The model.
        sequence_length: T, tokens in the sequence.
        convention: What attention is charged for; see the module. Under `6nd` each part is
            charged for the parameters it holds, block norms with what they feed and the final
            norm with the logits, so that the parts add up to 2 N T.

    Raises:
        ValueError: If `sequence_length` is not positive.
    """
    _check_length(sequence_length)
    match convention:
        case "6nd":
            return _flops_by_weights(config, sequence_length)
        case "causal" | "full":
            return _flops_by_products(config, sequence_length, causal=convention == "causal")
        case _:
            assert_never(convention)


def train_flops_per_token(
    config: ModelConfig, sequence_length: int, convention: Convention = "causal"
) -> float:
    """Return the FLOPs of training on one token: a forward pass and a backward one, twice as dear.

    Args:
        config: The model.
        sequence_length: T, tokens in a sequence; the result is the mean over a full one.
        convention: What is counted; see the module.

    Raises:
        ValueError: If `sequence_length` is not positive.
    """
    forward = forward_flops(config, sequence_length, convention)
    return (1 + BACKWARD_OVER_FORWARD) * forward.total / sequence_length


def cache_bytes(
    config: ModelConfig, sequence_length: int, batch: int = 1, bytes_per_value: int = 2
) -> int:
    """Return the bytes of the key/value cache after `sequence_length` tokens.

    A routed block keeps only the tokens it processed, k of them under top-k; under a causal
    decision k is what to expect.

    Args:
        config: The model.
        sequence_length: T, tokens seen.
        batch: B, sequences.
        bytes_per_value: 2 for bf16, 4 for fp32.

    Raises:
        ValueError: If `sequence_length` is not positive.
    """
    _check_length(sequence_length)
    match config.attention:
        case FullAttention():
            values_per_token = 2 * config.key_value_heads * config.head_width
        case _:
            assert_never(config.attention)
    kept = sum(_tokens_by_block(config, sequence_length))
    return batch * kept * values_per_token * bytes_per_value


def _flops_by_products(config: ModelConfig, sequence_length: int, *, causal: bool) -> ForwardFlops:
    """Count matrix products, with attention charged by the pair of query and key."""
    tokens = _tokens_by_block(config, sequence_length)
    match config.attention:
        case FullAttention():
            pairs = sum(n * (n + 1) // 2 if causal else n * n for n in tokens)
        case _:
            assert_never(config.attention)
    router, decision_head = _routing_weights(config)
    # Every token is scored, also those that a block then leaves out.
    scored = sequence_length * len(config.routed_blocks)
    return ForwardFlops(
        sequence_length=sequence_length,
        embedding=0,
        attention_projections=2 * _projection_weights(config) * sum(tokens),
        attention_scores=2 * 2 * config.heads * config.head_width * pairs,
        feed_forward=2 * _feed_forward_weights(config) * sum(tokens),
        router=2 * router * scored,
        decision_head=2 * decision_head * scored,
        logits=2 * config.width * config.vocabulary * sequence_length,
    )


def _flops_by_weights(config: ModelConfig, sequence_length: int) -> ForwardFlops:
    """Charge each token two FLOPs for every non-embedding parameter."""
    per_weight = 2 * sequence_length
    router, decision_head = _routing_weights(config)
    attention = _attention_weights(config) + config.width
    feed_forward = _feed_forward_weights(config) + config.width
    routed = len(config.routed_blocks)
    return ForwardFlops(
        sequence_length=sequence_length,
        embedding=0,
        attention_projections=per_weight * config.blocks * attention,
        attention_scores=0,
        feed_forward=per_weight * config.blocks * feed_forward,
        router=per_weight * routed * router,
        decision_head=per_weight * routed * decision_head,
        logits=per_weight * config.width,
    )


def _projection_weights(config: ModelConfig) -> int:
    """Weights of the query, key, value and output matrices of a block."""
    return 2 * config.width * config.head_width * (config.heads + config.key_value_heads)


def _attention_weights(config: ModelConfig) -> int:
    """Weights of a block's attention: its matrices and, if asked for, query and key norms."""
    return _projection_weights(config) + (2 * config.head_width if config.query_key_norm else 0)


def _norm_weights(config: ModelConfig) -> int:
    """Weights of a block's two norms, before attention and before the feed-forward."""
    return 2 * config.width


def _feed_forward_weights(config: ModelConfig) -> int:
    """Weights of a block's feed-forward matrices."""
    match config.feed_forward:
        case SwiGlu():
            return 3 * config.width * config.hidden
        case Gelu():
            return 2 * config.width * config.hidden
        case _:
            assert_never(config.feed_forward)


def _routing_weights(config: ModelConfig) -> tuple[int, int]:
    """Weights of a routed block's router and of its decision head."""
    match config.depth:
        case EveryToken():
            return 0, 0
        case TopK():
            half = max(1, config.width // 2)
            return config.width, config.width * half + half
        case RandomK():
            return config.width, 0
        case _:
            assert_never(config.depth)


def _capacity(config: ModelConfig) -> float:
    """Share of the tokens that a routed block processes; 1 where no block is routed."""
    match config.depth:
        case EveryToken():
            return 1.0
        case TopK(capacity=capacity) | RandomK(capacity=capacity):
            return capacity
        case _:
            assert_never(config.depth)


def _tokens_by_block(config: ModelConfig, sequence_length: int) -> list[int]:
    """Tokens of a sequence that each block processes."""
    match config.depth:
        case EveryToken():
            return [sequence_length] * config.blocks
        case TopK() | RandomK():
            selected, routed = config.depth.selected_tokens(sequence_length), config.routed_blocks
            return [selected if i in routed else sequence_length for i in range(config.blocks)]
        case _:
            assert_never(config.depth)


def _check_length(sequence_length: int) -> None:
    if sequence_length < 1:
        raise ValueError(f"sequence_length is {sequence_length}; expected at least 1")
