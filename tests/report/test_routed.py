"""What a report shows of the inside of a routed model: which one, its figures, its text."""

from __future__ import annotations

import re

import made_routed
import pytest
import synthetic_study as synthetic
from made_reports import html_of
from made_routed import HOSTILE, PROCESSED, TOKENS, WEIGHTS
from test_page import Elements

from isoflop.report import routed_model
from isoflop.report.routed import depth_colours
from isoflop.report.sections import routing
from isoflop.report.sections.generated_text import MOST_TOKENS, strip
from isoflop.text import visible

CHALLENGER = "MoD 12.5%"


@pytest.fixture(scope="module")
def names(runs):
    return {record.run_id: variant for variant, _, record in runs}


@pytest.fixture(scope="module")
def ranked(runs):
    """The challenger's records, the lowest test loss first."""
    own = [record for variant, _, record in runs if variant == CHALLENGER]
    return sorted(own, key=lambda record: record.evaluation().loss)


def chosen(study, records, names, evaluated=(), sampled=()):
    return routed_model(
        study,
        records,
        names,
        {record.run_id: made_routed.evaluation(record) for record in evaluated},
        {record.run_id: made_routed.sample(record) for record in sampled},
    )


def drawn(model, *, validate=False):
    """Return the names of a model's figures."""
    found = [*routing.decision_figures(model), *routing.loss_figures(model, "nats per byte")]
    for one in found:
        one.chart.to_dict(validate=validate)
    return [one.name for one in found]


@pytest.fixture
def model(study, records, names, ranked):
    return chosen(study, records, names, ranked[:1], ranked[:1])


def test_the_best_run_that_something_is_known_of_is_chosen(study, records, names, ranked):
    found = chosen(study, records, names, ranked[3:5], ranked[2:3])
    assert found.record == ranked[2]
    assert found.sample is not None
    assert found.evaluation is None
    folder = f"runs/mod-variants/runs/{ranked[2].run_id}"
    assert found.missing == (f"isoflop eval {folder}",)
    assert found.variant == CHALLENGER


def test_runs_of_other_variants_are_not_chosen(study, records, names, runs, ranked):
    others = [record for variant, _, record in runs if variant != CHALLENGER]
    found = chosen(study, records, names, others, others)
    assert found.record == ranked[0]
    assert (found.evaluation, found.sample) == (None, None)
    assert len(found.missing) == 2


def test_before_anything_is_known_a_run_with_its_checkpoint_is_named(study, records, names, ranked):
    trained = [ranked[4].run_id, ranked[2].run_id, "another"]
    assert routed_model(study, records, names, {}, {}, trained).record == ranked[2]
    known = {ranked[3].run_id: made_routed.sample(ranked[3])}
    assert routed_model(study, records, names, {}, known, trained).record == ranked[3]
    assert routed_model(study, records, names, {}, {}, ["another"]).record == ranked[0]


def test_a_study_without_a_routed_run_has_none(study, records, names):
    dense = study.model_copy(update={"variants": study.variants[:1]})
    assert chosen(dense, records, names) is None
    only = [record for record in records if names[record.run_id] == "Baseline"]
    assert chosen(study, only, names) is None


def test_a_row_tells_each_decision(model):
    grid = routing.decision_grid(model.evaluation.measures, 6, model.evaluation.token_texts)
    dense, routed = (grid[(grid["block"] % 2 == 1) == odd] for odd in (False, True))
    assert dense["block"].tolist() == [0, 2, 4]
    assert set(dense["state"]) == {routing.DENSE}
    assert set(dense["position_end"]) == {len(TOKENS)}
    for decision, column, yes in (("predictor", "state", "processed"), ("top_k", "top_k", "yes")):
        for index, block in enumerate((1, 3, 5)):
            row = routed[routed["block"] == block]
            assert row["position"].tolist() == list(range(len(TOKENS)))
            assert (row[column] == yes).astype(int).tolist() == list(PROCESSED[decision][index])
    assert not grid["token"].str.contains("\x1b").any()
    assert "'\\x1b[31m" in grid["token"].iloc[4]


def test_shares_of_router_weights_add_up_in_every_block(model):
    table = routing.router_weights(model.evaluation.measures)
    assert table.groupby("panel")["share"].sum().tolist() == pytest.approx([1, 1, 1])
    first = table[table["panel"] == "Block 1"]
    assert first[first["state"] == "processed"]["tokens"].tolist() == list(WEIGHTS.processed)
    assert first[first["state"] == "skipped"]["weight_end"].tolist() == [0.0, 2.0, 3.5]


def test_losses_have_intervals_and_differences_are_paired(model):
    table = routing.decision_losses(model.evaluation.measures)
    assert table["decision"].tolist() == ["predictor", "top_k"]
    assert table["loss_low"].tolist() == pytest.approx([1.004, 1.0])
    assert table["difference"].iloc[0] == 0.004
    assert table["difference"].isna().tolist() == [False, True]
    _, differences = routing.loss_figures(model, "nats per byte")
    assert differences.table["decision"].tolist() == ["predictor"]


def test_an_evaluation_without_details_gives_the_losses_alone(study, records, names, ranked):
    record = ranked[0]
    old = {record.run_id: made_routed.evaluation(record, detailed=False)}
    losses = ["decision-losses", "decision-differences"]
    assert drawn(routed_model(study, records, names, old, {})) == losses
    assert drawn(routed_model(study, records, names, {}, {})) == []


def test_specifications_are_valid(model):
    names = ["routing-decisions", "router-weights", "decision-losses", "decision-differences"]
    assert drawn(model, validate=True) == names


def test_text_on_the_page_stays_text(analysis, model):
    html = html_of(analysis, routed=model)
    page = Elements(html)
    assert not any(tag == "img" and a.get("src") == "x" for tag, a in page.found)
    assert not any(name.startswith("on") for _, attributes in page.found for name in attributes)
    assert "flag = 1" not in "".join(re.findall(r"<script>(.*?)</script>", html, re.S))
    for character in "\x1b\u202e":
        assert character not in html
    for text in HOSTILE:
        shown = visible(text, keep="\n ").replace("\n", "\u21b5\n")
        assert " ".join(shown.split()) in page.words
    assert model.record.run_id in page.words
    assert "isoflop eval" not in page.words
    assert "the lowest test loss" in page.words
    pieces = [a for tag, a in page.found if tag == "span" and "title" in a]
    colours = depth_colours(3)
    by_title = {a["title"]: a.get("style") for a in pieces}
    assert by_title["no routed block"] is None
    assert by_title["block 1"].startswith(f"background: {colours[1].background};")
    assert by_title["blocks 1, 3, 5"].startswith(f"background: {colours[3].background};")


def test_a_page_says_how_to_find_out(study, analysis, records, names, ranked):
    html = html_of(analysis, routed=chosen(study, records, names))
    folder = f"runs/mod-variants/runs/{ranked[0].run_id}"
    words = Elements(html).words
    assert f"isoflop eval {folder} and isoflop sample {folder} --prompt TEXT --write" in words
    assert "No model of MoD 12.5% was looked into yet" in words
    assert "generated-text" not in re.findall(r'id="([^"]*)"', html)
    plain = Elements(html_of(analysis)).words
    assert "Inside a routed model" not in plain


def test_a_strip_tells_prompt_depth_and_how_it_was_drawn(ranked):
    shown = strip(made_routed.sample(ranked[0]))
    assert "".join(one.text for one in shown.prompt) == "Four score"
    assert [one.told for one in shown.tokens[:4]] == [
        "no routed block",
        "block 1",
        "blocks 1, 3",
        "blocks 1, 3, 5",
    ]
    assert shown.tokens[-1].colours is None
    assert "seed 4, temperature 0.8, top p 0.9)" in shown.caption
    assert "top k" not in shown.caption
    assert len(shown.legend) == 4


def test_a_long_sample_is_cut_and_said_to_be(ranked):
    made = made_routed.sample(ranked[0])
    long = made.model_copy(update={"tokens": made.tokens[:1] * (MOST_TOKENS + 7)})
    shown = strip(long)
    assert len(shown.tokens) == MOST_TOKENS
    assert "1,507 tokens drawn by this model, of which 1,500 are shown" in shown.caption


@pytest.mark.parametrize("routed", [1, 2, 3, 12])
def test_depth_colours_are_told_apart_and_can_be_read(routed):
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    none, *colours = depth_colours(routed)
    assert none is None
    assert len(colours) == routed
    back = [luminance(one.background) for one in colours]
    assert back == sorted(back, reverse=True)
    assert len(set(back)) == routed
    for one, light in zip(colours, back, strict=True):
        high, low = max(light, luminance(one.text)), min(light, luminance(one.text))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_a_dense_model_has_one_colour():
    assert depth_colours(0) == (None,)


def test_made_up_runs_route(ranked):
    assert ranked[0].config.model.routed_blocks == (1, 3, 5)
    assert synthetic.VARIANTS[1].name == CHALLENGER
