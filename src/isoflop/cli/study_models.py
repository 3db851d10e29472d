"""Which models of a study `isoflop bench` measures, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoflop.cli.options import tell
from isoflop.config import Precision, PrecisionChoice, RunConfig, Study

if TYPE_CHECKING:
    from isoflop.bench import Case
    from isoflop.sweep import Folders


def study_groups(
    study: Study, folders: Folders, precision: Precision | None
) -> tuple[tuple[Case, ...], ...]:
    """Return the models that a study's figures single out, by budget, in a precision or its own;
    those of all variants where runs start from a checkpoint.

    Raises:
        ValueError: no minimum is known yet, so no model is singled out.
    """
    from isoflop.bench import study_group
    from isoflop.fit import frame
    from isoflop.fit.tables.frame import trained_sizes
    from isoflop.papers.numbered import numbered_models
    from isoflop.planning import foreseen_runs
    from isoflop.planning.assignment import assign
    from isoflop.sweep import Ledger, settled

    if study.scaling is not None:
        raise ValueError(
            f"study {study.name} names its sizes, and its report shows no steps per second; "
            "measure the standard shapes (isoflop bench train) or isoflop bench attention"
        )
    kept = settled(study, folders.root, folders.results)
    tell(kept.words)
    study = kept.study

    def measured(config: RunConfig) -> RunConfig:
        own = config.recipe.precision
        recipe = config.recipe.model_copy(update={"precision": precision or own})
        return config.model_copy(update={"recipe": recipe})

    if study.start is not None:
        # Each variant has one size.
        return (study_group((one.variant, measured(one.config)) for one in foreseen_runs(study)),)
    records = Ledger(study, folders.root, folders.results).records
    runs = assign(study, records)
    known = {record.run_id: record for record in records if record.run_id in runs.variant_of}
    table = frame(list(known.values()), runs.variant_of, off_ladder=runs.off_ladder)
    baseline, challenger = study.baseline_variant, study.challenger_variant
    league = study.variants if len(study.variants) > 2 else ()
    if challenger is None and not league:
        raise ValueError(f"study {study.name} has no variant with a routed block to compare with")

    finished = set(table.loc[table["state"] == "finished", "budget_flops"])
    groups = []
    for budget in [one for one in study.budgets_flops if one in finished]:
        sizes = []
        if challenger is not None:
            names = baseline.name, challenger.name
            figures = numbered_models(table, *names, budget_flops=budget)
            sizes += [one.model for found in figures for one in found if one.model is not None]
        # The league tells each variant's speed at its lowest mean.
        for variant in league:
            own = [one for one in trained_sizes(table, variant.name, budget) if one.on_ladder]
            sizes += sorted(own, key=lambda one: one.loss)[:1]
        if sizes:
            groups.append(
                study_group((one.variant, measured(known[one.run_ids[0]].config)) for one in sizes)
            )
    if not groups:
        raise ValueError(
            f"study {study.name} singles out no model yet, since no minimum is known; "
            "go on with `isoflop run`, or measure the standard shapes: isoflop bench train"
        )
    return tuple(groups)


def precision_here(asked: Precision | None, threads: int, device: str = "cpu") -> Precision:
    """Return the precision to measure in: what is asked for, else what is faster here, and say so.

    Found at the standard shapes, as a study finds it at its own.
    """
    return _told(_here(threads, device)) if asked is None else asked


def precisions_here(asked: tuple[Precision, ...] | None, threads: int) -> tuple[Precision, ...]:
    """Return the precisions to measure in: those asked for, else both, without a slow bf16."""
    if asked is not None:
        return asked
    here = _here(threads)
    return ("fp32", "bf16") if here.slowness("bf16") is None else (_told(here),)


def _here(threads: int, device: str = "cpu") -> PrecisionChoice:
    from isoflop.bench import standard_groups
    from isoflop.hardware import choose_precision

    configs = [case.config for group in standard_groups() for case in group]
    return choose_precision(configs, device=device, threads=threads)


def _told(choice: PrecisionChoice) -> Precision:
    tell(f"precision {choice.precision}: {choice.figures}; --dtype takes another")
    return choice.precision
