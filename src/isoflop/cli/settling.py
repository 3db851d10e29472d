"""A study as a command is given it, in the precision that its runs have or would have."""

from __future__ import annotations

from pathlib import Path

from isoflop.cli.options import RUNS
from isoflop.config import RunConfig, Study
from isoflop.config.load import load_study
from isoflop.hardware import choose_precision
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


def slow_precision(config: RunConfig, *, device: str, threads: int) -> str | None:
    """Return that a run computes in bf16, which is slow here, in words; None where it is not.

    Measured where the run is in bf16, which takes half a second and torch.
    """
    if config.recipe.precision != "bf16":
        return None
    here = choose_precision([config], device=device, threads=threads)
    times = here.slowness("bf16")
    if times is None:
        return None
    return (
        f"run {config.run_id} computes in bf16, which is {times:.2g} times as slow as fp32 on this "
        f"machine ({here.figures})"
    )
