"""What a page prints of the routed model that it looks into, whatever the study."""

from __future__ import annotations

from isoflop.notation import count
from isoflop.report.routed import CHOICE, RoutedModel
from isoflop.report.routed_figures import RoutedFigures
from isoflop.report.strip import strip


def routed_section(
    model: RoutedModel | None, figures: RoutedFigures, unit: str
) -> dict[str, object] | None:
    """Return the values of the section, None where the study has no routed model.

    Args:
        model: the one that is looked into.
        figures: as `routed_figures` makes them.
        unit: what losses are in.
    """
    if model is None:
        return None
    config, evaluation = model.record.config, model.record.evaluation()
    return {
        "variant": model.variant,
        "run_id": model.record.run_id,
        "shape": f"{config.model.blocks} blocks of width {config.model.width}",
        "parameters": count(model.record.parameters.total),
        "loss": "" if evaluation is None else f"{evaluation.loss:.4f} {unit}",
        "choice": CHOICE,
        "known": model.evaluation is not None or model.sample is not None,
        "missing": model.missing,
        "decisions": figures.decisions,
        "losses": figures.losses,
        "strip": None if model.sample is None else strip(model.sample),
    }
