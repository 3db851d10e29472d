"""Published numbers, as data, for overlays."""

from isoflop.reference.moba import (
    ATTENTIONS,
    MobaScaling,
    PublishedAttention,
    PublishedScaling,
    ScalingPanel,
    moba_scaling,
)
from isoflop.reference.mod import (
    Figure3,
    Figure4,
    ModFigures,
    PublishedMinimum,
    PublishedModel,
    PublishedPoint,
    mod_figures,
)

__all__ = [
    "ATTENTIONS",
    "Figure3",
    "Figure4",
    "MobaScaling",
    "ModFigures",
    "PublishedAttention",
    "PublishedMinimum",
    "PublishedModel",
    "PublishedPoint",
    "PublishedScaling",
    "ScalingPanel",
    "moba_scaling",
    "mod_figures",
]
