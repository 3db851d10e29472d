"""A study as a command is given it, in the precision that its runs have or would have."""

from __future__ import annotations

from pathlib import Path

from isoflop.cli.options import RUNS
from isoflop.config import Study
from isoflop.config.load import load_study
from isoflop.sweep import settled


def settled_study(path: Path, out: Path | None, results: Path) -> tuple[Study, Path]:
    """Return the study of a file with its precision settled, and its folder.

    Args:
        path: the study's file.
        out: its folder; None for `runs/NAME`.
        results: folder of committed results.

    Raises:
        ValueError: the file describes no study, or one of the study's own files is damaged.
    """
    study = load_study(path)
    root = out or RUNS / study.name
    return settled(study, root, results).study, root
