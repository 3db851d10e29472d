"""Ctrl-C, SIGTERM and SIGUSR1 as a wish to stop, asked about between two looks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Wish:
    """Whether somebody asked to stop."""

    to_stop: bool = False
    by_sigterm: bool = False
    """Or by SIGUSR1, which batch systems send some time before."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asked to stop, and it was done."""


@contextmanager
def stop_signals() -> Iterator[Wish]:
    """Turn the first of these signals into a wish; a second SIGINT raises KeyboardInterrupt."""
    wish = Wish()

    def ask(number: int, _: FrameType | None) -> None:
        # Nothing is printed here: the signal may have come in the middle of a print.
        if wish.to_stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not wish.to_stop:
            wish.to_stop, wish.by_sigterm = True, number != signal.SIGINT

    with handled_by(ask):
        yield wish


@contextmanager
def handled_by(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> Iterator[None]:
    """Give SIGINT, SIGTERM and SIGUSR1 to a handler while the context lasts.

    Outside the main thread, where Python takes no signal handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
