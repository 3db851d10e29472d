"""Published numbers, as data, for overlays."""

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
    "Figure3",
    "Figure4",
    "ModFigures",
    "PublishedMinimum",
    "PublishedModel",
    "PublishedPoint",
    "mod_figures",
]
