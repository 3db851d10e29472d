"""`isoflop rebuild`: what is told before models are trained again, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.hardware import usable_cores
from isoflop.planning import achieved_flops, makespan
from isoflop.sweep import BestModel, Rebuilt
from isoflop.sweep.display import duration


def expectation(models: Sequence[BestModel], workers: int | None) -> str:
    """Return how many models are to be trained and how long that takes here, in a sentence.

    The speed is measured, which takes seconds.

    Args:
        models: that are to be trained; at least one.
        workers: models at a time; None for one per core.
    """
    from isoflop.training import measure_speed

    at_a_time = usable_cores().count if workers is None else max(1, workers)
    speed = measure_speed([model.record.config for model in models])
    seconds = [
        model.left * achieved_flops(model.record.config) / speed(model.record.config)
        for model in models
    ]
    count = "1 model" if len(models) == 1 else f"{len(models)} models"
    recorded = [model.left * model.record.seconds for model in models]
    return (
        f"training {count} again, {at_a_time} at a time: about "
        f"{duration(makespan(seconds, at_a_time))} at the speed of uncompiled steps measured here "
        f"just now; when they were recorded, {duration(makespan(recorded, at_a_time))}"
    )


def described(one: Rebuilt) -> str:
    """Return how a model that was trained again compares with what is recorded of it."""
    name = f"{one.model.variant}, run {one.model.record.run_id}"
    after = one.record
    if after.state != "finished":
        return f"{name}: {after.state}: {after.reason}; the recorded run finished"
    test = after.evaluation("test")
    loss = "" if test is None else f", test loss {test.loss:.4f}"
    if one.equal:
        return f"{name}: every loss is the recorded one, bit for bit{loss}"
    apart = "" if one.apart is None else f" by at most {one.apart:.2g} nats per token"
    changes = ", ".join(f"{key} {was} -> {now}" for key, (was, now) in one.changes.items())
    return f"{name}: losses differ from the recorded ones{apart}{loss}" + (
        f"; changed since: {changes}" if changes else ""
    )
