"""Silence counts only while somebody listens."""

from isoflop.sweep.schedule.watchdog import Watchdog


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_silence_is_counted_from_the_last_sign() -> None:
    clock = Clock()
    watchdog = Watchdog(5.0, clock)
    watchdog.heard("a")
    for second in range(8):
        clock.now += 1
        if second == 3:
            watchdog.heard("b")
        watchdog.look()
        assert watchdog.hanging == (["a"] if second >= 5 else [])
    watchdog.heard("a")
    clock.now += 1
    watchdog.look()
    assert watchdog.hanging == ["b"]
    watchdog.forget("b")
    assert watchdog.hanging == []


def test_a_pause_of_the_scheduler_is_nobodys_silence() -> None:
    clock = Clock()
    watchdog = Watchdog(5.0, clock)
    watchdog.heard("a")
    clock.now += 36_000
    watchdog.look()
    assert watchdog.hanging == []
    for _ in range(4):
        clock.now += 1
        watchdog.look()
    assert watchdog.hanging == ["a"]
