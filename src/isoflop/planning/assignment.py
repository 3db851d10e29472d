"""Which variant of a study each trained run belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial

from isoflop.config import Frozen, ModelConfig, RunConfig, RunRecord, Study, Variant
from isoflop.planning.cell import Cell, cells
from isoflop.planning.checks import checks
from isoflop.planning.recipe import affordable, resolve
from isoflop.planning.scaling import scaling_runs
from isoflop.planning.search import first_check_runs


class Assignment(Frozen):
    """The runs of a study among the records at hand."""

    variant_of: dict[str, str]
    """Name of the variant, by run id, of the runs that fits and figures show."""
    checks: dict[str, str]
    """The same of runs beside a minimum: other learning rates, other data orders."""
    first: dict[str, str]
    """The same of runs at rates that were tried before the grid, and at no minimum."""
    off_ladder: frozenset[str]
    """Run ids of shapes that are not of the variant's own ladder: the matched ones."""
    foreign: tuple[str, ...]
    """Run ids that the study, as it is now, would not train."""

    @property
    def all(self) -> dict[str, str]:
        """Name of the variant of every run of the study, by run id."""
        return {**self.variant_of, **self.checks, **self.first}


def assign(study: Study, records: Iterable[RunRecord]) -> Assignment:
    """Tell the variant of each record's run from the study alone, whatever led to training it.

    A run that two variants share counts for the first of them.

    Raises:
        ValueError: If the bounds of the grid leave a variant fewer than three sizes, or a size
            that the study names cannot be trained.
    """
    own, matched, checked = _possible(study)
    tried = [first_check_runs(study, one) for one in study.variants if study.checks_first]
    first = {run.config.run_id: run.variant for runs in tried for run in runs}
    ids = [record.run_id for record in records]
    others = own.keys() | matched.keys() | checked.keys()
    return Assignment(
        variant_of={i: own.get(i) or matched[i] for i in ids if i in own or i in matched},
        off_ladder=frozenset(i for i in ids if i not in own and i in matched),
        checks={i: checked[i] for i in ids if i in checked and i not in own and i not in matched},
        first={i: first[i] for i in ids if i in first and i not in others},
        foreign=tuple(i for i in ids if i not in others and i not in first),
    )


@lru_cache(maxsize=8)
def _possible(study: Study) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return the variant of every run a study may train: on ladders, in matched shapes, checks."""
    own: dict[str, str] = {}
    matched: dict[str, str] = {}
    checked: dict[str, str] = {}
    challenger = study.challenger_variant if study.matched_shapes else None
    for run in scaling_runs(study) if study.scaling else ():
        found = checked if run.purpose in ("rate", "order") else own
        found.setdefault(run.config.run_id, run.variant)

    for cell in cells(study):
        resolved = partial(_resolved, cell)
        for model in _models(cell):
            for seed in (*study.seeds, *study.added_seeds):
                own.setdefault(resolved(model, cell.variant, seed).run_id, cell.variant.name)
            for _, config in checks(study, cell.variant, partial(resolved, model)):
                checked.setdefault(config.run_id, cell.variant.name)
            if challenger is None or cell.variant != study.baseline_variant:
                continue
            taken = model.with_choices(challenger)
            if taken is not None and affordable(study, challenger, cell.budget_flops, taken):
                for seed in study.seeds:
                    matched[resolved(taken, challenger, seed).run_id] = challenger.name
    return own, matched, checked


def _resolved(cell: Cell, model: ModelConfig, variant: Variant, seed: int) -> RunConfig:
    return resolve(cell.study, variant, cell.budget_flops, model, seed)


def _models(cell: Cell) -> Iterator[ModelConfig]:
    """Yield the first sizes of a cell and all that may be added to them."""
    first, added = cell.initial, cell.study.grid.added_at_most
    for index in range(first.start - added, first.stop + added):
        model = cell.ladder.rung(index)
        if model and affordable(cell.study, cell.variant, cell.budget_flops, model):
            yield model
