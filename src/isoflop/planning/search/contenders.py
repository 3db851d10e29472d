"""The search of a study: every variant at every budget, by as many trials, and what comes of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from isoflop.config import Exponents, Routed, RunConfig, RunRecord, Setting, Study, Variant
from isoflop.estimate import Estimate
from isoflop.fit.search import FoundRecipe, FoundSetting, SearchResult, SettingLaw, setting_law
from isoflop.planning.cell import PlannedRun
from isoflop.planning.checks import judged_loss
from isoflop.planning.recipe import (
    OPTIMUM_EXPONENT,
    TOKENS_PER_STEP_EXPONENT,
    at_budget,
    expected_optimum,
    resolve,
    whole_sequences,
    with_settings,
)
from isoflop.planning.search.walk import Judged, Point, Tried, Walk
from isoflop.planning.sizes import shape


def search(
    study: Study, records: Sequence[RunRecord] = ()
) -> tuple[list[PlannedRun], SearchResult]:
    """Return the trials that a search of settings needs now, and what it tells so far.

    Budgets come one after the other, each from where the one before ended. At each, variants are
    searched apart; whoever is done goes on with further seeds until all are, with as many trials.

    Args:
        study: with a precision and `search.settings`.
        records: of trials.

    Raises:
        ValueError: a first trial cannot be made, or a finished record lacks its validation loss.
    """
    by_id = {record.run_id: record for record in records}
    starts: dict[str, Mapping[Setting, float]] = {}
    recipes: list[FoundRecipe] = []
    missing: list[PlannedRun] = []
    trials, finished = Counter[str](), Counter[str]()
    for budget in searched_budgets(study):
        contenders = [
            Contender(study, variant, budget, by_id, starts.get(variant.name))
            for variant in study.variants
        ]
        total = max(len(one.walk.asked) for one in contenders)
        for one in contenders:
            if not one.walk.missing:
                one.walk.extend(total)
            trials[one.variant.name] += len(one.walk.asked)
            finished[one.variant.name] += one.walk.finished
        missing = [run for one in contenders for run in one.missing]
        if missing:
            break
        recipes += [one.recipe() for one in contenders if one.walk.finished]
        starts = {one.variant.name: one.chosen for one in contenders}
    return missing, SearchResult(
        recipes=tuple(recipes),
        laws=tuple(laws(study, recipes)),
        trials=trials,
        finished=finished,
        missing=len(missing),
    )


def searched_budgets(study: Study) -> tuple[float, ...]:
    """Return the budgets at which settings are searched."""
    assert study.search is not None
    return study.search.budgets_flops or (study.search.budget_flops or study.budgets_flops[0],)


class Contender:
    """One variant at one budget: its trials, as far as the records tell.

    Args:
        study: which searches settings.
        variant: as the study has it.
        budget_flops: of each trial.
        records: by run id.
        start: where to begin; None for the centre of the first values.
    """

    def __init__(
        self,
        study: Study,
        variant: Variant,
        budget_flops: float,
        records: Mapping[str, RunRecord],
        start: Mapping[Setting, float] | None,
    ) -> None:
        assert study.search is not None
        self.study, self.variant, self.budget_flops = study, variant, budget_flops
        self._records = records
        self._own = at_budget(study, variant, budget_flops)
        routed = isinstance(variant.depth, Routed)
        values = study.search.values.items()
        self._first = {name: one for name, one in values if routed or name != "router_rate"}
        self._tried: dict[tuple[Point, int], Tried | None] = {}
        self._configs: dict[str, RunConfig] = {}
        centre = tuple(
            0 if start is None else self._nearest(name, start[name]) for name in self._first
        )
        placed = zip(centre, map(len, self._first.values()), strict=True)
        spans = [(at - n // 2, at - n // 2 + n - 1) for at, n in placed]
        seed = study.search.seeds[0]
        # First values that nothing can be made of are refused; those further out are left out.
        self._config(centre, seed)
        if start is None:
            for axis, (low, high) in enumerate(spans):
                for place in range(low, high + 1):
                    self._config((*centre[:axis], place, *centre[axis + 1 :]), seed)
        self.walk = Walk(tuple(self._first), centre, spans, self._trial, study.search)

    @property
    def missing(self) -> list[PlannedRun]:
        """The trials of the walk that have no record."""
        ids = self.walk.missing
        return [PlannedRun(self.variant.name, self._configs[one], "trial") for one in ids]

    def recipe(self) -> FoundRecipe:
        """Return what the trials tell."""
        star = self.walk.star
        return FoundRecipe(
            variant=self.variant.name,
            budget_flops=self.budget_flops,
            settings=tuple(self._setting(name, one) for name, one in self._judged.items()),
            trials=len(self.walk.asked),
            seeds=self.walk.turns,
            spread=star.spread if star.degrees_of_freedom > 0 else None,
        )

    @cached_property
    def chosen(self) -> dict[Setting, float]:
        """What to write of each setting that is searched."""
        return {name: self._chosen(name, one) for name, one in self._judged.items()}

    @cached_property
    def _judged(self) -> dict[Setting, Judged]:
        return dict(zip(self._first, self.walk.judged(), strict=True))

    def _log(self, name: Setting) -> float:
        """Return the log of a setting's value at the centre."""
        centre = self._trial(self.walk.centre, self.walk.seed(0))
        assert centre is not None, "the centre can be tried"
        return centre.logs[list(self._first).index(name)]

    def _chosen(self, name: Setting, judged: Judged) -> float:
        low, high = judged.tried
        z = judged.best.value if judged.best is not None else 0.0
        if judged.best is None and judged.standing == "end":
            end = self.walk.star.change(name, high, low)
            z = 0.0 if end is None else low if end.value > 0 else high
        chosen = float(f"{math.exp(self._log(name) + min(max(z, low), high)):.3g}")
        return self._whole(chosen) if name == "tokens_per_step" else chosen

    def _setting(self, name: Setting, judged: Judged) -> FoundSetting:
        """Return what is known of a setting, in its own unit."""
        log, best, (low, high) = self._log(name), judged.best, judged.tried
        if best is not None:
            ends = {part: math.exp(log + getattr(best, part)) for part in ("value", "low", "high")}
            best = best.model_copy(update=ends)
        return FoundSetting(
            setting=name,
            standing=judged.standing,
            low=math.exp(log + low),
            high=math.exp(log + high),
            best=best,
            chosen=self.chosen[name],
            moves_nats=judged.moves,
        )

    def _trial(self, point: Point, seed: int) -> Tried | None:
        """Return a trial as the walk knows it; None where it cannot be made."""
        if (point, seed) not in self._tried:
            self._tried[point, seed] = self._made(point, seed)
        return self._tried[point, seed]

    def _made(self, point: Point, seed: int) -> Tried | None:
        try:
            config = self._config(point, seed)
        except ValueError:
            return None
        values = self._values(point) | {
            "tokens_per_step": config.tokens_per_step,
            "width_per_block": config.model.width / config.model.blocks,
        }
        run_id = config.run_id
        self._configs[run_id] = config
        record = self._records.get(run_id)
        logs = tuple(math.log(values[name]) for name in self._first)
        return Tried(run_id, logs, None if record is None else judged_loss(record))

    def _config(self, point: Point, seed: int) -> RunConfig:
        """Return the run of a point, at the size of the trials.

        Raises:
            ValueError: it cannot be made.
        """
        study, budget = self.study, self.budget_flops
        assert study.search is not None
        variant = with_settings(study, self._own, self._values(point))
        wanted = study.search.parameters
        if wanted is None:
            wanted = expected_optimum(study, variant, budget)
        else:
            wanted *= (budget / searched_budgets(study)[0]) ** OPTIMUM_EXPONENT
        family = variant.shape or study.shape
        vocabulary = study.data.vocabulary
        model = shape(family, wanted, vocabulary=vocabulary, choices=variant.choices)
        return resolve(study, variant, budget, model, seed)

    def _values(self, point: Point) -> dict[Setting, float]:
        return {name: self._value(name, at) for name, at in zip(self._first, point, strict=True)}

    def _value(self, name: Setting, place: int) -> float:
        """Return a value by its place: a first one, or one further out by the last two's ratio."""
        values = self._first[name]
        index = len(values) // 2 + place
        if 0 <= index < len(values):
            return values[index]
        end, before, steps = (values[0], values[1], -index)
        if index > 0:
            end, before, steps = values[-1], values[-2], index - len(values) + 1
        value = float(f"{end * (end / before) ** steps:.6g}")
        return self._whole(value) if name == "tokens_per_step" else value

    def _whole(self, tokens: float) -> int:
        return whole_sequences(tokens, self.study.data.sequence_length)

    def _nearest(self, name: Setting, value: float) -> int:
        places = sorted(range(-20, 21), key=abs)
        return min(places, key=lambda at: abs(math.log(self._value(name, at) / value)))


def laws(study: Study, recipes: Sequence[FoundRecipe]) -> Iterator[SettingLaw]:
    """Yield the law of each setting that two or more budgets give an interval of."""
    best: dict[tuple[str, Setting], dict[float, Estimate]] = {}
    for recipe in recipes:
        for one in recipe.settings:
            if one.best is not None and one.standing == "inside":
                found = best.setdefault((recipe.variant, one.setting), {})
                found[recipe.budget_flops] = one.best
    for (variant, setting), by_budget in best.items():
        if (law := setting_law(by_budget, study.budgets_flops[0])) is not None:
            known = {"variant": variant, "setting": setting, "budgets": len(by_budget)}
            yield SettingLaw(value=law[0], exponent=law[1], **known)


def found_variants(study: Study, result: SearchResult) -> list[Variant]:
    """Return the study's variants with what was found, those that something is known of.

    A setting that surely moves with the budget has its law. Others are constant, at what the last
    budget gave, but for tokens per step, which else grow as they do where nobody names them.
    """
    found = []
    for variant in study.variants:
        recipes = [one for one in result.recipes if one.variant == variant.name]
        if not recipes:
            continue
        last = recipes[-1]
        values = {one.setting: one.chosen for one in last.settings}
        exponents: dict[Setting, float] = {}
        several = len(study.budgets_flops) > 1
        if "tokens_per_step" in values and study.tokens_per_step is None and several:
            exponents["tokens_per_step"] = float(f"{TOKENS_PER_STEP_EXPONENT:.3f}")
            growth = study.budgets_flops[0] / last.budget_flops
            values["tokens_per_step"] *= growth**TOKENS_PER_STEP_EXPONENT
        for law in result.laws:
            if law.variant == variant.name and law.exponent.side:
                exponents[law.setting] = float(f"{law.exponent.value:.3f}")
                values[law.setting] = float(f"{law.value:.3g}")
        if "tokens_per_step" in values:
            length = study.data.sequence_length
            values["tokens_per_step"] = whole_sequences(values["tokens_per_step"], length)
        made = with_settings(study, variant, values)
        moving = Exponents(**exponents) if exponents else None
        found.append(made.model_copy(update={"exponents": moving}))
    return found
