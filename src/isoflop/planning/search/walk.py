"""Which trials a search needs next: a star around a centre, which moves, grows and gets seeds.

All follows from the losses of what was asked for before, so that it can be told again from records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from isoflop.config import Search, Setting
from isoflop.estimate import Estimate
from isoflop.fit.search import Observation, Standing, Star

Point = tuple[int, ...]
"""A value of each setting, by its place in the row of values: 0 for the first centre's."""

REACH = 2
"""Values on either side of a centre that its star has at most: further out no parabola holds."""

FEWEST_FREE = 6
"""Degrees of freedom of the noise before a setting is done: with fewer, searches of one setting
stop where the noise happens to look small, and their intervals hold the truth too seldom."""


@dataclass(frozen=True)
class Tried:
    """A trial that can be made."""

    key: str
    logs: tuple[float, ...]
    """Log of each setting's value, as the run really has it."""
    loss: float | None
    """None while there is no record, infinity where it diverged or failed."""


@dataclass(frozen=True)
class _State:
    centre: Point
    spans: tuple[tuple[int, int], ...]
    """Lowest and highest place of each setting."""
    turns: int
    """Seeds of every trial."""


@dataclass(frozen=True)
class Judged:
    """Where a setting stands."""

    standing: Standing
    tried: tuple[float, float]
    """Lowest and highest log over the centre's."""
    side: int = 0
    """-1 or 1 where a value is to be added below or above."""
    move: int | None = None
    """Place that the centre is to move to."""
    best: Estimate | None = None
    """Log of the best value over the centre's."""
    moves: float | None = None
    """Nats by which the loss moves at most."""


class Walk:
    """The search of one variant at one budget, as far as the losses at hand tell.

    Args:
        names: the settings.
        centre: where to begin.
        spans: lowest and highest place of each setting's first values.
        trial: makes one of a point and a seed; None where it cannot be made.
        search: which seeds it begins with, and when it ends.
    """

    def __init__(
        self,
        names: Sequence[Setting],
        centre: Point,
        spans: Sequence[tuple[int, int]],
        trial: Callable[[Point, int], Tried | None],
        search: Search,
    ) -> None:
        self.names, self._trial, self._search = tuple(names), trial, search
        self.asked: dict[str, Tried] = {}
        """Trials asked for so far, by key."""
        self._state = _State(centre, tuple(spans), len(search.seeds))
        visited = {centre}
        self._ask(self._state)
        while not self.missing and (following := self._following(visited)) is not None:
            new = {one.key for one in self._wanted(following)} - set(self.asked)
            if len(self.asked) + len(new) > (search.most_trials or 0):
                break
            self._state = following
            visited.add(following.centre)
            self._ask(following)

    @property
    def centre(self) -> Point:
        """Where the star lies."""
        return self._state.centre

    @property
    def turns(self) -> int:
        """Seeds of the centre."""
        return self._state.turns

    @property
    def missing(self) -> list[str]:
        """Keys of the trials asked for that have no record."""
        return [key for key, one in self.asked.items() if one.loss is None]

    @property
    def finished(self) -> int:
        """How many trials asked for have a loss."""
        return sum(one.loss not in (None, math.inf) for one in self.asked.values())

    @property
    def star(self) -> Star:
        """The fit of what has finished on the star."""
        return Star(self._observations())

    def seed(self, turn: int) -> int:
        """Return the seed of a turn, from 0 on: those that are added count on from the largest."""
        seeds = self._search.seeds
        return seeds[turn] if turn < len(seeds) else max(seeds) + 1 + turn - len(seeds)

    def extend(self, total: int) -> None:
        """Ask for so many trials in all: further seeds of the star."""
        while len(self.asked) < total:
            self._state = replace(self._state, turns=self.turns + 1)
            for one in self._wanted(self._state):
                if len(self.asked) < total:
                    self.asked.setdefault(one.key, one)

    def judged(self) -> list[Judged]:
        """Return where each setting stands."""
        star = self.star
        return [self._judge(axis, star) for axis in range(len(self.names))]

    def _following(self, visited: set[Point]) -> _State | None:
        """Return where to go on; None where nothing is left to ask."""
        state = self._state
        if self._loss(state.centre) == math.inf:
            found = min(self._points(state), key=self._loss)
            return None if self._loss(found) == math.inf or found in visited else self._moved(found)
        judged = self.judged()
        centre = tuple(
            at if one.move is None else one.move
            for at, one in zip(state.centre, judged, strict=True)
        )
        if centre not in visited:
            return self._moved(centre)
        spans = tuple(
            (low - (one.side < 0), high + (one.side > 0))
            for (low, high), one in zip(state.spans, judged, strict=True)
        )
        unsure = any(one.standing == "unsure" and not one.side for one in judged)
        following = _State(state.centre, spans, state.turns + unsure)
        return None if following == state else following

    def _moved(self, centre: Point) -> _State:
        spans = tuple(
            (min(low, at - 1), max(high, at + 1))
            for at, (low, high) in zip(centre, self._state.spans, strict=True)
        )
        return _State(centre, spans, len(self._search.seeds))

    def _judge(self, axis: int, star: Star) -> Judged:
        """Return where a setting stands, and what would tell more."""
        at, name = self.centre[axis], self.names[axis]
        line = self._line(axis)
        usable = {p: z for p, z in line.items() if self._loss(self._at(axis, p)) < math.inf}
        low, high = min(line.values()), max(line.values())
        best, moves = star.best(name), star.moves(name, list(usable.values()))
        known = Judged("unsure", (low, high), best=best, moves=moves)
        enough = star.degrees_of_freedom >= FEWEST_FREE
        if moves is not None and moves <= self._search.flat_nats:
            return replace(known, standing="flat" if enough else "unsure")
        if best is not None:
            ends = best.ends
            first, middle, last = (_nearest(usable, z) for z in (ends[0], best.value, ends[1]))
            if first > at or last < at:
                known = replace(known, move=middle)
            below, above = ends[0] < low, ends[1] > high
            if not (below or above):
                return replace(known, standing="inside" if enough else "unsure")
            return known if below and above else self._towards(axis, known, -1 if below else 1)
        if name not in star.settings:
            tried = self._towards(axis, known, 1)
            return tried if tried.side else self._towards(axis, known, -1)
        trend = star.change(name, max(usable.values()), min(usable.values()))
        side = 0 if trend is None else -trend.interval().side
        return self._towards(axis, known, side) if side else known

    def _towards(self, axis: int, known: Judged, side: int) -> Judged:
        """Return it with a value to be added on a side, or a centre to be moved there."""
        places = self._places(axis, self._state)
        edge = max(places) if side > 0 else min(places)
        if self._loss(self._at(axis, edge)) < math.inf:
            if abs(edge - self.centre[axis]) >= REACH:
                return replace(known, move=edge if known.move is None else known.move)
            further, z = self._log(axis, edge + side), self._log(axis, edge)
            # What is rounded may stand still.
            if further is not None and z is not None and side * (further - z) > 0:
                return replace(known, side=side)
        low, high = known.tried
        if known.best is None or not low < known.best.value < high:
            return replace(known, standing="end")
        return known

    def _ask(self, state: _State) -> None:
        for one in self._wanted(state):
            self.asked.setdefault(one.key, one)

    def _wanted(self, state: _State) -> Iterator[Tried]:
        """Yield the trials of a star that can be made, seed by seed."""
        for turn in range(state.turns):
            for point in self._points(state):
                if (tried := self._trial(point, self.seed(turn))) is not None:
                    yield tried

    def _points(self, state: _State) -> Iterator[Point]:
        """Yield the points of a star, its centre first."""
        yield state.centre
        for axis, at in enumerate(state.centre):
            for place in self._places(axis, state):
                if place != at:
                    yield (*state.centre[:axis], place, *state.centre[axis + 1 :])

    def _places(self, axis: int, state: _State) -> range:
        (low, high), at = state.spans[axis], state.centre[axis]
        return range(max(low, at - REACH), min(high, at + REACH) + 1)

    def _at(self, axis: int, place: int) -> Point:
        return (*self.centre[:axis], place, *self.centre[axis + 1 :])

    def _log(self, axis: int, place: int) -> float | None:
        """Return the log of a value over the centre's; None where it cannot be tried."""
        seed = self.seed(0)
        tried, centre = self._trial(self._at(axis, place), seed), self._trial(self.centre, seed)
        return None if tried is None or centre is None else tried.logs[axis] - centre.logs[axis]

    def _line(self, axis: int) -> dict[int, float]:
        """Return the logs over the centre's by place; of equal ones the nearest alone."""
        at, line = self.centre[axis], dict[int, float]()
        for place in sorted(self._places(axis, self._state), key=lambda one: abs(one - at)):
            z = self._log(axis, place)
            if z is not None and z not in line.values():
                line[place] = z
        return line

    def _losses(self, point: Point) -> dict[int, float]:
        """Return the losses of a point that was asked for, by seed."""
        seeds = map(self.seed, range(self.turns))
        tried = ((seed, self._trial(point, seed)) for seed in seeds)
        return {
            seed: one.loss
            for seed, one in tried
            if one is not None and one.loss is not None and one.key in self.asked
        }

    def _loss(self, point: Point) -> float:
        """Return the mean loss of a point; infinity where one diverged, or there is none."""
        losses = self._losses(point).values()
        return sum(losses) / len(losses) if losses else math.inf

    def _observations(self) -> list[Observation]:
        found = [Observation(s, None, 0.0, loss) for s, loss in self._losses(self.centre).items()]
        for axis, name in enumerate(self.names):
            for place, z in self._line(axis).items():
                point = self._at(axis, place)
                if z and self._loss(point) < math.inf:
                    losses = self._losses(point).items()
                    found += [Observation(seed, name, z, loss) for seed, loss in losses]
        return found


def _nearest(line: dict[int, float], z: float) -> int:
    return min(line, key=lambda place: abs(line[place] - z))
