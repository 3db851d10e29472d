"""Pure tensor functions; beside each fast one, a slow obvious reference."""

from isoflop.ops.attention import attention_step, causal_attention, causal_attention_reference
from isoflop.ops.block_attention import BlockAttentionResult, block_attention
from isoflop.ops.block_decoding import block_attention_step, extend_means
from isoflop.ops.block_reference import block_attention_reference
from isoflop.ops.block_routing import block_means
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
    "extend_means",
    "gather_tokens",
    "mask_positions",
    "membership",
    "rotary_tables",
    "rotate",
    "routed_update_reference",
    "top_k_positions",
]
