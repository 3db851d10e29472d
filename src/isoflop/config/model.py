"""What a model is: a Llama-family decoder and the closed choices that vary in it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, assert_never, get_args

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from isoflop.config.own import Decision, Own, Part
from isoflop.frozen import Frozen, left_out

Gate = Literal["linear", "sigmoid", "tanh"]
"""What multiplies a routed block's update: r, sigmoid(r), or 1 + tanh(r) (tanh centred at one)."""


def _tag(value: Any) -> str | None:
    """Return which member of a union a value is of: its kind, or `own` for one's own."""
    if isinstance(value, Frozen):
        value = dict(value)
    if not isinstance(value, dict):
        return None
    kind = value.get("kind")
    own = "settings" in value or "source" in value
    return "own" if own else None if kind is None else str(kind)


class FullAttention(Frozen):
    """Causal softmax attention over all earlier tokens."""

    kind: Literal["full"] = "full"


class BlockAttention(Frozen):
    """Mixture of Block Attention (arXiv 2502.13189): a query's own block and the best earlier ones.

    In a routed block, blocks are formed over the selected tokens.
    """

    kind: Literal["block"] = "block"
    block_size: int = Field(default=512, ge=1, le=10**9)
    """Keys in a block."""
    top_k: int = Field(default=3, ge=1, le=10**9)
    """Blocks that a query attends; the own block counts."""
    full_last: int = Field(default=0, ge=0)
    """Last blocks of the model that attend fully (section 3.3)."""
    full_from: float = Field(default=1.0, gt=0, le=1)
    """Fraction of training after which every block attends fully, as the finished model does; 1
    for never (section 3.3)."""
    key_convolution: int = Field(default=0, ge=0, le=64)
    """Width of a causal depthwise convolution that is added to the keys; 0 for none (arXiv
    2511.11571)."""

    @property
    def ends_full(self) -> bool:
        """Whether the finished model attends fully."""
        return self.full_from < 1

    @property
    def described(self) -> str:
        """The choice in words, what is left at its default unsaid."""
        parts = [f"{self.top_k} blocks of {self.block_size} attended"]
        if self.full_last:
            parts.append(f"last {self.full_last} full")
        if self.ends_full:
            parts.append(f"full from {self.full_from:g} of training on")
        if self.key_convolution:
            parts.append(f"keys convolved over {self.key_convolution}")
        return ", ".join(parts)


Attention = Annotated[
    Annotated[FullAttention, Tag("full")]
    | Annotated[BlockAttention, Tag("block")]
    | Annotated[Own, Tag("own")],
    Discriminator(_tag),
]


class EveryToken(Frozen):
    """Every block processes every token: the plain transformer."""

    kind: Literal["every_token"] = "every_token"


class Routed(Frozen):
    """What the learned and the random router share (Mixture-of-Depths, arXiv 2404.02258)."""

    capacity: float = Field(gt=0, le=1)
    """Share of a sequence's tokens that a routed block processes."""
    every: int = Field(default=2, ge=1, le=1000)
    """Block i is routed when i % every == every - 1."""
    blocks: tuple[int, ...] | None = None
    """Routed blocks by index, in place of `every`."""
    gate: Gate = "linear"

    def selected_tokens(self, sequence_length: int) -> int:
        """Return k, the tokens per sequence that a routed block processes under top-k."""
        return max(1, math.floor(self.capacity * sequence_length))


class TopK(Routed):
    """Learned routing: the k tokens with the largest router logits are processed (section 3)."""

    kind: Literal["top_k"] = "top_k"
    router_bce: float = Field(default=0.0, ge=0, le=1e9)
    """Weight of the binary cross-entropy that teaches the router logit to tell membership."""


class RandomK(Routed):
    """The control: Gaussian noise chooses the k tokens, the learned gate still multiplies."""

    kind: Literal["random_k"] = "random_k"


Depth = Annotated[
    Annotated[EveryToken, Tag("every_token")]
    | Annotated[TopK, Tag("top_k")]
    | Annotated[RandomK, Tag("random_k")]
    | Annotated[Own, Tag("own")],
    Discriminator(_tag),
]


class Cap(Frozen):
    """At most so many processed tokens in a window of positions, in each routed block.

    Windows do not overlap. A token that a causal decision wants is processed while fewer than
    `tokens` were processed in its window before it.
    """

    window: int = Field(ge=1, le=10**9)
    """Positions in a window."""
    tokens: int | None = Field(default=None, ge=1)
    """Most tokens processed in a window; None for what the model's capacity makes of it."""

    def most(self, depth: Routed) -> int:
        """Return how many tokens of a window may be processed."""
        return depth.selected_tokens(self.window) if self.tokens is None else self.tokens

    def resolved(self, depth: Routed) -> Cap:
        """Return the same cap with its number of tokens told."""
        return Cap(window=self.window, tokens=self.most(depth))


class SwiGlu(Frozen):
    """Gated feed-forward of three matrices, as in Llama."""

    kind: Literal["swiglu"] = "swiglu"


class Gelu(Frozen):
    """Feed-forward of two matrices with a GELU between them."""

    kind: Literal["gelu"] = "gelu"


FeedForward = Annotated[
    Annotated[SwiGlu, Tag("swiglu")] | Annotated[Gelu, Tag("gelu")] | Annotated[Own, Tag("own")],
    Discriminator(_tag),
]


class Choices(Frozen):
    """What variants differ in."""

    attention: Attention = FullAttention()
    depth: Depth = EveryToken()
    feed_forward: FeedForward = SwiGlu()
    block: Own | None = Field(default=None, exclude_if=left_out)
    """A block of one's own, in place of attention and feed-forward."""

    @model_validator(mode="after")
    def _one_block(self) -> Choices:
        if self.block and (self.attention, self.feed_forward) != (FullAttention(), SwiGlu()):
            raise ValueError(
                "block is given, which takes the place of attention and feed-forward; leave "
                "these out"
            )
        return self

    @property
    def own(self) -> dict[Part, Own]:
        """The variants of one's own among these, by what they take the place of."""
        parts: dict[Part, Any] = {part: getattr(self, part) for part in get_args(Part)}
        return {part: one for part, one in parts.items() if isinstance(one, Own)}

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions that a model can be evaluated under, the headline one first.

        Depth decides, where it has more than one; else what of one's own does.
        """
        found = [decisions(self.depth), *(one.decisions for one in self.own.values())]
        return next((one for one in found if one != ("every_token",)), ("every_token",))

    @property
    def choices(self) -> Choices:
        """These alone, of what else has them."""
        return Choices(**{name: getattr(self, name) for name in Choices.model_fields})

    @property
    def follows_training(self) -> bool:
        """Whether what is computed may hang on the share of training that is over."""
        turning = isinstance(self.attention, BlockAttention) and self.attention.ends_full
        return turning or any(one.follows_training for one in self.own.values())


class Size(Frozen):
    """How large a model is."""

    vocabulary: int = Field(ge=2, le=10**7)
    width: int = Field(ge=1, le=10**6)
    """D, the residual stream."""
    blocks: int = Field(ge=1, le=10**4)
    heads: int = Field(ge=1, le=10**6)
    """H, query heads."""
    kv_heads: int | None = Field(default=None, ge=1)
    """Key/value heads; None for as many as query heads."""
    head_width: int = Field(ge=2, le=10**6)
    """K; even, since rotary positions turn pairs. heads * head_width need not equal width."""
    hidden: int = Field(ge=1, le=10**8)
    """Feed-forward width."""


class ShapeFamily(Frozen):
    """How a number of parameters becomes a shape: blocks against width, heads, feed-forward."""

    width_per_block: float = Field(default=16.0, ge=1e-3, le=1e6)
    """Wanted ratio of width to blocks; smaller means deeper."""
    head_width: int = Field(default=32, ge=2, le=10**6)
    """Wanted; the even number nearest to it that divides the width is taken."""
    width_step: int = Field(default=8, ge=2, le=10**4)
    """Widths are multiples of this."""
    minimum_blocks: int = Field(default=2, ge=1, le=1000)
    hidden_per_width: float = Field(default=8 / 3, gt=0, le=1000)
    """Feed-forward width over model width, rounded to a multiple of `hidden_step`."""
    hidden_step: int = Field(default=16, ge=1, le=10**6)
    queries_per_kv_head: int = Field(default=1, ge=1, le=10**4)
    query_key_norm: bool = False
    tied_embeddings: bool = False


class RopeScaling(Frozen):
    """How a model that was trained on a shorter context turns positions, as Llama 3 does."""

    kind: Literal["linear", "llama3"]
    """All frequencies divided by the factor; or low ones alone, with a passage between."""
    factor: float = Field(ge=1, le=1e6)
    low: float = Field(default=1.0, gt=0, le=1e6)
    """Turns within the former context, below which a frequency is low."""
    high: float = Field(default=4.0, gt=0, le=1e6)
    """Turns from which it stays."""
    trained: int = Field(default=8192, ge=1, le=10**9)
    """Tokens of the former context."""

    @model_validator(mode="after")
    def _ordered(self) -> RopeScaling:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; expected low below high")
        return self


class ModelConfig(Choices, Size):
    """A decoder: pre-norm RMSNorm, rotary positions, grouped-query attention, no biases."""

    query_key_norm: bool = False
    """RMSNorm on queries and keys per head, before rotary positions, as in Qwen3."""
    tied_embeddings: bool = False
    rope_base: float = Field(default=10_000.0, gt=1, le=1e12)
    rope_scaling: RopeScaling | None = Field(default=None, exclude_if=left_out)
    norm_epsilon: float = Field(default=1e-5, gt=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.head_width % 2:
            raise ValueError(
                f"head_width is {self.head_width}; rotary positions need an even number"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"kv_heads is {self.kv_heads}, which does not divide heads = {self.heads}"
            )
        if isinstance(self.attention, BlockAttention) and self.attention.full_last > self.blocks:
            raise ValueError(
                f"attention.full_last is {self.attention.full_last}; expected at most "
                f"blocks = {self.blocks}"
            )
        if isinstance(self.depth, Routed):
            named = self.depth.blocks or ()
            if len({i for i in named if 0 <= i < self.blocks}) != len(named):
                raise ValueError(
                    f"depth.blocks is {list(named)}; expected distinct indices from 0 to "
                    f"{self.blocks - 1}"
                )
            if not self.routed_blocks:
                raise ValueError(
                    f"depth routes no block: every = {self.depth.every} with {self.blocks} blocks; "
                    "use more blocks or a smaller `every`"
                )
        return self

    def with_choices(self, choices: Choices) -> ModelConfig | None:
        """Return the same shape with other choices, None where it has too few blocks for them."""
        try:
            return ModelConfig.model_validate({**dict(self), **dict(choices.choices)})
        except ValidationError:
            return None

    @property
    def key_value_heads(self) -> int:
        """Number of key/value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def routed_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks that process only selected tokens, ascending."""
        depth = self.depth
        if isinstance(depth, EveryToken | Own):
            return ()
        if depth.blocks is not None:
            return tuple(sorted(depth.blocks))
        return tuple(i for i in range(self.blocks) if i % depth.every == depth.every - 1)

    def attends_fully(self, block: int) -> bool:
        """Return whether a block attends fully from the first step of training on."""
        match self.attention:
            case FullAttention():
                return True
            case BlockAttention(full_last=last):
                return block >= self.blocks - last
            case Own():
                return False
            case _:
                assert_never(self.attention)


def decisions(depth: EveryToken | TopK | RandomK | Own) -> tuple[Decision, ...]:
    """Return the decisions that routing can be evaluated under, the headline one first.

    The headline is causal and fixed beforehand: the predictor for learned routing. Those of a
    whole model are `Choices.decisions`.
    """
    match depth:
        case EveryToken():
            return ("every_token",)
        case TopK(router_bce=weight):
            return ("predictor", "top_k", "threshold", *(("router",) if weight else ()))
        case RandomK():
            return ("bernoulli", "top_k")
        case Own(decisions=found):
            return found
        case _:
            assert_never(depth)
