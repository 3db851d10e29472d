"""Modules that call ops: attention, routing, feed-forward, transformer; `build(config)`."""

from isoflop.model.layers import Block, Memory, RmsNorm, SelfAttention
from isoflop.model.own import OwnBlock, OwnPart
from isoflop.model.pretrained import start_from
from isoflop.model.routing import (
    RoutedBlock,
    Routing,
    control_draws,
    gate,
    membership_loss,
    statistics_of,
)
from isoflop.model.transformer import Output, Transformer, build
