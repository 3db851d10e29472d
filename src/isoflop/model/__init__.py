"""Modules that call ops: attention, routing, feed-forward, transformer; `build(config)`."""

from isoflop.model.layers import Block, RmsNorm, SelfAttention
from isoflop.model.routing import RoutedBlock, Routing, gate, predictor_loss, router_loss
from isoflop.model.transformer import Output, Transformer, build

__all__ = [
    "Block",
    "Output",
    "RmsNorm",
    "RoutedBlock",
    "Routing",
    "SelfAttention",
    "Transformer",
    "build",
    "gate",
    "predictor_loss",
    "router_loss",
]
