"""Figures, tables and one self-contained page from a study's records.

What draws is loaded when it is asked for: a command line that reads values loads no charts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoflop.report.disclosure import RecipeSearch
    from isoflop.report.provenance import LeftOut
    from isoflop.report.routed import RoutedModel, routed_model
    from isoflop.report.scaling.published import PublishedLines, published_lines
    from isoflop.report.scaling.write import write_scaling_report
    from isoflop.report.speeds import BenchRow
    from isoflop.report.write import write_report

__all__ = [
    "BenchRow",
    "LeftOut",
    "PublishedLines",
    "RecipeSearch",
    "RoutedModel",
    "published_lines",
    "routed_model",
    "write_report",
    "write_scaling_report",
]

_HOME = {
    "BenchRow": "speeds",
    "LeftOut": "provenance",
    "PublishedLines": "scaling.published",
    "RecipeSearch": "disclosure",
    "RoutedModel": "routed",
    "published_lines": "scaling.published",
    "routed_model": "routed",
    "write_report": "write",
    "write_scaling_report": "scaling.write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
