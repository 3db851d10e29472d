"""An estimate of the memory that training a run takes, good to about a factor of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isoflop.config import Frozen, ModelConfig, Routed, RunConfig, SwiGlu
from isoflop.costs import parameters
from isoflop.planning.cell import PlannedRun

_BYTES_PER_PARAMETER = 16
"""Weight, gradient and AdamW's two moments, four bytes each."""


class MemoryEstimate(Frozen):
    """Bytes of training in one process without sharding."""

    state_bytes: int
    """Weights, gradients and optimiser state."""
    sequence_bytes: int
    """What the backward pass needs of each sequence of a step."""
    sequences: int
    """Sequences held at a time: all of a step, unless it is split."""

    @property
    def total_bytes(self) -> int:
        """Bytes while a whole step is held at a time."""
        return self.state_bytes + self.sequences * self.sequence_bytes


def estimate_memory(config: RunConfig) -> MemoryEstimate:
    """Estimate what training a run holds in memory.

    Counted are fp32 weights, gradients and AdamW moments, the weights' copy in the precision of
    the products, and the values that the backward pass keeps. Scores of attention are not, since
    fused kernels keep none; eager short sequences in bf16 on a CPU do keep them, and compiled
    code keeps less than is counted here. Workspaces and the runtime come on top.
    """
    model, length = config.model, config.data.sequence_length
    value_bytes = 2 if config.recipe.precision == "bf16" else 4
    copy_bytes = value_bytes if value_bytes < 4 else 0
    processed = 0
    per_token = _block_bytes_per_token(model, value_bytes)
    for index in range(model.blocks):
        if isinstance(model.depth, Routed) and index in model.routed_blocks:
            tokens = model.depth.selected_tokens(length)
            # The gathered tokens, and of every token the predictor's input and inner values.
            processed += tokens * (per_token + 4 * model.width) + length * 8 * model.width
        else:
            processed += length * per_token
    # Logits, their log-softmax in fp32 and its gradient; the final norm and the embedding.
    outside = length * (model.vocabulary * (value_bytes + 8) + 3 * model.width * 4)
    return MemoryEstimate(
        state_bytes=parameters(model).total * (_BYTES_PER_PARAMETER + copy_bytes),
        sequence_bytes=processed + outside,
        sequences=config.sequences_per_step,
    )


def memory_warnings(runs: Sequence[PlannedRun], limit_bytes: int | None) -> Iterator[str]:
    """Yield a line where runs are expected to need more memory than a process may take."""
    if limit_bytes is None:
        return
    needed = [(estimate_memory(run.config).total_bytes, run) for run in runs]
    over = [(total, run) for total, run in needed if total > limit_bytes]
    if over:
        total, run = max(over, key=lambda one: one[0])
        yield (
            f"{len(over)} of {len(runs)} runs are expected to need more than the limit of "
            f"{limit_bytes / 2**30:.3g} GiB of memory, the largest ({run.variant}, "
            f"{parameters(run.config.model).total:,} parameters) about {total / 2**30:.3g} GiB"
        )


def _block_bytes_per_token(model: ModelConfig, value_bytes: int) -> int:
    """Bytes that a block keeps of one token for its backward pass."""
    queries = model.heads * model.head_width
    keys_and_values = 2 * model.key_value_heads * model.head_width
    # The stream before either norm in fp32, the normed values in the products' precision.
    norms = 2 * model.width * (4 + value_bytes)
    # Before and after rotation, what the kernel saves, and the input of the output product.
    attention = 2 * (queries + keys_and_values) + 2 * queries
    # Projections, the activation and its product (gated), or input and output of the activation.
    feed_forward = (4 if isinstance(model.feed_forward, SwiGlu) else 2) * model.hidden
    return norms + (attention + feed_forward) * value_bytes
