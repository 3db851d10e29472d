"""What is said of a minimum at the edge of its grid."""

import pytest

from isoflop.planning import Edge
from isoflop.planning.edges import Setting
from isoflop.terminal.status import edge_words

EDGE = Edge(
    variant="Baseline",
    budget_flops=1.3e11,
    minimum_parameters=20_000,
    side="smaller",
    present=0,
    wanted=2,
    sizes=(13_000, 8_123),
    end=None,
    seconds=180.0,
    settings=(Setting(name="added_at_most", now=3, needed=5),),
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            "Baseline at 1.3e11: the lowest loss is at the smallest size trained (20K); 2 sizes "
            "more, 13K and 8.12K, about 3 min 00 s of training, would show whether it lies there; "
            "grid.added_at_most = 3 keeps them out: set 5",
        ),
        (
            {
                "side": "larger",
                "present": 1,
                "sizes": (31_400,),
                "seconds": 42.0,
                "end": "steps",
                "settings": (
                    Setting(name="maximum_parameters", now=25e3, needed=31_400),
                    Setting(name="added_at_most", now=3, needed=4),
                ),
            },
            "Baseline at 1.3e11: the lowest loss is at 20K, with 1 larger size of the 2 wanted; "
            "1 size more, 31.4K, about 42 s of training, would show whether it lies there (the "
            "budget buys no whole steps of a larger size beyond); grid.maximum_parameters = 25000 "
            "keeps it out: set 32000, grid.added_at_most = 3 keeps it out: set 4",
        ),
        (
            {"settings": (Setting(name="minimum_parameters", now=15e3, needed=8_123),)},
            "Baseline at 1.3e11: the lowest loss is at the smallest size trained (20K); 2 sizes "
            "more, 13K and 8.12K, about 3 min 00 s of training, would show whether it lies there; "
            "grid.minimum_parameters = 15000 keeps them out: set 8100",
        ),
        (
            {"sizes": (), "end": "shapes", "settings": (), "seconds": 0.0},
            "Baseline at 1.3e11: the lowest loss is at the smallest size trained (20K), and the "
            "family of shapes has no smaller size",
        ),
    ],
)
def test_it_is_said_what_would_bracket_a_minimum(changes: dict[str, object], words: str) -> None:
    assert edge_words(EDGE.model_copy(update=changes)) == words
