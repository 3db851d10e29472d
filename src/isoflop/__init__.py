"""At the same compute, which transformer variant wins, by how much, and how sure are we?

The public library. Names are loaded when they are first asked for, so that describing, planning
and fitting need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from isoflop.version import __version__

if TYPE_CHECKING:
    from isoflop.config import (
        Attention,
        BlockAttention,
        Cap,
        DataConfig,
        Decision,
        Depth,
        Evaluation,
        EveryToken,
        FeedForward,
        FullAttention,
        Gate,
        Gelu,
        ModelConfig,
        RandomK,
        Recipe,
        RunConfig,
        RunRecord,
        Study,
        SwiGlu,
        TopK,
        decisions,
    )
    from isoflop.config.load import load, load_study
    from isoflop.costs import (
        ForwardFlops,
        cache_bytes,
        forward_flops,
        parameters,
        train_flops_per_token,
    )
    from isoflop.data import prepare
    from isoflop.evaluation import evaluate
    from isoflop.evaluation.measuring import measure
    from isoflop.fit.settings import FitSettings
    from isoflop.generation import Continuation, Engine, Sampling, Token, generate, stream
    from isoflop.model import Output, Routing, Transformer, build
    from isoflop.runs import RunFolder, read_records
    from isoflop.sweep import (
        Execution,
        Folders,
        Machine,
        plan_study,
        run_study,
        settled,
    )
    from isoflop.sweep.fits import Reading, fit_study, predict_study
    from isoflop.sweep.report import export_study, report_study
    from isoflop.sweep.search import search_study
    from isoflop.trained import HeldOut, Wishes, evaluate_run, sample_run
    from isoflop.training import load_model, train

_HOMES = {
    "isoflop.config": (
        "Attention",
        "BlockAttention",
        "Cap",
        "DataConfig",
        "Decision",
        "Depth",
        "EveryToken",
        "Evaluation",
        "FeedForward",
        "FullAttention",
        "Gate",
        "Gelu",
        "ModelConfig",
        "RandomK",
        "Recipe",
        "RunConfig",
        "RunRecord",
        "Study",
        "SwiGlu",
        "TopK",
        "decisions",
    ),
    "isoflop.config.load": ("load", "load_study"),
    "isoflop.costs": (
        "ForwardFlops",
        "cache_bytes",
        "forward_flops",
        "parameters",
        "train_flops_per_token",
    ),
    "isoflop.data": ("prepare",),
    "isoflop.evaluation": ("evaluate",),
    "isoflop.evaluation.measuring": ("measure",),
    "isoflop.generation": (
        "Continuation",
        "Engine",
        "Sampling",
        "Token",
        "generate",
        "stream",
    ),
    "isoflop.model": ("Output", "Routing", "Transformer", "build"),
    "isoflop.runs": ("RunFolder", "read_records"),
    "isoflop.fit.settings": ("FitSettings",),
    "isoflop.sweep": (
        "Execution",
        "Folders",
        "Machine",
        "plan_study",
        "run_study",
        "settled",
    ),
    "isoflop.sweep.fits": (
        "Reading",
        "fit_study",
        "predict_study",
    ),
    "isoflop.sweep.report": (
        "export_study",
        "report_study",
    ),
    "isoflop.sweep.search": ("search_study",),
    "isoflop.trained": (
        "HeldOut",
        "Wishes",
        "evaluate_run",
        "sample_run",
    ),
    "isoflop.training": ("load_model", "train"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Attention",
    "BlockAttention",
    "Cap",
    "Continuation",
    "DataConfig",
    "Decision",
    "Depth",
    "Engine",
    "Evaluation",
    "EveryToken",
    "Execution",
    "FeedForward",
    "FitSettings",
    "Folders",
    "ForwardFlops",
    "FullAttention",
    "Gate",
    "Gelu",
    "HeldOut",
    "Machine",
    "ModelConfig",
    "Output",
    "RandomK",
    "Reading",
    "Recipe",
    "Routing",
    "RunConfig",
    "RunFolder",
    "RunRecord",
    "Sampling",
    "Study",
    "SwiGlu",
    "Token",
    "TopK",
    "Transformer",
    "Wishes",
    "__version__",
    "build",
    "cache_bytes",
    "decisions",
    "evaluate",
    "evaluate_run",
    "export_study",
    "fit_study",
    "forward_flops",
    "generate",
    "load",
    "load_model",
    "load_study",
    "measure",
    "parameters",
    "plan_study",
    "predict_study",
    "prepare",
    "read_records",
    "report_study",
    "run_study",
    "sample_run",
    "search_study",
    "settled",
    "stream",
    "train",
    "train_flops_per_token",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'isoflop' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
