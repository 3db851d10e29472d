"""What a report shows of the inside of a routed model: which one, its figures, its text."""

from __future__ import annotations

import re

import made_routed
import pytest
from made_reports import html_of
from made_routed import HOSTILE
from test_page import Elements

from isoflop.report import routed_model
from isoflop.report.routed import depth_colours
from isoflop.report.sections import routing
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


def chosen(study, records, names, evaluated=(), sampled=(), trained=(), *, detailed=True):
    return routed_model(
        study,
        records,
        names,
        {one.run_id: made_routed.evaluation(one, detailed=detailed) for one in evaluated},
        {one.run_id: made_routed.sample(one) for one in sampled},
        [*(one.run_id for one in trained), "another"],
    )


@pytest.fixture
def model(study, records, names, ranked):
    return chosen(study, records, names, ranked[:1], ranked[:1])


@pytest.mark.parametrize(
    ("evaluated", "sampled", "trained", "best"),
    [([3, 4], [2], [], 2), ([], [], [4, 2], 2), ([], [3], [4, 2], 3), ([], [], [], 0)],
)
def test_the_best_run_that_something_is_known_of_is_chosen(
    study, records, names, ranked, evaluated, sampled, trained, best
):
    picked = ([ranked[place] for place in places] for places in (evaluated, sampled, trained))
    found = chosen(study, records, names, *picked)
    assert (found.variant, found.record) == (CHALLENGER, ranked[best])
    folder = f"runs/mod-variants/runs/{ranked[best].run_id}"
    asked = [f"isoflop eval {folder}", f"isoflop sample {folder} --prompt TEXT --write"]
    assert found.missing == tuple(asked[: 1 if sampled else 2])


def test_only_routed_runs_of_the_challenger_are_chosen(study, records, names, ranked):
    others = [record for record in records if names[record.run_id] != CHALLENGER]
    found = chosen(study, records, names, others, others)
    assert (found.record, found.evaluation, found.sample) == (ranked[0], None, None)
    dense = study.model_copy(update={"variants": study.variants[:1]})
    assert chosen(dense, records, names) is None
    baseline = [record for record in records if names[record.run_id] == "Baseline"]
    assert chosen(study, baseline, names) is None


@pytest.mark.parametrize(
    ("detailed", "expected"),
    [
        (True, ["routing-decisions", "router-weights", "decision-losses", "decision-differences"]),
        (False, ["decision-losses", "decision-differences"]),
    ],
)
def test_what_was_kept_is_drawn(study, records, names, ranked, detailed, expected):
    model = chosen(study, records, names, ranked[:1], detailed=detailed)
    drawn = [*routing.decision_figures(model), *routing.loss_figures(model, "nats per byte")]
    assert [one.name for one in drawn] == expected
    for one in drawn:
        type(one.chart).validate(one.spec())
    assert not routing.loss_figures(chosen(study, records, names), "nats per byte")


def test_shares_of_router_weights_add_up_in_every_block(model):
    table = routing.decision_figures(model)[1].table
    assert table.groupby("panel")["share"].sum().tolist() == pytest.approx([1, 1, 1])


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
    assert "seed 4, temperature 0.8, top p 0.9)" in page.words
    assert "isoflop eval" not in page.words
    pieces = [a for tag, a in page.found if tag == "span" and "title" in a]
    by_title = {a["title"]: a.get("style") for a in pieces}
    assert by_title["no routed block"] is None
    assert by_title["the last token, which no block was run on"] is None
    blocks = ("block 1", "blocks 1, 3", "blocks 1, 3, 5")
    for told, colour in zip(blocks, depth_colours(3)[1:], strict=True):
        assert by_title[told] == f"background: {colour.background}; color: {colour.text}"


def test_a_long_sample_is_cut_and_said_to_be(model):
    tokens = model.sample.tokens[:1] * (routing.MOST_TOKENS + 7)
    shown = routing.strip(model.sample.model_copy(update={"tokens": tokens}))
    assert len(shown.sample.tokens) == routing.MOST_TOKENS
    assert "1,507 tokens drawn by this model, of which 1,500 are shown" in shown.caption


@pytest.mark.parametrize("routed", [0, 1, 2, 3, 12])
def test_depth_colours_are_told_apart_and_can_be_read(routed):
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    none, *colours = depth_colours(routed)
    assert none is None
    assert len(colours) == routed
    back = [luminance(one.background) for one in colours]
    assert back == sorted(set(back), reverse=True)
    for one, light in zip(colours, back, strict=True):
        low, high = sorted((light, luminance(one.text)))
        assert (high + 0.05) / (low + 0.05) >= 4.5
