"""Pure tensor functions; beside each fast one, a slow obvious reference."""

from isoflop.ops.attention import attention_step, causal_attention, causal_attention_reference
from isoflop.ops.blocks.attention import BlockAttentionResult, block_attention
from isoflop.ops.blocks.decoding import block_attention_step, extend_means
from isoflop.ops.blocks.operator import OPERATOR as BLOCK_ATTENTION
from isoflop.ops.blocks.reference import block_attention_reference
from isoflop.ops.blocks.routing import block_means
from isoflop.ops.cross_entropy import (
    LOGITS_AT_A_TIME,
    chunked_cross_entropy,
    losses_and_slope,
)
from isoflop.ops.rope import rotary_tables, rotate
from isoflop.ops.selection import (
    add_at,
    cap_selection,
    gather_tokens,
    mask_positions,
    membership,
    routed_update_reference,
    top_k_positions,
)

__all__ = [
    "BLOCK_ATTENTION",
    "LOGITS_AT_A_TIME",
    "BlockAttentionResult",
    "add_at",
    "attention_step",
    "block_attention",
    "block_attention_reference",
    "block_attention_step",
    "block_means",
    "cap_selection",
    "causal_attention",
    "causal_attention_reference",
    "chunked_cross_entropy",
    "extend_means",
    "gather_tokens",
    "losses_and_slope",
    "mask_positions",
    "membership",
    "rotary_tables",
    "rotate",
    "routed_update_reference",
    "top_k_positions",
]
