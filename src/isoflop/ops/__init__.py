"""Pure tensor functions; beside each fast one, a slow obvious reference."""

from isoflop.ops.attention import attention_step, causal_attention, causal_attention_reference
from isoflop.ops.blocks.attention import BlockAttentionResult, block_attention
from isoflop.ops.blocks.decoding import block_attention_step
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
from isoflop.ops.tiled import OPERATOR as TILED_ATTENTION
