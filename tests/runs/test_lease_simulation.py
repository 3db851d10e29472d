"""Workers on many hosts, simulated: killed, paused, with clocks that jump and files seen late."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isoflop.runs import RunClaimed, claim

HOUR = 3600.0
SEEN_AFTER = 25.0
"""Most seconds until one host sees what another wrote."""
CHECKPOINT = 120.0
TICK = 0.25


class Killed(Exception):
    """The worker's host is gone."""


class World:
    """Virtual time: of all who sleep the one that is to wake first goes on, alone."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.host: Any = None
        self.claims: dict[Path, list[list[tuple[float, float]]]] = {}
        """Of each run, of each token: when it was renewed and what time that gave its file."""
        self.holders: dict[Path, list[Any]] = {}
        self.saved: Counter[Path] = Counter()
        self.records: Counter[Path] = Counter()
        self.left: dict[Path, float] = {}
        self.told: Counter[str] = Counter()
        self._sleepers: list[tuple[float, int, Any, threading.Semaphore]] = []
        self._order = itertools.count()

    def sleep(self, seconds: float) -> None:
        host, mine = self.host, threading.Semaphore(0)
        entry = (self.now + seconds, next(self._order), host, mine)
        heapq.heappush(self._sleepers, entry)
        self._wake()
        mine.acquire()
        self.host = host

    def _wake(self) -> None:
        if self._sleepers:
            self.now, _, _, first = heapq.heappop(self._sleepers)
            first.release()

    def run(self, *actors: Callable[[], None]) -> None:
        """Let all actors go on until they are done."""
        over = threading.Semaphore(0)

        def live(actor: Callable[[], None], begun: threading.Semaphore) -> None:
            begun.acquire()
            try:
                actor()
            finally:
                over.release()
                self._wake()

        for actor in actors:
            begun = threading.Semaphore(0)
            heapq.heappush(self._sleepers, (self.now, next(self._order), None, begun))
            threading.Thread(target=live, args=(actor, begun), daemon=True).start()
        self._wake()
        for _ in actors:
            assert over.acquire(timeout=3600)

    def file_clock(self) -> float:
        """The file server's clock, which jumps by an hour now and then, to and fro."""
        return 1e9 + self.now + HOUR * (int(self.now / 5000) % 2)


class Files:
    """The files of the claims to a run, as one host sees them: late, but for what it wrote."""

    def __init__(self, world: World, path: Path, host: Any) -> None:
        self.world, self.path, self.host = world, path, host
        self.tokens = world.claims.setdefault(path, [])
        self.holders = world.holders.setdefault(path, [])

    def _seen(self, token: int) -> list[tuple[float, float]]:
        if not 0 < token <= len(self.tokens):
            return []
        until = self.world.now - self.world.chance.uniform(0, SEEN_AFTER)
        if self.holders[token - 1] is self.host:
            until = self.world.now
        fresh = self.host.fresh.get(self.path, 0.0)
        return [one for one in self.tokens[token - 1] if one[0] <= max(until, fresh)]

    def newest(self) -> int:
        return max((n for n in range(1, len(self.tokens) + 1) if self._seen(n)), default=0)

    def create(self, token: int, owner: int) -> int:
        # What makes an entry in a folder hears of the others in it.
        self.host.fresh[self.path] = self.world.now
        if token <= len(self.tokens):
            raise FileExistsError
        if self.tokens and self.tokens[-1][-1][1] and self.holders[-1] is not self.host:
            self.world.told["taken over"] += 1
            assert self.world.now - self.tokens[-1][-1][0] > claim.TRUST_SECONDS
        self.tokens.append([])
        self.holders.append(self.host)
        self.renew(token)
        return token

    def renew(self, descriptor: int) -> None:
        self.tokens[descriptor - 1].append((self.world.now, self.world.file_clock()))

    def let_go(self, descriptor: int) -> None:
        if not self.host.dead:
            self.tokens[descriptor - 1].append((self.world.now, 0.0))

    def read(self, token: int) -> claim.Lease | None:
        seen = self._seen(token)
        return claim.Lease(seen[-1][1]) if seen else None

    def now(self) -> float:
        return self.world.file_clock()

    def identity(self, token: int) -> tuple[int, int] | None:
        return (0, token) if self._seen(token) else None


class SimulatedClaim(claim.Claim):
    """A claim of a simulated host, which renews it as it works."""

    def __init__(self, world: World, path: Path, host: Any) -> None:
        super().__init__(path)
        self._files: Any = Files(world, path, host)

    def _keep(self, over: threading.Event) -> None:
        pass


class Worker:
    """Trains what nobody has, the longest first; it is killed at any moment, and comes again."""

    def __init__(self, world: World, runs: dict[Path, float]) -> None:
        self.world, self.runs = world, runs
        self.useful = self.idle = 0.0

    def live(self) -> None:
        world = self.world
        while len(world.records) < len(self.runs):
            world.host = SimpleNamespace(
                dead=False, fresh={}, clock=world.chance.uniform(-HOUR, HOUR)
            )
            try:
                self._work()
            except Killed:
                world.told["killed"] += 1
                world.sleep(60)

    def _work(self) -> None:
        while len(self.world.records) < len(self.runs):
            began = self.world.now
            free = self._free()
            self.world.sleep(TICK if free else 5.0)
            with suppress(RunClaimed):
                if free is not None:
                    with (mine := SimulatedClaim(self.world, free, self.world.host)).hold():
                        self.idle += self.world.now - began
                        self._train(free, mine)

    def _free(self) -> Path | None:
        for path in list(itertools.islice(self.world.left, 200)):
            one = SimulatedClaim(self.world, path, self.world.host)
            if not one.is_claimed():
                return path
        return None

    def _train(self, path: Path, mine: SimulatedClaim) -> None:
        world, whole = self.world, self.runs[path]
        done = world.saved[path]
        while done < whole and path not in world.records:
            upto = min(done + CHECKPOINT, whole)
            while done < upto:
                step = min(claim.RENEW_SECONDS, upto - done)
                self._suffer()
                world.sleep(step)
                done += step
                self.useful += step
                with suppress(RunClaimed):
                    mine.renew()
            mine.check_claim()
            paused = self._suffer(0.02)
            # What this owner saved is the newest unless it stood still between asking and saving.
            assert paused > claim.TRUST_SECONDS or mine.token == len(world.claims[path])
            if mine.token < len(world.claims[path]):
                world.told["late checkpoint"] += 1
            world.saved[path] = max(world.saved[path], upto)
        mine.check_claim()
        self._suffer(0.02)
        # Creating a file that is there is refused.
        if path in world.records:
            world.told["second record refused"] += 1
        else:
            world.records[path] += 1
            del world.left[path]

    def _suffer(self, share: float = 1.0) -> float:
        """Be killed or paused at this moment, or not; return the seconds of the pause."""
        drawn = self.world.chance.random() / share
        if drawn < 0.001:
            self.world.host.dead = True
            raise Killed
        if drawn < 0.002:
            pause = self.world.chance.uniform(0, 10 * claim.LEASE_SECONDS)
            self.world.told["paused"] += 1
            self.world.sleep(pause)
            return pause
        return 0.0


@pytest.mark.parametrize(
    ("workers", "runs", "longest"),
    [(8, 60, 1000.0), pytest.param(64, 10_000, 300.0, marks=pytest.mark.slow)],
)
def test_each_run_is_committed_once_whatever_becomes_of_its_workers(
    workers: int, runs: int, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(seed=runs)
    lengths = sorted((world.chance.uniform(60, longest) for _ in range(runs)), reverse=True)
    work = {Path(str(number)): length for number, length in enumerate(lengths)}
    world.left = dict(work)
    monkeypatch.setattr(claim, "seconds", lambda: world.now + world.host.clock)
    monkeypatch.setattr(claim, "time", SimpleNamespace(sleep=world.sleep))
    crew = [Worker(world, work) for _ in range(workers)]
    world.run(*(one.live for one in crew))
    useful, idle = (sum(getattr(one, name) for one in crew) for name in ("useful", "idle"))
    print(f"{dict(world.told)}, {useful / 3600:.0f} hours trained, idle {idle / useful:.3%}")
    assert world.records == dict.fromkeys(work, 1)
    assert world.told["killed"] > runs / 200
    assert world.told["taken over"] > runs / 200
    assert idle < 0.01 * useful
    # Of what was trained, all but what kills and pauses cost is in the records.
    assert useful - sum(lengths) < (world.told["killed"] + world.told["paused"]) * HOUR / 4
