"""The search of a study: every variant at every budget, by as many trials."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import cast

from isoflop.config import Routed, RunConfig, RunRecord, Setting, Study, Variant
from isoflop.estimate import Estimate
from isoflop.fit.intervals import WithError
from isoflop.fit.search import FoundRecipe, FoundSetting, SearchResult
from isoflop.planning.cell import PlannedRun
from isoflop.planning.checks import validation_loss
from isoflop.planning.recipe import (
    OPTIMUM_EXPONENT,
    at_budget,
    expected_optimum,
    resolve,
    with_settings,
)
from isoflop.planning.search.laws import laws
from isoflop.planning.search.walk import Judged, Point, Rules, Tried, Walk
from isoflop.planning.sizes import shape

FEWEST_PAIRS = 3
"""Seeds on which the recipe found is trained beside the study's own."""

_Resolved = tuple[str, tuple[float, ...], RunConfig]
Known = dict[tuple[Hashable, ...], _Resolved | None]
"""Run id, logs of settings and config of trials that were resolved before."""


def search(
    study: Study, records: Sequence[RunRecord] = (), known: Known | None = None
) -> tuple[list[PlannedRun], SearchResult]:
    """Return the trials that a search of settings needs now, and what it tells so far.

    Budgets come one after the other, each from where the one before ended. At each, variants are
    searched apart; whoever is done goes on with further seeds until all are, with as many trials.
    Then the recipe found and the study's own are trained on the same seeds.

    Args:
        study: with a precision and `search.settings`.
        records: of trials.
        known: what earlier calls resolved, which they leave here for later ones.

    Raises:
        ValueError: a first trial cannot be made, or a finished record lacks its validation loss.
    """
    assert study.search is not None
    by_id = {record.run_id: record for record in records}
    known = {} if known is None else known
    starts: Mapping[str, Mapping[Setting, float]] = {}
    recipes: list[FoundRecipe] = []
    missing: list[PlannedRun] = []
    trials = dict.fromkeys((one.name for one in study.variants), 0)
    for budget in searched_budgets(study):
        contenders = [
            Contender(study, variant, budget, by_id, known, starts.get(variant.name))
            for variant in study.variants
        ]
        total = max(len(one.walk.asked) for one in contenders)
        for one in contenders:
            if not one.walk.missing:
                one.walk.extend(total)
            trials[one.variant.name] += len(one.walk.asked)
        missing = [run for one in contenders for run in one.missing]
        if not missing:
            most = max(len(one.confirming()) for one in contenders)
            for one in contenders:
                runs = one.confirming(most)
                trials[one.variant.name] += len(runs)
                recipes.append(one.recipe(len(one.walk.asked) + len(runs)))
                missing += [run for run_id, run in runs.items() if run_id not in by_id]
            starts = {one.variant.name: one.chosen for one in contenders}
        if missing:
            break
    return missing, SearchResult(
        recipes=tuple(recipes),
        laws=tuple(laws(study, recipes)),
        trials=trials,
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
        known: trials that were resolved before.
        start: where to begin; None for the centre of the first values.
    """

    def __init__(
        self,
        study: Study,
        variant: Variant,
        budget_flops: float,
        records: Mapping[str, RunRecord],
        known: Known,
        start: Mapping[Setting, float] | None,
    ) -> None:
        assert study.search is not None
        self.study, self.variant, self.budget_flops = study, variant, budget_flops
        self._search, self._records, self._known = study.search, records, known
        self._own = at_budget(study, variant, budget_flops)
        self._place = (study.recipe.precision, variant.name, budget_flops)
        routed = isinstance(variant.depth, Routed)
        values = study.search.values.items()
        self._first = {name: one for name, one in values if routed or name != "router_rate"}
        seeds = study.search.seeds
        self._pairs = max(FEWEST_PAIRS, len(seeds))
        most = (study.search.most_trials or 0) - 2 * self._pairs
        self._rules = Rules(seeds, most, study.search.flat_nats)
        centre = tuple(
            0 if start is None else self._nearest(name, start[name]) for name in self._first
        )
        placed = zip(centre, map(len, self._first.values()), strict=True)
        spans = [(at - n // 2, at - n // 2 + n - 1) for at, n in placed]
        self._config(centre, seeds[0])
        if start is None:
            for axis, (low, high) in enumerate(spans):
                for place in range(low, high + 1):
                    self._config((*centre[:axis], place, *centre[axis + 1 :]), seeds[0])
        self.walk = Walk(tuple(self._first), centre, spans, self._trial, self._rules)

    @property
    def missing(self) -> list[PlannedRun]:
        """The trials of the walk that have no record."""
        resolved = [self._resolved(*one) for one in self.walk.missing]
        return [PlannedRun(self.variant.name, one[2], "trial") for one in resolved if one]

    def confirming(self, total: int = 0) -> dict[str, PlannedRun]:
        """Return the runs, by id, of the recipe found and of the study's own on the same seeds.

        Trials that were made before are left out. There are `total` at least: those that are
        missing are the found recipe's, of further seeds.
        """
        made: dict[str, PlannedRun] = {}
        turn = 0
        while turn < self._pairs or len(made) < total:
            for run_id, config in self._pair(turn)[: 2 if turn < self._pairs else 1]:
                if run_id not in self.walk.asked:
                    made[run_id] = PlannedRun(self.variant.name, config, "trial")
            turn += 1
        return made

    def recipe(self, trials: int) -> FoundRecipe:
        """Return what the trials tell, which are so many with those that confirm it."""
        star = self.walk.star
        return FoundRecipe(
            variant=self.variant.name,
            budget_flops=self.budget_flops,
            settings=tuple(
                self._setting(name, one)
                for name, one in zip(self._first, self._judged, strict=True)
            ),
            trials=trials,
            seeds=self.walk.turns,
            spread=star.spread if star.degrees_of_freedom > 0 else None,
            gained=self._gained(),
        )

    @cached_property
    def chosen(self) -> dict[Setting, float]:
        """What to write of each setting that is searched."""
        own = zip(self._first, self._judged, strict=True)
        found = {name: self._chosen(name, one) for name, one in own}
        try:
            self._run(with_settings(self.study, self._own, found), self._rules.seed(0))
        except ValueError:  # such as whole steps that miss the budget
            return self._values(self.walk.centre)
        return found

    @cached_property
    def _judged(self) -> list[Judged]:
        return self.walk.judged()

    def _pair(self, turn: int) -> list[tuple[str, RunConfig]]:
        """Return ids and configs of the recipe found and of the study's own, of one seed."""
        seed, found = self._rules.seed(turn), tuple(self.chosen.items())
        runs = []
        for values in (found, ()):
            key = (*self._place, values, seed)
            if key not in self._known:
                config = self._run(with_settings(self.study, self._own, dict(values)), seed)
                self._known[key] = config.run_id, (), config
            run_id, _, config = cast(_Resolved, self._known[key])
            runs.append((run_id, config))
        return runs

    def _log(self, name: Setting) -> float:
        """Return the log of a setting's value at the centre."""
        known = self._resolved(self.walk.centre, self._rules.seed(0))
        assert known is not None, "the centre can be tried"
        return known[1][list(self._first).index(name)]

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
        return FoundSetting(
            setting=name,
            standing=judged.standing,
            low=math.exp(log + low),
            high=math.exp(log + high),
            best=best
            and best.model_copy(
                update={
                    part: math.exp(log + getattr(best, part)) for part in ("value", "low", "high")
                }
            ),
            chosen=self.chosen[name],
            moves_nats=judged.moves,
        )

    def _gained(self) -> Estimate | None:
        """Return own less found over the pairs; None where one has no loss, or noise is unknown."""
        star = self.walk.star
        pairs = []
        for turn in range(self._pairs):
            both = [self._records.get(run_id) for run_id, _ in self._pair(turn)]
            losses = [validation_loss(one) for one in both if one and one.state == "finished"]
            if len(losses) < 2:
                return None
            pairs.append(losses[1] - losses[0])
        if star.degrees_of_freedom < 1:
            return None
        return WithError(
            value=math.fsum(pairs) / len(pairs),
            error=star.spread * math.sqrt(2 / len(pairs)) if any(pairs) else 0.0,
            degrees_of_freedom=star.degrees_of_freedom,
        ).interval()

    def _trial(self, point: Point, seed: int) -> Tried | None:
        known = self._resolved(point, seed)
        if known is None:
            return None
        run_id, logs, _ = known
        record = self._records.get(run_id)
        loss = None
        if record is not None:
            loss = validation_loss(record) if record.state == "finished" else math.inf
        return Tried(run_id, logs, loss)

    def _resolved(self, point: Point, seed: int) -> _Resolved | None:
        """Return run id, logs of values and config of a trial; None where it cannot be made."""
        key = (*self._place, point, seed)
        if key not in self._known:
            try:
                config = self._config(point, seed)
            except ValueError:
                self._known[key] = None
                return None
            values = self._values(point) | {
                "tokens_per_step": config.tokens_per_step,
                "width_per_block": config.model.width / config.model.blocks,
            }
            logs = tuple(math.log(values[name]) for name in self._first)
            self._known[key] = config.run_id, logs, config
        return self._known[key]

    def _config(self, point: Point, seed: int) -> RunConfig:
        return self._run(with_settings(self.study, self._own, self._values(point)), seed)

    def _run(self, variant: Variant, seed: int) -> RunConfig:
        """Return the run of a variant at the size of the trials.

        Raises:
            ValueError: it cannot be made.
        """
        study, budget, wanted = self.study, self.budget_flops, self._search.parameters
        if wanted is None:
            wanted = expected_optimum(study, variant, budget)
        else:
            wanted *= (budget / searched_budgets(study)[0]) ** OPTIMUM_EXPONENT
        model = shape(
            variant.shape or study.shape,
            wanted,
            vocabulary=study.data.vocabulary,
            choices=variant.choices,
        )
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
        """Return the nearest whole number of sequences, in tokens."""
        length = self.study.data.sequence_length
        return max(1, round(tokens / length)) * length

    def _nearest(self, name: Setting, value: float) -> int:
        places = sorted(range(-20, 21), key=abs)
        return min(places, key=lambda at: abs(math.log(self._value(name, at) / value)))
