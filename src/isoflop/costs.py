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
  embedding and an untied head, routed or not, as Mixture of Block Attention counts. Of a variant
  of one's own it is the parameters that its file calls active.

What a variant of one's own costs says its file (`isoflop.variants.Costs`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, assert_never

from pydantic import Field

from isoflop.config import (
    BlockAttention,
    Convention,
    Frozen,
    FullAttention,
    Gelu,
    ModelConfig,
    Own,
    ParameterCount,
    Part,
    Routed,
    SwiGlu,
    TopK,
)
from isoflop.variants import Costs, costs_of, processed, scheduled

_MANY_TOKENS = 1 << 20
"""Of a sequence by which the share that a block processes is told."""
PROGRESS = tuple((i + 0.5) / 32 for i in range(32))
"""Shares of training at which a scheduled depth is charged."""
_MEAN_BYTES = 4
"""Of a value of a block's mean key, which is kept in float32."""


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
    own: int = Field(default=0, exclude_if=lambda flops: not flops)
    """What variants of one's own do; not told where there is none."""

    @property
    def parts(self) -> dict[str, int]:
        """FLOPs per sequence by the name of the part."""
        told = ((name, flops) for name, flops in self if flops or name != "own")
        return {name: flops for name, flops in told if name != "sequence_length"}

    @property
    def total(self) -> int:
        """FLOPs per sequence."""
        return sum(self.parts.values())

    @property
    def per_token(self) -> float:
        """FLOPs per token, averaged over a full sequence."""
        return self.total / self.sequence_length


class _Part(NamedTuple):
    """A part of the model: what it holds, and how often."""

    weights: int
    """That a token is multiplied with."""
    scales: int
    """Of norms, whose products are charged under `6nd` alone."""
    copies: int
    tokens: Literal["none", "processed", "scored", "all"]
    """That meet a copy: those that its block processes, all in a routed block, or all there are."""

    @property
    def parameters(self) -> int:
        """Of a copy."""
        return self.weights + self.scales


def parameters(config: ModelConfig) -> ParameterCount:
    """Count the parameters of a model.

    Returns:
        `total`; `non_embedding`, the total without the embedding and an untied head; `active`,
        the total with the weights of a routed block counted at its capacity, its router and
        decision head whole, rounded.
    """
    parts = _parts(config)
    total = sum(part.copies * part.parameters for part in parts.values())
    tables = parts["embedding"], parts["logits"]
    per_block = sum(part.parameters for part in parts.values() if part.tokens == "processed")
    shares = _shares(config)
    idle = per_block * sum(1 - share for share in shares)
    for block, part, costs in own_costs(config, _MANY_TOKENS):
        total += costs.parameters
        used = costs.parameters if costs.active is None else costs.active
        # Depth is around the block, and meets all tokens.
        idle += costs.parameters - used * (1 if part == "depth" else shares[block])
    return ParameterCount(
        total=total,
        non_embedding=total - sum(part.copies * part.weights for part in tables),
        active=round(total - idle),
    )


def own_costs(
    config: ModelConfig, sequence_length: int, convention: str = "causal", progress: float = 1.0
) -> list[tuple[int, Part, Costs]]:
    """Return each block, each variant of one's own in it, and what that costs for one sequence."""
    found, own = [], config.own
    for block, tokens in enumerate(tokens_by_block(config, sequence_length, progress)):
        for part, named in own.items():
            given = sequence_length if part == "depth" else tokens
            found.append((block, part, costs_of(named, part, config, block, given, convention)))
    return found


def hidden_weights(config: ModelConfig) -> int:
    """Count the weights of attention and feed-forward, which Muon trains where it is chosen."""
    parts = _parts(config)
    hidden = parts["attention_projections"], parts["feed_forward"]
    return sum(part.copies * part.weights for part in hidden)


def forward_flops(
    config: ModelConfig,
    sequence_length: int,
    convention: Convention = "causal",
    progress: float = 1.0,
) -> ForwardFlops:
    """Count the FLOPs of a forward pass of the finished model over one sequence.

    Routed blocks choose by top-k, as in training.

    Args:
        config: The model.
        sequence_length: T.
        convention: What attention is charged for; see the module. Under `6nd` each part is
            charged for the parameters it holds, block norms with what they feed and the final
            norm with the logits, so that the parts add up to 2 N T.
        progress: Share of training that is over, by which a scheduled depth is charged, and
            attention that becomes full.

    Raises:
        ValueError: If `sequence_length` is not positive.
    """
    parts, tokens = _parts(config), tokens_by_block(config, sequence_length, progress)
    of_own = [costs for *_, costs in own_costs(config, sequence_length, convention, progress)]
    inner, pairs, gated = config.heads * config.head_width, 0, 0
    if convention == "6nd":
        # The embedding and the head are no parameters that N counts.
        for name in ("embedding", "logits"):
            parts[name] = parts[name]._replace(weights=0)
        met = {name: sequence_length * part.copies for name, part in parts.items()}
        flops = {name: 2 * met[name] * part.parameters for name, part in parts.items()}
        used = (one.parameters if one.active is None else one.active for one in of_own)
        own = float(2 * sequence_length * sum(used))
    else:
        # Every token is scored, also those that a block then leaves out.
        scored = sequence_length * len(config.routed_blocks)
        met = {"none": 0, "processed": sum(tokens), "scored": scored, "all": sequence_length}
        flops = {name: 2 * met[part.tokens] * part.weights for name, part in parts.items()}
        own = sum(one.flops for one in of_own)
        for block, given in enumerate(tokens):
            attention = FullAttention() if _is_full(config, block, progress) else config.attention
            if not isinstance(attention, Own) and not config.block:
                of_block = attended_pairs(attention, given, causal=convention == "causal")
                pairs, gated = pairs + of_block[0], gated + of_block[1]
    return ForwardFlops(
        sequence_length=sequence_length,
        attention_scores=2 * 2 * inner * pairs,
        block_gate=2 * inner * gated,
        own=round(own),
        **flops,
    )


def train_flops_per_token(
    config: ModelConfig, sequence_length: int, convention: Convention = "causal"
) -> float:
    """Return the FLOPs of training on one token: a forward pass and a backward one, twice as dear.

    The mean over a full sequence of T tokens. A model that turns to full attention during training
    is charged for both in their shares.

    Raises:
        ValueError: If `sequence_length` is not positive.
    """

    def forward(progress: float) -> int:
        return forward_flops(config, sequence_length, convention, progress).total

    mean: float = forward(1.0)
    if isinstance(config.attention, BlockAttention) and config.attention.ends_full:
        share = config.attention.full_from
        mean = share * forward(0.0) + (1 - share) * mean
    if isinstance(config.depth, Own) and scheduled(config.depth):
        mean = sum(map(forward, PROGRESS)) / len(PROGRESS)
    return 3 * mean / sequence_length


def attended_pairs(
    attention: FullAttention | BlockAttention, tokens: int, *, causal: bool = True
) -> tuple[int, int]:
    """Return pairs of query and key that are attended, and of query and mean key in the gate.

    `causal` counts own blocks up to the query only, as that convention does; else they are whole,
    as under `full`.
    """
    if isinstance(attention, FullAttention) or attention.top_k * attention.block_size >= tokens:
        return (tokens * (tokens + 1) // 2 if causal else tokens * tokens), 0
    size, top_k = attention.block_size, attention.top_k
    whole, rest = divmod(tokens, size)
    # Of the whole blocks, the first, second, ... select 0, 1, ... up to top_k - 1 earlier ones.
    growing = min(whole, top_k)
    selected = growing * (growing - 1) // 2 + (whole - growing) * (top_k - 1)
    earlier = size * size * selected + rest * size * min(top_k - 1, whole)
    if causal:
        own = whole * size * (size + 1) // 2 + rest * (rest + 1) // 2
        return own + earlier, size * whole * (whole - 1) // 2 + rest * whole
    return whole * size * size + rest * rest + earlier, tokens * (whole + (rest > 0))


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
    key, attention = config.key_value_heads * config.head_width, config.attention
    kept = sum(costs.cache_values for *_, costs in own_costs(config, sequence_length))
    kept *= bytes_per_value
    if isinstance(attention, Own) or config.block:
        return batch * kept
    for block, tokens in enumerate(tokens_by_block(config, sequence_length)):
        kept += 2 * tokens * key * bytes_per_value
        if isinstance(attention, BlockAttention):
            kept += min(tokens, max(0, attention.key_convolution - 1)) * key * bytes_per_value
            if not _is_full(config, block):
                kept += tokens // attention.block_size * key * _MEAN_BYTES
    return batch * kept


def _parts(config: ModelConfig) -> dict[str, _Part]:
    """Return the parts that hold parameters, by the names of `ForwardFlops`."""
    width, table = config.width, config.vocabulary * config.width
    blocks, routed, half = config.blocks, len(config.routed_blocks), max(1, config.width // 2)
    projections = 2 * width * config.head_width * (config.heads + config.key_value_heads)
    match config.attention:
        case FullAttention():
            pass
        case BlockAttention(key_convolution=taps):
            projections += taps * config.key_value_heads * config.head_width
        case Own():
            projections = 0
        case _:
            assert_never(config.attention)
    match config.feed_forward:
        case SwiGlu():
            matrices = 3
        case Gelu():
            matrices = 2
        case Own():
            matrices = 0
        case _:
            assert_never(config.feed_forward)
    query_key = config.query_key_norm and not isinstance(config.attention, Own)
    norms = width + (2 * config.head_width if query_key else 0)
    predicted = isinstance(config.depth, TopK)
    # A block of one's own has neither attention nor feed-forward.
    there = 0 if config.block else 1
    return {
        "embedding": _Part(table, 0, 0 if config.tied_embeddings else 1, "none"),
        "attention_projections": _Part(there * projections, there * norms, blocks, "processed"),
        "feed_forward": _Part(
            there * matrices * width * config.hidden, there * width, blocks, "processed"
        ),
        "router": _Part(width, 0, routed, "scored"),
        "decision_head": _Part(predicted * (width + 1) * half, 0, routed, "scored"),
        "logits": _Part(table, width, 1, "all"),
    }


def _is_full(config: ModelConfig, block: int, progress: float = 1.0) -> bool:
    """Whether a block attends fully after a share of training."""
    attention = config.attention
    if isinstance(attention, BlockAttention) and attention.ends_full:
        return progress >= attention.full_from or config.attends_fully(block)
    return config.attends_fully(block)


def _shares(config: ModelConfig) -> list[float]:
    """Return the share of tokens that each block processes."""
    if isinstance(config.depth, Routed):
        routed, capacity = set(config.routed_blocks), config.depth.capacity
        return [capacity if block in routed else 1.0 for block in range(config.blocks)]
    return [tokens / _MANY_TOKENS for tokens in tokens_by_block(config, _MANY_TOKENS)]


def tokens_by_block(config: ModelConfig, sequence_length: int, progress: float = 1.0) -> list[int]:
    """Return the tokens of a sequence that each block processes.

    Raises:
        ValueError: If `sequence_length` is not positive.
    """
    if sequence_length < 1:
        raise ValueError(f"sequence_length is {sequence_length}; expected at least 1")
    blocks, depth = range(config.blocks), config.depth
    if isinstance(depth, Own):
        return [processed(depth, config, block, sequence_length, progress) for block in blocks]
    if not isinstance(depth, Routed):
        return [sequence_length] * config.blocks
    routed, selected = set(config.routed_blocks), depth.selected_tokens(sequence_length)
    return [selected if block in routed else sequence_length for block in blocks]
