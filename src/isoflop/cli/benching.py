"""`isoflop bench`: what is measured, and where the numbers go."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from isoflop import storage
from isoflop.bench import (
    AttentionReport,
    BenchReport,
    BookkeepingReport,
    Case,
    DecodeReport,
    FitReport,
    attention_figure,
    bench_bookkeeping,
    bench_train,
    decode_figure,
    standard_groups,
    standard_runs,
    study_group,
)
from isoflop.cli.reporting import SPEEDS
from isoflop.config import Precision, PrecisionChoice, RunConfig, Study
from isoflop.costs import parameters
from isoflop.fit import frame
from isoflop.hardware import choose_precision
from isoflop.papers.numbered import NumberedModel, figure3_models, figure4_models
from isoflop.planning import next_runs
from isoflop.planning.assignment import assign
from isoflop.report.render import write_figure
from isoflop.sweep import Ledger, settled
from isoflop.text import quoted


def measure(groups: tuple[tuple[Case, ...], ...], threads: int, force: bool) -> BenchReport:
    """Measure the steps of some groups and tell on standard error what goes on.

    Raises:
        ValueError: the machine is busy and nobody forced it.
    """
    return bench_train(groups, threads=threads, force=force, watch=tell)


def bench_precision(asked: Precision | None, threads: int) -> Precision:
    """Return the precision to measure in: what is asked for, else what is faster here, and say so.

    Found at the standard shapes, as a study finds it at its own.
    """
    if asked is not None:
        return asked
    return _told(_here(threads))


def bench_precisions(asked: tuple[Precision, ...] | None, threads: int) -> tuple[Precision, ...]:
    """Return the precisions to measure in: those asked for, else both, without a slow bf16."""
    if asked is not None:
        return asked
    here = _here(threads)
    if here.slowness("bf16") is None:
        return ("fp32", "bf16")
    return (_told(here),)


def _here(threads: int) -> PrecisionChoice:
    configs = [case.config for group in standard_groups() for case in group]
    return choose_precision(configs, threads=threads)


def _told(choice: PrecisionChoice) -> Precision:
    tell(quoted(f"precision {choice.precision}: {choice.figures}; --dtype takes another"))
    return choice.precision


def settled_for_bench(study: Study, root: Path, results: Path) -> Study:
    """Return a study in the precision that its runs have or would have, and say which that is."""
    found = settled(study, root, results)
    tell(quoted(found.words))
    return found.study


def measure_bookkeeping(
    study: Study | None, *, cache: Path, runs: Path, results: Path, seconds: float, force: bool
) -> BookkeepingReport:
    """Measure the smallest and the largest model that a study plans, else the standard shapes.

    The runs live in a folder of their own below `runs` and are thrown away.

    Raises:
        ValueError: the machine is busy and nobody forced it, or a run is over too early.
    """
    if study is None:
        configs = standard_runs(bench_precision(None, 1))
    else:
        configs = _extremes(settled_for_bench(study, runs / study.name, results))
    storage.make_folder(runs)
    with TemporaryDirectory(dir=runs, prefix=storage.TEMPORARY) as folder:
        return bench_bookkeeping(
            configs, cache=cache, folder=Path(folder), seconds=seconds, force=force, watch=tell
        )


def _extremes(study: Study) -> tuple[RunConfig, ...]:
    planned = sorted(
        (run.config for run in next_runs(study, [])), key=lambda one: parameters(one.model).total
    )
    return (planned[0], planned[-1])


def keep_bookkeeping(report: BookkeepingReport, folder: Path) -> Path:
    """Write what bookkeeping costs into a folder."""
    path = folder / "bookkeeping.json"
    storage.write_json(path, report.model_dump(mode="json"))
    return path


def tell(text: str) -> None:
    """Tell on standard error what goes on."""
    print(text, file=sys.stderr, flush=True)


def keep_fit(report: FitReport, folder: Path) -> Path:
    """Write how long fits take into a folder."""
    path = folder / "fit.json"
    storage.write_json(path, report.model_dump(mode="json"))
    return path


def keep_attention(report: AttentionReport, folder: Path) -> Path:
    """Write a measurement of attention and its figure into a folder, by its dtype."""
    path = folder / f"attention-{report.rows[0].dtype}.json"
    storage.write_json(path, report.model_dump(mode="json"))
    write_figure(attention_figure(report), folder)
    return path


def keep_decode(report: DecodeReport, folder: Path) -> Path:
    """Write a measurement of decoding and its figure into a folder."""
    path = folder / "decode.json"
    storage.write_json(path, report.model_dump(mode="json"))
    write_figure(decode_figure(report), folder)
    return path


def study_groups(
    study: Study, root: Path, results: Path, precision: Precision | None = None
) -> tuple[tuple[Case, ...], ...]:
    """Return the models that the study's figures single out, a group for each budget.

    Args:
        study: whose.
        root: its folder.
        results: folder of committed results.
        precision: to measure in; None for the study's.

    Raises:
        ValueError: no minimum is known yet, so no model is singled out.
    """
    if study.scaling is not None:
        raise ValueError(
            f"study {study.name} names its sizes, and its report shows no steps per second; "
            "measure the standard shapes (isoflop bench train) or isoflop bench attention"
        )
    study = settled_for_bench(study, root, results)
    records = Ledger(study, root, results).records
    runs = assign(study, records)
    own = [record for record in records if record.run_id in runs.variant_of]
    configs = {record.run_id: _in(record.config, precision) for record in own}
    table = frame(own, runs.variant_of, off_ladder=runs.off_ladder)
    baseline, challenger = study.baseline_variant, study.challenger_variant
    if challenger is None:
        raise ValueError(f"study {study.name} has no variant with a routed block to compare with")
    finished = set(table.loc[table["state"] == "finished", "budget_flops"])
    groups = []
    for budget in study.budgets_flops:
        if budget in finished:
            named = [
                *figure3_models(table, baseline.name, challenger.name, budget_flops=budget),
                *figure4_models(table, baseline.name, challenger.name, budget_flops=budget),
            ]
            models = list(_models(named, configs))
            if models:
                groups.append(study_group(models))
    if not groups:
        raise ValueError(
            f"study {study.name} singles out no model yet, since no minimum is known; "
            "go on with `isoflop run`, or measure the standard shapes: isoflop bench train"
        )
    return tuple(groups)


def _in(config: RunConfig, precision: Precision | None) -> RunConfig:
    """Return a run in a precision, None for its own."""
    if precision is None:
        return config
    recipe = config.recipe.model_copy(update={"precision": precision})
    return config.model_copy(update={"recipe": recipe})


def keep(report: BenchReport, root: Path) -> Path:
    """Write what was measured into a study's folder, where its report finds it."""
    path = root / SPEEDS
    storage.write_json(path, report.model_dump(mode="json"))
    return path


def _models(
    named: list[NumberedModel], configs: dict[str, RunConfig]
) -> Iterator[tuple[str, RunConfig]]:
    for one in named:
        if one.model is not None:
            yield one.model.variant, configs[one.model.run_ids[0]]
