"""Memory of a training step, as closed forms over a run: state, activations, logits.

What an eager block keeps of a token for its backward pass is counted tensor by tensor; compiled
code keeps less. Workspaces of libraries and what an allocator leaves unused come on top.
"""

from __future__ import annotations

from bisect import bisect
from functools import lru_cache
from typing import Literal, assert_never

from isoflop.config import (
    BlockAttention,
    Frozen,
    Gelu,
    ModelConfig,
    Muon,
    Own,
    Recompute,
    RunConfig,
    SwiGlu,
    TopK,
)
from isoflop.costs import PROGRESS, hidden_weights, own_costs, parameters, tokens_by_block
from isoflop.variants import scheduled

LOGITS_AT_A_TIME = 2**26
"""Logits that exist at a time: 256 MiB in float32."""
BYTES_PER_PARAMETER = 16
"""Weight, gradient and AdamW's two moments, four bytes each."""
SPARED_BY_MUON = 4
"""Of these, where it keeps one moment alone."""
WORTH_MORE_TOKENS = 8192
"""Tokens held at a time from which on a GPU gains nothing by more: less is recomputed then."""
USED = {"cuda": 0.92, "cpu": 0.8}
"""Share of free memory that a run may take; the rest is for libraries and what lies unused."""
KEPT_WHEN_FREED = 2**25
"""Bytes below which what is freed stays with a process on a CPU (`training.memory`)."""
CHUNKED_ATTENTION = 1024
"""Tokens up to which attention in bf16 on a CPU keeps its weights (`ops.attention`)."""

MicroBatch = int | Literal["auto"] | None
"""Tokens of a step that are held at a time; `auto` for what fits, None for a whole step."""


class MemoryEstimate(Frozen):
    """Bytes of training in one process without sharding."""

    state_bytes: int
    """Weights, their copies in the products' precision, gradients and optimiser state."""
    sequence_bytes: int
    """What the backward pass needs of each sequence that is held."""
    passing_bytes: int
    """What comes and goes as the loss and then each block is gone back through, at its most."""
    sequences: int
    """Sequences held at a time."""
    recompute: Recompute
    """What blocks compute again."""

    @property
    def total_bytes(self) -> int:
        """Bytes at the peak of a step."""
        return self.state_bytes + self.sequences * self.sequence_bytes + self.passing_bytes


def estimate_memory(
    config: RunConfig,
    *,
    micro_batch: int | None = None,
    recompute: Recompute = "none",
    device: str = "cuda",
    logits: int = LOGITS_AT_A_TIME,
) -> MemoryEstimate:
    """Estimate what training a run holds in memory.

    Args:
        config: The run.
        micro_batch: Sequences held at a time; None for all of a step.
        recompute: What blocks compute again.
        device: `cuda` or `cpu`, where short sequences in bf16 keep the weights of attention.
        logits: most logits that exist at a time.
    """
    model, length = config.model, config.data.sequence_length
    progress, routed = _fullest(model, length), set(model.routed_blocks)
    value = 2 if config.recipe.precision == "bf16" else 4
    held = min(micro_batch or config.sequences_per_step, config.sequences_per_step)
    # The stream into the head's norm, the norm, what the head multiplies; targets and tokens.
    kept = length * ((8 + value) * model.width + 16)
    made_again = 0
    for block, tokens in enumerate(tokens_by_block(model, length, progress)):
        weights = _weights(config, block, tokens) if device == "cpu" else 0
        kept += tokens * _block_bytes(model, value, recompute, weights)
        if block in routed or tokens < length:
            kept += _routing_bytes(config, tokens, value)
        if recompute != "none":
            made_again = max(made_again, tokens * _block_bytes(model, value, "none", weights))
    of_own = _own_bytes(config, value, progress)
    if recompute == "none":
        kept += sum(of_own)
    else:
        made_again += max(of_own)
    # What is made again of one block, and gradients of its widest values as it goes back.
    block_bytes = held * (made_again + length * (2 * model.hidden * value + 3 * model.width * 4))
    logits_bytes = _logits_bytes(config, held, value, logits)
    left = _left_bytes(config, held, logits_bytes, block_bytes) if device == "cpu" else 0
    return MemoryEstimate(
        state_bytes=_state_bytes(config, parameters(model).total),
        sequence_bytes=kept,
        passing_bytes=max(logits_bytes, block_bytes) + left,
        sequences=held,
        recompute=recompute,
    )


@lru_cache(maxsize=256)
def _fullest(model: ModelConfig, length: int) -> float:
    """Return the share of training that is over when blocks process most tokens."""
    if not isinstance(model.depth, Own) or not scheduled(model.depth):
        return 1.0
    return max((0.0, *PROGRESS, 1.0), key=lambda at: sum(tokens_by_block(model, length, at)))


def spared_by_sharding(config: RunConfig, ranks: int) -> int:
    """Return the bytes that a rank holds less where blocks are split over so many.

    Of two blocks the weights are together: of the one that computes and the one that comes next.
    """
    model = config.model
    outside = (1 if model.tied_embeddings else 2) * model.vocabulary * model.width + model.width
    blocks = parameters(model).total - outside
    state = _state_bytes(config, blocks)
    whole = min(2, model.blocks) * blocks // model.blocks * (4 + _copy_bytes(config))
    return max(0, state - state // ranks - whole)


def _state_bytes(config: RunConfig, weights: int) -> int:
    """Return the bytes of weights, hidden matrices among them, with all that training keeps."""
    average = 0 if config.recipe.average_half_life is None else 4
    state = weights * (BYTES_PER_PARAMETER + average + _copy_bytes(config))
    if isinstance(config.recipe.optimiser, Muon):
        state -= SPARED_BY_MUON * hidden_weights(config.model)
    return state


def _copy_bytes(config: RunConfig) -> int:
    """Return the bytes of a weight as cast for products, where it is."""
    return 2 if config.recipe.precision == "bf16" else 0


def sequences_held(config: RunConfig, micro_batch_tokens: int) -> int:
    """Return how many sequences of a run a number of tokens is, rounded down.

    Raises:
        ValueError: it is none.
    """
    length = config.data.sequence_length
    if micro_batch_tokens < length:
        raise ValueError(
            f"micro_batch_tokens is {micro_batch_tokens}; expected at least the {length} tokens "
            "of a sequence"
        )
    return micro_batch_tokens // length


def smallest_step(config: RunConfig, device: str) -> MemoryEstimate:
    """Return the step that holds least: a sequence at a time, all blocks recomputed."""
    return estimate_memory(config, micro_batch=1, recompute="full", device=device)


def fitting_step(
    config: RunConfig,
    memory_bytes: float,
    device: str,
    recompute: Recompute | Literal["auto"] = "auto",
) -> MemoryEstimate | None:
    """Return the step that fits and recomputes least, with the most sequences at a time.

    More is recomputed where without it fewer than `WORTH_MORE_TOKENS` tokens would be held on a
    GPU, or less than one sequence on a CPU. Of the numbers of sequences that fit, one that divides
    the step is taken unless that halves it.

    Args:
        config: The run.
        memory_bytes: What it may use.
        device: `cuda` or `cpu`.
        recompute: What blocks compute again; `auto` for as little as can be.

    Returns:
        None where not even one sequence fits with everything recomputed.
    """
    best = None
    wanted = WORTH_MORE_TOKENS if device == "cuda" else 1
    enough = min(config.sequences_per_step, -(-wanted // config.data.sequence_length))
    every: tuple[Recompute, ...] = ("none", "selective", "full")
    for kind in every if recompute == "auto" else (recompute,):
        held = _most_sequences(config, memory_bytes, kind, device)
        if held and (best is None or held > best.sequences):
            best = estimate_memory(config, micro_batch=held, recompute=kind, device=device)
        if held >= enough:
            break
    return best


def _most_sequences(
    config: RunConfig, memory_bytes: float, recompute: Recompute, device: str
) -> int:
    """Return how many sequences fit, 0 for none."""

    def needed(held: int) -> int:
        found = estimate_memory(config, micro_batch=held, recompute=recompute, device=device)
        return found.total_bytes

    step = config.sequences_per_step
    most = bisect(range(1, step + 1), memory_bytes, key=needed)
    dividing = next((n for n in range(most, 0, -1) if step % n == 0), 0)
    return dividing if 2 * dividing > most else most


def _own_bytes(config: RunConfig, value: int, progress: float) -> list[int]:
    """Return the bytes that variants of one's own keep of a sequence in each block.

    Where their file says nothing, a product of 2 FLOPs by the width makes a value, which is kept
    before and after what follows it.
    """
    model, kept = config.model, [0] * config.model.blocks
    for block, _, costs in own_costs(model, config.data.sequence_length, progress=progress):
        values = costs.flops / model.width if costs.kept_values is None else costs.kept_values
        kept[block] += round(values * value)
    return kept


def _routing_bytes(config: RunConfig, processed: int, value: int) -> int:
    """Return the bytes that routing keeps of a sequence beside its block."""
    width, length = config.model.width, config.data.sequence_length
    # The stream, for the router; the update of each processed token, its gate and its place.
    kept = length * (4 * width + 16) + processed * (4 * width + 32)
    if isinstance(config.model.depth, TopK):
        # The head's input as cast, and its inner values before and after their activation.
        kept += length * width * (value + (value if value < 4 else 0))
    return kept


def _weights(config: RunConfig, block: int, tokens: int) -> int:
    """Return the bytes of attention's weights that a CPU keeps of a token in bf16."""
    attention = config.model.attention
    sparse = isinstance(attention, BlockAttention) and not (
        attention.ends_full
        or config.model.attends_fully(block)
        or attention.top_k * attention.block_size >= tokens
    )
    if config.recipe.precision != "bf16" or tokens > CHUNKED_ATTENTION or sparse:
        return 0
    # Over half of the keys and half a chunk: softmax in float32 and its copy for the product.
    return config.model.heads * (tokens // 2 + 64) * 6


def _block_bytes(model: ModelConfig, value: int, recompute: Recompute, weights: int) -> int:
    """Return the bytes that a block keeps of a token that it processes."""
    stream = 4 * model.width
    # What is of one's own is told apart (`_own_bytes`).
    heads = 0 if isinstance(model.attention, Own) or model.block else model.heads
    groups = model.key_value_heads if heads else 0
    queries = heads * model.head_width
    projected = (queries + 2 * groups * model.head_width) * value
    attended = queries * value + 4 * heads
    match model.feed_forward:
        case SwiGlu():
            # Gate and value; the activated gate and its product with the value are as many again.
            hidden = 2 * model.hidden * value
        case Gelu():
            hidden = model.hidden * value
        case Own():
            hidden = 0
        case _:
            assert_never(model.feed_forward)
    if model.block:
        hidden = 0
    match recompute:
        case "full":
            return stream
        case "selective":
            # Both results that are added to the stream are products too.
            return stream + projected + attended + hidden + 2 * model.width * value
        case "none":
            # Before and after either norm, and what the projections multiply.
            norms = 4 * stream + 2 * model.width * value
            turned = (queries + groups * model.head_width) * value
            if model.query_key_norm:
                # As float32 where they are not, and over their root mean square.
                copied = 4 if value < 4 else 0
                turned += (queries + groups * model.head_width) * (value + copied)
            return norms + projected + turned + attended + weights + 2 * hidden
        case _:
            assert_never(recompute)


def _left_bytes(config: RunConfig, held: int, logits: int, block: int) -> int:
    """Return the bytes that a process on a CPU has beside what is needed at the peak."""
    # Large logits are none of the pieces that a block leaves, and use none of them again.
    left = min(logits, block) if logits > 3 * KEPT_WHEN_FREED else 0
    matrix = 4 * config.model.vocabulary * config.model.width
    if held < config.sequences_per_step and matrix < KEPT_WHEN_FREED:
        # The gradient of a part of the step, before it was added to that of the parts before.
        left += matrix
    return left


def _logits_bytes(config: RunConfig, held: int, value: int, most: int) -> int:
    """Return the bytes of logits that exist at a time, and of what their chunks need."""
    vocabulary, width = config.model.vocabulary, config.model.width
    tokens = held * config.data.sequence_length
    # As multiplied, in float32, and their softmax.
    each = value + 8
    if tokens * vocabulary <= most:
        return tokens * vocabulary * each
    chunk = max(1, most // vocabulary) * vocabulary
    # As multiplied and their softmax; in bf16 either in float32 as well.
    each = 8 if value == 4 else 2 * value + 8
    return chunk * each + vocabulary * width * (4 + value) + tokens * width * 4
