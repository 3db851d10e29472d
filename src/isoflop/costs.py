"""Parameters, FLOPs and cache bytes of a model, as closed forms over its configuration.

A multiply-accumulate is two FLOPs: a product of an (m, k) with a (k, n) matrix costs 2mnk. Norms,
rotary positions, softmax, activations, block means and the gate's product are not counted; router,
decision head, block gate and logits are. A backward pass is twice a forward pass by definition.

Conventions, which differ in what attention is charged for:

- `causal`: a query is charged for the keys it may attend, T(T+1)/2 pairs in a dense block and
  k(k+1)/2 in a routed one; under block attention for its own block up to itself, for the earlier
  blocks it selects, and for the gate's product with the mean of every earlier block. The default,
  and fair between kinds of attention.
- `full`: T^2 pairs, and k^2 in a routed block, as Chinchilla and Mixture-of-Depths count; under
  block attention whole blocks, and the gate's product with the mean of every block.
- `6nd`: 2N FLOPs per token forward and 6N in training, where N is every parameter except the
  embedding and an untied head, routed or not, as Mixture of Block Attention counts.
"""

from __future__ import annotations

from typing import assert_never

from isoflop.config import (
    Attention,
    BlockAttention,
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

_MEAN_BYTES = 4
"""Of a value of a block's mean key, which is kept in float32."""

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
    block_gate: int
    """Products of queries with mean keys of blocks."""
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
            "block_gate": self.block_gate,
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
    """Count the FLOPs of a forward pass of the finished model over one sequence.

    Routed blocks choose by top-k, as in training.

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

    A model that turns to full attention during training is charged for both in their shares.

    Args:
        config: The model.
        sequence_length: T, tokens in a sequence; the result is the mean over a full one.
        convention: What is counted; see the module.

    Raises:
        ValueError: If `sequence_length` is not positive.
    """
    forward: float = forward_flops(config, sequence_length, convention).total
    if isinstance(config.attention, BlockAttention) and config.attention.ends_full:
        share = config.attention.full_from
        sparse = _never_turning_full(config, config.attention)
        before = forward_flops(sparse, sequence_length, convention).total
        forward = share * before + (1 - share) * forward
    return (1 + BACKWARD_OVER_FORWARD) * forward / sequence_length


def attended_pairs(attention: Attention, tokens: int, *, causal: bool = True) -> tuple[int, int]:
    """Return pairs of query and key that are attended, and of query and mean key in the gate.

    Args:
        attention: which keys a query attends.
        tokens: T, tokens of a sequence.
        causal: whether own blocks count up to the query only, as under the `causal` convention,
            or whole, as under `full`.
    """
    match attention:
        case BlockAttention(block_size=size, top_k=top_k):
            if top_k * size < tokens:
                return _block_pairs(tokens, size, top_k, causal=causal)
        case FullAttention():
            pass
        case _:
            assert_never(attention)
    return (tokens * (tokens + 1) // 2 if causal else tokens * tokens), 0


def cache_bytes(
    config: ModelConfig, sequence_length: int, batch: int = 1, bytes_per_value: int = 2
) -> int:
    """Return the bytes of the key/value cache after `sequence_length` tokens.

    A routed block keeps only the tokens it processed, k of them under top-k; under a causal
    decision k is what to expect. Block attention keeps the mean of every whole block too, and a
    convolution on keys the last keys before it.

    Args:
        config: The model.
        sequence_length: T, tokens seen.
        batch: B, sequences.
        bytes_per_value: 2 for bf16, 4 for fp32.

    Raises:
        ValueError: If `sequence_length` is not positive.
    """
    _check_length(sequence_length)
    per_token = 2 * config.key_value_heads * config.head_width
    kept = 0
    for block, tokens in enumerate(_tokens_by_block(config, sequence_length)):
        kept += tokens * per_token * bytes_per_value
        if isinstance(config.attention, BlockAttention) and config.attention.key_convolution:
            raw = min(tokens, config.attention.key_convolution - 1)
            kept += raw * config.key_value_heads * config.head_width * bytes_per_value
        if not _is_full(config, block):
            assert isinstance(config.attention, BlockAttention)
            means = tokens // config.attention.block_size
            kept += means * config.key_value_heads * config.head_width * _MEAN_BYTES
    return batch * kept


def _flops_by_products(config: ModelConfig, sequence_length: int, *, causal: bool) -> ForwardFlops:
    """Count matrix products, with attention charged by the pair of query and key."""
    tokens = _tokens_by_block(config, sequence_length)
    pairs, gated = 0, 0
    for block, processed in enumerate(tokens):
        attention = FullAttention() if _is_full(config, block) else config.attention
        of_block = attended_pairs(attention, processed, causal=causal)
        pairs, gated = pairs + of_block[0], gated + of_block[1]
    router, decision_head = _routing_weights(config)
    # Every token is scored, also those that a block then leaves out.
    scored = sequence_length * len(config.routed_blocks)
    return ForwardFlops(
        sequence_length=sequence_length,
        embedding=0,
        attention_projections=2 * _projection_weights(config) * sum(tokens),
        attention_scores=2 * 2 * config.heads * config.head_width * pairs,
        block_gate=2 * config.heads * config.head_width * gated,
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
        block_gate=0,
        feed_forward=per_weight * config.blocks * feed_forward,
        router=per_weight * routed * router,
        decision_head=per_weight * routed * decision_head,
        logits=per_weight * config.width,
    )


def _block_pairs(tokens: int, size: int, top_k: int, *, causal: bool) -> tuple[int, int]:
    """Like `attended_pairs` for block attention that leaves some blocks out."""
    whole, rest = divmod(tokens, size)
    # Of the whole blocks, the first, second, ... select 0, 1, ... up to top_k - 1 earlier ones.
    growing = min(whole, top_k)
    selected = growing * (growing - 1) // 2 + (whole - growing) * (top_k - 1)
    earlier = size * size * selected + rest * size * min(top_k - 1, whole)
    if causal:
        own = whole * size * (size + 1) // 2 + rest * (rest + 1) // 2
        return own + earlier, size * whole * (whole - 1) // 2 + rest * whole
    return whole * size * size + rest * rest + earlier, tokens * (whole + (rest > 0))


def _is_full(config: ModelConfig, block: int) -> bool:
    """Whether a block of the finished model attends fully."""
    turns = isinstance(config.attention, BlockAttention) and config.attention.ends_full
    return turns or config.attends_fully(block)


def _never_turning_full(config: ModelConfig, attention: BlockAttention) -> ModelConfig:
    sparse = attention.model_copy(update={"full_from": 1.0})
    return config.model_copy(update={"attention": sparse})


def _projection_weights(config: ModelConfig) -> int:
    """Weights of a block that every token meets around attention: the query, key, value and output
    matrices, and a convolution of the keys."""
    matrices = 2 * config.width * config.head_width * (config.heads + config.key_value_heads)
    match config.attention:
        case FullAttention():
            return matrices
        case BlockAttention(key_convolution=taps):
            return matrices + taps * config.key_value_heads * config.head_width
        case _:
            assert_never(config.attention)


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
