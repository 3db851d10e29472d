"""Figures, tables and one self-contained page from a study's records.

What draws is loaded when it is asked for: a command line that reads values loads no charts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoflop.report.evidence import BenchRow, Evidence, LeftOut, RecipeSearch
    from isoflop.report.page import write_report
    from isoflop.report.routed import RoutedModel, routed_model

__all__ = [
    "BenchRow",
    "Evidence",
    "LeftOut",
    "RecipeSearch",
    "RoutedModel",
    "routed_model",
    "write_report",
]

_HOME = {"RoutedModel": "routed", "routed_model": "routed", "write_report": "page"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'evidence')}"), name)
