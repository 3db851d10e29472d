"""Training loss where block attention turns to full attention."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_scaling as synthetic
from made_reports import figures_of

from isoflop.config import BlockAttention, Variant
from isoflop.report import Evidence
from isoflop.report.scaling import analyse_scaling
from isoflop.report.sections.scaling.switch import LOSS, SHOWN_FROM, apart_panel, rows, sentences

TURN = 0.8
VARIANTS = (
    Variant(name="Full"),
    Variant(name="Block", attention=BlockAttention(block_size=64)),
    Variant(name="Turning", attention=BlockAttention(block_size=64, full_from=TURN)),
)
SIZES = ((4, 64), (5, 80))


def loss_at(variant, blocks, seed, share):
    """The batch decides most of it; what block attention costs is known."""
    batch = np.sin(40 * share + seed) * 0.3 + 2 - share
    apart = {"Full": 0.0, "Block": 0.02, "Turning": 0.02 if share <= TURN else 0.004}[variant]
    return batch + apart * blocks


def analysed(seeds=(0, 1, 2), variants=VARIANTS, points=100):
    study = synthetic.study(seeds=seeds, variants=variants, sizes=SIZES)
    records, variant_of = synthetic.joined(synthetic.runs(study, points=points))

    def told(one):
        name, model, steps = variant_of[one.run_id], one.config.model, one.config.steps
        curve = tuple(
            point.model_copy(
                update={"loss": loss_at(name, model.blocks, one.config.seed, point.step / steps)}
            )
            for point in one.curve
        )
        return one.model_copy(update={"curve": curve})

    return analyse_scaling(study, Evidence(records=list(map(told, records)), variant_of=variant_of))


@pytest.fixture(scope="module")
def analysis():
    return analysed()


def test_losses_and_differences_in_the_same_batches_are_of_the_largest_size(analysis):
    table, apart = rows(analysis), apart_panel(analysis)
    curves = dict(iter(table[table["row"] == "curve"].groupby(["panel", "variant"])))
    names = [(LOSS, name) for name in ("Full", "Block", "Turning")]
    assert curves.keys() == {*names, (apart, "Block"), (apart, "Turning")}
    assert curves[apart, "Block"]["loss"].to_numpy() == pytest.approx(0.02 * 5)
    turning = curves[apart, "Turning"]
    before, after = turning["share"] < TURN - 0.05, turning["share"] > TURN + 0.05
    assert turning.loc[before, "loss"].to_numpy() == pytest.approx(0.02 * 5)
    assert turning.loc[after, "loss"].to_numpy() == pytest.approx(0.004 * 5)
    assert table["share"].min() >= SHOWN_FROM
    turns = table[table["row"] == "turn"]
    assert (set(turns["panel"]), set(turns["share"])) == ({LOSS, apart}, {TURN})


def test_the_sentence_has_the_loss_before_and_after(analysis):
    (sentence,) = sentences(analysis)
    for said in (
        "Turning attends fully from 80% of training on",
        "+0.1000 over the 10% of training before",
        "+0.0200 over the last 5%",
        "above +0.0200",
        "means over 3 seeds",
    ):
        assert said in sentence


def test_a_study_in_which_nothing_turns_has_no_such_figure():
    analysis = analysed(seeds=(0,), variants=VARIANTS[:2], points=30)
    assert rows(analysis).empty
    assert sentences(analysis) == ()
    assert "switch-to-full-attention" not in figures_of(analysis)
