from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import synthetic_scaling as synthetic
from made_reports import analysed_scaling, figures_of

from isoflop.config import BlockAttention, Variant
from isoflop.report.page import lede
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.sections.scaling.compute import losses_against_compute
from isoflop.report.sections.scaling.gaps import gap_rows
from isoflop.report.words.prose import told


def with_gaps(analysis: ScalingAnalysis, outcomes: Sequence[str]) -> ScalingAnalysis:
    """Return an analysis whose ranges have these outcomes, in turn, and no known sign."""
    assert analysis.fit is not None
    told = dict(zip(analysis.ranges, outcomes, strict=True))
    found = tuple(
        gap.model_copy(
            update={"outcome": told.get((gap.start, gap.stop), gap.outcome), "p_different": 1.0}
        )
        for gap in analysis.fit.gaps
    )
    return replace(analysis, fit=analysis.fit.model_copy(update={"gaps": found}))


def test_an_equal_variant_is_said_to_match_within_the_margin(scaling):
    said = lede(scaling)
    assert said.startswith(
        "Block attention matches Full attention to within 0.01 nats per byte at every range of "
        "positions."
    )
    # It differs by less than the margin, and that is told as well.
    assert re.search(
        r"Within that margin the loss of Block attention is higher at positions \d+–2047", said
    )
    assert "lower" not in said
    gap = scaling.gap("Block attention", (0, 2048)).difference
    first = told("scaling", "results", scaling)[0]
    assert f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] nats per byte" in first
    assert told("scaling", "doubtful", scaling) == ()


E4, W2, U2 = ("equivalent",) * 4, ("worse",) * 2, ("unresolved",) * 2


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (
            (*E4, *W2, *U2),
            "Block attention matches Full attention to within 0.01 nats per byte at positions "
            r"0–1023, and is worse at positions 1024–1535, by 0\.00\d\d to 0\.00\d\d nats per "
            "byte; it is unresolved at positions 1536–2047.",
        ),
        (
            ("worse", *E4, "worse", *U2),
            "Block attention matches Full attention to within 0.01 nats per byte at positions "
            r"256–1279, and is worse at positions 0–255 and 1280–1535, by .*; it is unresolved "
            "at positions 1536–2047.",
        ),
        (
            ("better", *("unresolved",) * 7),
            "Block attention is better than Full attention at positions 0–255, by .*; it is "
            "unresolved at positions 256–2047.",
        ),
        (
            ("unresolved",) * 8,
            "Whether Block attention matches Full attention is unresolved at every range of "
            "positions: the intervals leave it open.",
        ),
    ],
)
def test_the_lede_answers_by_range(scaling, outcomes, said):
    assert re.fullmatch(said, lede(with_gaps(scaling, outcomes)))


def test_without_a_margin_nothing_is_called_equivalent():
    study = synthetic.study(margin=None, sizes=synthetic.SIZES[:3])
    analysis = analysed_scaling(study, points=8)
    assert "matches Full attention to within" not in lede(analysis)
    assert "equivalent" not in {row["Outcome"][0].text for row in gap_rows(analysis)}
    assert "No margin was declared" in told("scaling", "doubtful", analysis)[0]
    figure = figures_of(analysis)["gaps-by-position"]
    assert "there is no band" in figure.caption
    assert "rect" not in {layer["mark"]["type"] for layer in figure.spec()["layer"]}


def test_one_seed_is_a_doubt_and_has_no_seed_error():
    analysis = analysed_scaling(synthetic.study(seeds=(4,)))
    assert "One seed per size" in told("scaling", "doubtful", analysis)[0]
    assert lede(analysis).endswith("one pair of runs at each size, so seed noise is not known.")
    assert {row["Error by|#seeds"] for row in gap_rows(analysis)} == {"–"}
    assert len(losses_against_compute(analysis, "6nd").query("row == 'run'")) == 10 * 2 * 5


def test_several_variants_are_answered_in_turn_with_the_rest_below():
    third = Variant(name="Shorter", attention=BlockAttention(block_size=32, top_k=3))
    scaling = analysed_scaling(synthetic.study(variants=(*synthetic.VARIANTS, third)))
    said = lede(scaling)
    assert said.count(" matches Full attention to within 0.01 nats per byte at every range") == 2
    assert "Within that margin" not in said
    for name in ("Block attention", "Shorter"):
        assert (
            sum(
                f"the loss of {name} is higher" in one
                for one in told("scaling", "results", scaling)
            )
            == 1
        )
