"""At the same compute, which transformer variant wins, by how much, and how sure are we?

The public library. Names are loaded when they are first asked for, so that describing, planning
and fitting need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from isoflop.version import __version__ as __version__

if TYPE_CHECKING:
    from isoflop.config import (
        Attention as Attention,
        BlockAttention as BlockAttention,
        Cap as Cap,
        DataConfig as DataConfig,
        Decision as Decision,
        Depth as Depth,
        Evaluation as Evaluation,
        EveryToken as EveryToken,
        FeedForward as FeedForward,
        FullAttention as FullAttention,
        Gate as Gate,
        Gelu as Gelu,
        ModelConfig as ModelConfig,
        RandomK as RandomK,
        Recipe as Recipe,
        RunConfig as RunConfig,
        RunRecord as RunRecord,
        Study as Study,
        SwiGlu as SwiGlu,
        TopK as TopK,
        decisions as decisions,
    )
    from isoflop.config.load import (
        load_study as load_study,
    )
    from isoflop.costs import (
        ForwardFlops as ForwardFlops,
        cache_bytes as cache_bytes,
        forward_flops as forward_flops,
        parameters as parameters,
        train_flops_per_token as train_flops_per_token,
    )
    from isoflop.data import prepare as prepare
    from isoflop.evaluation import evaluate as evaluate
    from isoflop.evaluation.measuring import measure as measure
    from isoflop.fit.settings import FitSettings as FitSettings
    from isoflop.generation import (
        Continuation as Continuation,
        Engine as Engine,
        Sampling as Sampling,
        Token as Token,
        generate as generate,
        stream as stream,
    )
    from isoflop.model import (
        Output as Output,
        Routing as Routing,
        Transformer as Transformer,
        build as build,
    )
    from isoflop.runs import (
        RunFolder as RunFolder,
        read_records as read_records,
    )
    from isoflop.sweep import (
        Execution as Execution,
        Folders as Folders,
        Machine as Machine,
        plan_study as plan_study,
        run_study as run_study,
        settled as settled,
    )
    from isoflop.sweep.fits import (
        Reading as Reading,
        fit_study as fit_study,
        predict_study as predict_study,
    )
    from isoflop.sweep.report import (
        export_study as export_study,
        report_study as report_study,
    )
    from isoflop.results import (
        StudyResults as StudyResults,
        load as load,
    )
    from isoflop.sweep.search import search_study as search_study
    from isoflop.trained import (
        HeldOut as HeldOut,
        Wishes as Wishes,
        evaluate_run as evaluate_run,
        sample_run as sample_run,
    )
    from isoflop.training import (
        load_model as load_model,
        train as train,
    )


_HOMES = {
    "isoflop.config": (
        "Attention BlockAttention Cap DataConfig Decision Depth EveryToken Evaluation "
        "FeedForward FullAttention Gate Gelu ModelConfig RandomK Recipe RunConfig RunRecord "
        "Study SwiGlu TopK decisions"
    ),
    "isoflop.config.load": "load_study",
    "isoflop.costs": "ForwardFlops cache_bytes forward_flops parameters train_flops_per_token",
    "isoflop.data": "prepare",
    "isoflop.evaluation": "evaluate",
    "isoflop.evaluation.measuring": "measure",
    "isoflop.generation": "Continuation Engine Sampling Token generate stream",
    "isoflop.model": "Output Routing Transformer build",
    "isoflop.runs": "RunFolder read_records",
    "isoflop.fit.settings": "FitSettings",
    "isoflop.sweep": "Execution Folders Machine plan_study run_study settled",
    "isoflop.sweep.fits": "Reading fit_study predict_study",
    "isoflop.sweep.report": "export_study report_study",
    "isoflop.results": "StudyResults load",
    "isoflop.sweep.search": "search_study",
    "isoflop.trained": "HeldOut Wishes evaluate_run sample_run",
    "isoflop.training": "load_model train",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = [*_HOME_OF, "__version__"]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'isoflop' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
