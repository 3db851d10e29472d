"""What attempts on disk say of whether a run is tried again."""

import pytest

from isoflop.runs import Attempt
from isoflop.sweep.schedule.attempts import tries


def made(*endings: tuple[int, str | None]) -> list[Attempt]:
    return [
        Attempt(number, step, ending, f"reason {number}" if ending == "failed" else None)
        for number, (step, ending) in enumerate(endings, start=1)
    ]


@pytest.mark.parametrize(
    ("endings", "verdict"),
    [
        ([], None),
        ([(0, "failed")] * 2, None),
        ([(0, "failed")] * 3, "reason 3"),
        ([(0, "failed"), (0, None), (0, "failed"), (0, None), (0, "failed")], "reason 5"),
        ([(0, "failed"), (0, "failed"), (4, "failed"), (4, "failed")], None),
        ([(0, "failed"), (4, "failed"), (4, "failed"), (4, "failed")], "reason 4"),
        ([(3, None)] * 9, None),
        ([(3, None)] * 10, "killed 10 times from the same checkpoint"),
        ([(3, None)] * 9 + [(8, None)], None),
        ([(0, "preempted")] * 20, None),
    ],
)
def test_a_run_is_given_up_when_it_gains_nothing(endings, verdict) -> None:
    found = tries(made(*endings)).verdict
    assert (found is None) == (verdict is None)
    assert verdict is None or (found or "").startswith(verdict)
