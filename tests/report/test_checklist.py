"""Each answer of the checklist follows what the study and its records say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import synthetic_study as synthetic
from made_reports import analysed, table_of, told

from isoflop.config import (
    AdamW,
    BlockAttention,
    Exponents,
    RecipeSource,
    RunRecord,
    Search,
    ShapeFamily,
    Study,
    Values,
)
from isoflop.estimate import Estimate
from isoflop.fit.checks import RateCheck
from isoflop.fit.search import FoundRecipe, FoundSetting, SearchResult
from isoflop.notation import scientific
from isoflop.report import LeftOut, RecipeSearch
from isoflop.report.analysis import Analysis
from isoflop.report.sections.search import section
from isoflop.report.words.checklist import Disclosure, checklist, standings


def answers(analysis: Analysis, **known: object) -> dict[str, Disclosure]:
    found = [item for topic in checklist(told(analysis, **known)) for item in topic.items]
    assert len({item.question for item in found}) == len(found)
    return {item.question: item for item in found}


def said(analysis: Analysis, about: str, **known: object) -> tuple[str, str]:
    """Return standing and text of the one question that holds `about`."""
    (item,) = [one for key, one in answers(analysis, **known).items() if about in key]
    return item.standing, " ".join(item.answer)


def with_study(analysis: Analysis, **changes: object) -> Analysis:
    return replace(analysis, study=analysis.study.model_copy(update=changes))


def test_a_list_of_an_answer_stays_in_its_line(bumped: Analysis) -> None:
    text = answers(bumped)["How much hangs on the delta of the Huber loss?"].answer
    assert [line.count(" at ") for line in text] == [3, 3]
    model = {"parameters": 9, "rates": (1, 2), "losses": (None, 2), "above_best": (None, None)}
    rates = tuple(
        RateCheck(variant=name, budget_flops=5e12, used=2, seeds=1, **model)
        for name in bumped.names
    )
    text = said(replace(bumped, rates=rates), "Were other learning rates tried")[1]
    assert text.endswith("but for Baseline at 5×10¹² FLOPs, MoD 12.5% at 5×10¹² FLOPs.")
    assert said(bumped, "Which batch")[1].startswith("2,048 tokens per step, the same")


def test_every_question_has_an_answer(analysis: Analysis) -> None:
    for item in answers(analysis).values():
        assert item.question.endswith("?")
        assert item.answer
        assert all(line.strip() for line in item.answer)
    counted = standings(checklist(analysis))
    assert sum(counted.values()) == len(answers(analysis))
    assert counted["disclosed"] > 20


def test_the_recipe_is_the_study_s(analysis: Analysis) -> None:
    recipe = analysis.study.recipe.model_copy(
        update={"learning_rate": 3.5e-3, "optimiser": AdamW(weight_decay=0.07), "precision": "fp32"}
    )
    attention = BlockAttention(block_size=64, top_k=4, full_last=2, full_from=0.9)
    first, second, *others = analysis.study.variants
    first = first.model_copy(update={"attention": attention})
    shape = ShapeFamily(width_per_block=7.5)
    second = second.model_copy(update={"learning_rate": 9e-3, "shape": shape})
    changed = with_study(analysis, recipe=recipe, variants=(first, second, *others))
    assert "Baseline: peak 0.0035 MoD 12.5%: peak 0.009" in said(changed, "rates?")[1]
    assert "weight decay 0.07" in said(changed, "optimiser, with")[1]
    assert "trained in fp32." in said(changed, "precision")[1]
    architecture = said(changed, "architecture")[1]
    assert "width 7.5 times the blocks" in architecture
    blocks = "4 blocks of 64 attended, last 2 full, full from 0.9 of training on"
    assert f"Baseline: block attention ({blocks})" in architecture
    assert said(analysis, "rates?")[1].startswith("Every variant: peak 0.008 ")


def test_it_says_where_the_rates_come_from(analysis: Analysis) -> None:
    about, recipe = "Where do the rates", analysis.study.recipe
    standing, text = said(analysis, about)
    assert standing == "disclosed"
    assert text.startswith("0.008 is built in and was found on sotu, bytes, windows of 256 tokens,")
    assert "another" not in text
    own = with_study(analysis, recipe=recipe.model_copy(update={"learning_rate": 3e-3}))
    assert said(own, about) == ("missing", "0.003 is the study's own, which names no source.")
    source = RecipeSource(
        corpus=("a.txt", "b.txt"), tokenizer="bpe:300", sequence_length=256, records="found.csv"
    )
    named = with_study(own, recipe=own.study.recipe.model_copy(update={"source": source}))
    assert said(named, about) == (
        "disclosed",
        "As the study says, they were found on a.txt, b.txt, bpe:300, windows of 256 tokens, with "
        "AdamW (found.csv). This study has another corpus and tokenizer.",
    )
    asked = with_study(analysis, recipe=recipe.model_copy(update={"check_first": True}))
    text = said(asked, about, checked_first={"Baseline": "0.004: 1.3000, 0.008*: 1.2000"})[1]
    assert "beats by more than 0.02 nats. Baseline: 0.004: 1.3000, 0.008*: 1.2000." in text


def test_a_search_is_counted_by_variant(analysis: Analysis) -> None:
    assert said(analysis, "trials")[0] == "missing"  # the study declares no search
    search = Search(learning_rates=(4e-3, 8e-3, 1.6e-2), width_per_block=(6, 13))
    asked = with_study(analysis, search=search)
    for finished, further, standing, words in (
        (
            {"Baseline": 5},
            0,
            "missing",
            "Baseline: 5 of 6 trials finished MoD 12.5%: 0 of 6 trials",
        ),
        ({"Baseline": 6, "MoD 12.5%": 6}, 17, "disclosed", "17 recorded runs of trials"),
    ):
        declared = {"Baseline": 6, "MoD 12.5%": 6}
        known = RecipeSearch(declared=declared, finished=finished, further_runs=further)
        found = said(asked, "trials", search=known)
        assert found[0] == standing
        assert words in found[1]


def test_a_search_of_settings_tells_how_and_its_page_what_was_found(analysis: Analysis) -> None:
    values = Values(learning_rate=(4e-3, 8e-3, 1.6e-2))
    search = Search(settings=values, most_trials=40, budgets_flops=(5e12, 2e13))
    asked = with_study(analysis, search=search)
    best = FoundSetting(
        setting="learning_rate",
        standing="inside",
        low=4e-3,
        high=3.2e-2,
        best=Estimate(value=9e-3, low=8e-3, high=1e-2),
        chosen=9e-3,
        moves_nats=0.05,
    )
    flat = best.model_copy(update={"standing": "flat", "best": None, "moves_nats": 0.004})
    recipes = tuple(
        FoundRecipe(
            variant="Baseline",
            budget_flops=budget,
            settings=(one,),
            trials=21,
            seeds=4,
            spread=0.005,
        )
        for budget, one in ((5e12, best), (2e13, flat))
    )
    trials = {"Baseline": 42}
    found = SearchResult(recipes=recipes, laws=(), trials=trials, finished=trials, missing=0)
    known = RecipeSearch(declared=trials, finished=trials, found=found)
    standing, text = said(asked, "trials", search=known)
    assert standing == "disclosed"
    assert "- " not in text[:2]
    assert text.startswith("learning rate: a star of trials")
    assert "at most 40 trials per variant and budget" in text
    assert section(asked) is None
    shown = section(told(asked, search=known))
    (table,) = shown.tables()
    assert [row[-1] for row in table.rows] == [
        "0.009 [0.008, 0.01]",
        "any of 0.004 to 0.032 within 0.0040",
    ]
    assert len(table.data) == 2
    assert shown.blocks[1].lines[0].endswith("FLOPs: 21 trials.")


def test_settings_of_a_variant_s_own_are_told(analysis: Analysis) -> None:
    first, *others = analysis.study.variants
    own = first.model_copy(update={"weight_decay": 0.2, "exponents": Exponents(learning_rate=-0.1)})
    told_of = said(with_study(analysis, variants=(own, *others)), "Which optimiser")[1]
    assert "Baseline has its own: weight decay 0.2, learning rate as (C / first budget)^-0.1." in (
        told_of
    )


def test_epochs_need_the_corpus(analysis: Analysis) -> None:
    most = max(record.config.tokens for record in analysis.evidence.records)
    standing, text = said(analysis, "corpus gone through", train_tokens=4_000_000)
    assert standing == "disclosed"
    assert f"{most / 4e6:.2f} times the training split at most" in text
    assert said(analysis, "corpus gone through")[0] == "missing"


@pytest.fixture(scope="module")
def few() -> tuple[Study, list[tuple[str, float, RunRecord]]]:
    """Return two variants of one seed, for what is told of runs and not of fits."""
    study = synthetic.study(seeds=(0,), variants=synthetic.VARIANTS[:2])
    return study, synthetic.runs(study)


def test_left_out_runs_are_counted_with_their_reasons(few) -> None:
    study, runs = few
    bad = [synthetic.diverged(study.variants[1], 5e12, width, "loss was NaN") for width in (64, 80)]
    matched = next(record for variant, _, record in runs if variant == "MoD 12.5%")
    beside = synthetic.record(study.variants[0], 5e12, 96, seed=11)
    everything = [*runs, *(("MoD 12.5%", 5e12, one) for one in bad)]
    analysis = analysed(
        study,
        [*everything, ("Baseline", 5e12, beside)],
        off_ladder=[matched.run_id],
        checks={beside.run_id: "Baseline"},
        missing=[LeftOut("Baseline", 5e12, "80K", 3, "pending", "not started")],
    )
    standing, text = said(analysis, "left out")
    assert standing == "disclosed"
    for part in (
        "2 runs diverged: loss was NaN (2)",
        "1 run without a record yet",
        "1 run in a shape of the baseline's",
        "1 run beside a minimum",
    ):
        assert part in text
    failed = analysed(
        study, [*runs, ("MoD 12.5%", 5e12, bad[0])], checks={bad[0].run_id: "MoD 12.5%"}
    )
    assert table_of(failed, "Runs that no fit").rows[0][0] == "MoD 12.5%"
    used = said(analysis, "behind the fits")[1]
    assert used.startswith(f"{len(runs) - 1} runs of {len(runs) + 3} records")


def test_runs_that_share_their_first_steps_are_told(few) -> None:
    study, runs = few
    plain = analysed(study, runs)
    assert "branched" not in said(plain, "What is C?")[1]
    assert plain.runs_table() is plain.table
    variant, budget, record = runs[0]
    half = record.config.steps // 2
    branch = record.model_copy(update={"parent": "f00", "parent_step": half})
    analysis = analysed(study, [(variant, budget, branch), *runs[1:]])
    text = said(analysis, "What is C?")[1]
    assert "1 run branched from a shorter one" in text
    whole = sum(one.train_flops[study.convention] for _, _, one in runs)
    spent = whole - half / record.config.steps * record.train_flops[study.convention]
    assert f"{scientific(whole)} FLOPs in all, of which {scientific(spent)} were spent" in text
    table = analysis.runs_table().set_index("run_id")
    assert table.loc[record.run_id, "parent"] == "f00"
    assert (table["parent"] == "").sum() == len(runs) - 1
    assert table["spent_flops"].sum() == pytest.approx(spent)


def test_mixed_code_of_checks_is_disclosed_apart(few) -> None:
    study, runs = few
    beside = synthetic.record(study.variants[0], 5e12, 96, seed=11)
    other = beside.environment.model_copy(update={"code": "beef" * 16, "attention": "fused"})
    beside = beside.model_copy(update={"environment": other})
    checks = {beside.run_id: "Baseline"}
    analysis = analysed(study, [*runs, ("Baseline", 5e12, beside)], checks=checks)
    text = said(analysis, "made alike")[1]
    assert text.startswith("Those in the figures were. With the checks beside the minima:")
    assert "Code fingerprint: c0dec0dec0de" in text
    assert "beefbeefbeef (1 run)" in text
    assert "Attention: as usual (14 runs), fused (1 run)." in text


def test_no_value_is_taken_for_a_question(study) -> None:
    variant = study.variants[0].model_copy(update={"name": "? x"})
    failed = synthetic.diverged(variant, 5e12, 64, "no\n# Topic\n? question\n! missing")
    hostile = study.model_copy(update={"variants": (variant, *study.variants[1:])})
    found = answers(analysed(hostile, [("? x", 5e12, failed)]))
    assert all(question.endswith("?") for question in found)
    told_of = found["Which runs were left out, and why?"].answer
    assert told_of == ["1 run diverged: no # Topic ? question ! missing (1)"]
    assert found["How many runs are behind the fits?"].standing == "missing"
