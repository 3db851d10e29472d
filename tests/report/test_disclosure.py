"""Each answer of the checklist follows what the study and its records say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import synthetic_study as synthetic
from made_reports import analysed

from isoflop.config import (
    BlockAttention,
    PrecisionChoice,
    PrecisionSpeed,
    PrecisionSpeeds,
    RunRecord,
    Search,
    ShapeFamily,
    Study,
)
from isoflop.fit import ESTIMATORS
from isoflop.report.analysis import Analysis
from isoflop.report.disclosed_fits import FORMS, HUBER_STARTS, METHODS
from isoflop.report.disclosure import Disclosure, Evidence, RecipeSearch, standings
from isoflop.report.page import TOPICS
from isoflop.report.provenance import LeftOut


def answers(analysis: Analysis, evidence: Evidence) -> dict[str, Disclosure]:
    found = [item for topic in TOPICS for item in topic(analysis, evidence).items]
    assert len({item.question for item in found}) == len(found)
    return {item.question: item for item in found}


def said(analysis: Analysis, evidence: Evidence, about: str) -> tuple[str, str]:
    """Return standing and text of the one question that holds `about`."""
    (item,) = [one for key, one in answers(analysis, evidence).items() if about in key]
    return item.standing, " ".join(item.answer)


@pytest.fixture(scope="module")
def evidence(records) -> Evidence:
    return Evidence(
        records=records,
        search=RecipeSearch(declared={"Baseline": 6, "MoD 12.5%": 6}, finished={"Baseline": 5}),
        train_tokens=4_000_000,
        runs_sha256="ab" * 32,
    )


def test_every_question_has_an_answer(analysis: Analysis, evidence: Evidence) -> None:
    for item in answers(analysis, evidence).values():
        assert item.question.endswith("?")
        assert item.answer
        assert all(line.strip() for line in item.answer)
    counted = standings([topic(analysis, evidence) for topic in TOPICS])
    assert sum(counted.values()) == len(answers(analysis, evidence))
    assert counted["disclosed"] > 20


def test_every_estimator_has_its_form_and_its_method() -> None:
    assert set(FORMS) == set(METHODS) == set(ESTIMATORS)
    assert f"{HUBER_STARTS:,} starts" in METHODS["surface"]


def test_it_says_what_surfaces_intervals_are_by(
    analysis: Analysis, bumped: Analysis, evidence: Evidence
) -> None:
    about = "intervals, and at which level"
    text = said(bumped, evidence, about)[1]
    assert "Surfaces: refits with the residuals under random signs." in text
    assert "Surfaces" not in said(analysis, evidence, about)[1]


def test_the_envelope_is_told_or_why_there_is_none(analysis: Analysis, evidence: Evidence) -> None:
    standing, text = said(analysis, evidence, "envelope")
    assert standing == "disclosed"
    assert "Baseline: " in text
    assert said(replace(analysis, fits=None), evidence, "envelope")[0] == "not applicable"


def test_block_attention_is_described(analysis: Analysis, evidence: Evidence) -> None:
    attention = BlockAttention(block_size=64, top_k=4, full_last=2, full_from=0.9)
    variants = [analysis.study.variants[0].model_copy(update={"attention": attention})]
    study = analysis.study.model_copy(
        update={"variants": (*variants, *analysis.study.variants[1:])}
    )
    text = said(replace(analysis, study=study), evidence, "architecture")[1]
    assert (
        "Baseline: block attention (4 blocks of 64 attended, last 2 full, full from 0.9 of "
        "training on)" in text
    )


def test_the_recipe_is_the_study_s(analysis: Analysis, evidence: Evidence) -> None:
    recipe = analysis.study.recipe.model_copy(
        update={"learning_rate": 3.5e-3, "weight_decay": 0.07, "precision": "fp32"}
    )
    variants = list(analysis.study.variants)
    variants[1] = variants[1].model_copy(
        update={"learning_rate": 9e-3, "shape": ShapeFamily(width_per_block=7.5)}
    )
    study = analysis.study.model_copy(update={"recipe": recipe, "variants": tuple(variants)})
    changed = replace(analysis, study=study)
    assert "Baseline: peak 0.0035 MoD 12.5%: peak 0.009" in said(changed, evidence, "rates?")[1]
    assert "weight decay 0.07" in said(changed, evidence, "optimiser, with")[1]
    assert "trained in fp32." in said(changed, evidence, "precision")[1]
    assert "width 7.5 times the blocks" in said(changed, evidence, "architecture")[1]
    assert said(analysis, evidence, "rates?")[1].startswith("Every variant: peak 0.008 ")


def test_what_the_precision_was_chosen_by_is_told(analysis: Analysis, evidence: Evidence) -> None:
    assert "faster where" not in said(analysis, evidence, "precision")[1]
    choice = PrecisionChoice(
        precision="bf16",
        machine="x86_64 Some Processor",
        device="cpu",
        threads=2,
        torch="2.13",
        speeds=PrecisionSpeeds(
            rows=64,
            width=32,
            hidden=64,
            attended=64,
            head_width=16,
            attention_share=0.5,
            fp32=PrecisionSpeed(product_flops=1e11, attention_flops=5e10),
            bf16=PrecisionSpeed(product_flops=7e11, attention_flops=9e10),
        ),
    )
    text = said(analysis, replace(evidence, precision=choice), "precision")[1]
    assert (
        "trained in bf16. The precision is what was faster where the study was started first: "
        "matrix products 700 GFLOP/s, in fp32 100; attention 90, in fp32 50 (x86_64 Some "
        "Processor, 2 threads, torch 2.13)."
    ) in text


def test_a_search_is_counted_by_variant(analysis: Analysis, evidence: Evidence) -> None:
    assert said(analysis, evidence, "trials")[0] == "missing"  # the study declares no search
    search = Search(learning_rates=(4e-3, 8e-3, 1.6e-2), width_per_block=(6, 13))
    asked = replace(analysis, study=analysis.study.model_copy(update={"search": search}))
    standing, text = said(asked, evidence, "trials")
    assert standing == "missing"
    assert "Baseline: 5 of 6 trials finished" in text
    assert "MoD 12.5%: 0 of 6 trials finished" in text
    done = RecipeSearch(declared={"Baseline": 6}, finished={"Baseline": 6}, further_runs=17)
    standing, text = said(asked, replace(evidence, search=done), "trials")
    assert standing == "disclosed"
    assert "17 recorded runs of trials" in text


def test_epochs_need_the_corpus(analysis: Analysis, evidence: Evidence) -> None:
    most = max(record.config.tokens for record in evidence.records)
    standing, text = said(analysis, evidence, "corpus gone through")
    assert standing == "disclosed"
    assert f"{most / 4e6:.2f} times the training split at most" in text
    unknown = replace(evidence, train_tokens=None)
    assert said(analysis, unknown, "corpus gone through")[0] == "missing"


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
    names = {"Baseline": beside}
    analysis = analysed(
        study,
        [*everything, ("Baseline", 5e12, beside)],
        off_ladder=[matched.run_id],
        checks={one.run_id: name for name, one in names.items()},
    )
    evidence = Evidence(
        records=[*(record for *_, record in everything), beside],
        missing=[LeftOut("Baseline", 5e12, "80K", 3, "pending", "not started")],
    )
    standing, text = said(analysis, evidence, "left out")
    assert standing == "disclosed"
    for part in (
        "2 runs diverged: loss was NaN (2)",
        "1 run without a record yet",
        "1 run in a shape of the baseline's",
        "1 run beside a minimum",
    ):
        assert part in text
    used = said(analysis, evidence, "behind the fits")[1]
    assert used.startswith(f"{len(runs) - 1} runs of {len(runs) + 3} records")


def test_refused_minima_are_named(tilted: Analysis, evidence: Evidence) -> None:
    text = said(tilted, evidence, "minima were refused")[1]
    assert text.count("edge (") == 2 * len(tilted.study.variants)
    assert "Baseline at 5×10¹² FLOPs, parabola: edge (the lowest loss is at an end" in text


def test_a_margin_that_was_not_declared_claims_nothing(analysis, evidence: Evidence) -> None:
    assert said(analysis, evidence, "counts as none")[0] == "not applicable"
    study = analysis.study.model_copy(update={"equivalence_margin": 0.004})
    standing, text = said(replace(analysis, study=study), evidence, "counts as none")
    assert standing == "disclosed"
    assert text.startswith("0.004 nats per byte")


def test_comparisons_and_resamples_are_those_made(analysis, evidence: Evidence) -> None:
    assert said(analysis, evidence, "comparisons")[1].startswith(
        "3 comparisons with Baseline, 3 of"
    )
    text = said(analysis, evidence, "at which level")[1]
    assert f"95% everywhere, from {analysis.fits.resamples:,} copies" in text
    fewer = analysis.fits.model_copy(update={"resamples": 123, "level": 0.9, "seed": 5})
    text = said(replace(analysis, fits=fewer), evidence, "at which level")[1]
    assert "90% everywhere, from 123 copies of the runs (seed 5)" in text


def test_mixed_code_is_disclosed(few) -> None:
    study, runs = few
    variant, budget, record = runs[0]
    other = record.environment.model_copy(update={"code": "beef" * 16})
    changed = [(variant, budget, record.model_copy(update={"environment": other})), *runs[1:]]
    found = Evidence(records=[one for *_, one in changed])
    text = said(analysed(study, changed), found, "made alike")[1]
    assert text.startswith("No. Code fingerprint: c0dec0dec0de")
    assert "beefbeefbeef (1 run)" in text


def test_checks_by_other_code_are_disclosed_apart(few) -> None:
    study, runs = few
    beside = synthetic.record(study.variants[0], 5e12, 96, seed=11)
    other = beside.environment.model_copy(update={"code": "beef" * 16})
    beside = beside.model_copy(update={"environment": other})
    analysis = analysed(
        study, [*runs, ("Baseline", 5e12, beside)], checks={beside.run_id: "Baseline"}
    )
    found = Evidence(records=[*(record for *_, record in runs), beside])
    text = said(analysis, found, "made alike")[1]
    assert text.startswith("Those in the figures were.")
    assert "beefbeefbeef (1 run)" in text


def test_nothing_finished_is_no_crash(study) -> None:
    failed = synthetic.diverged(study.variants[0], 5e12, 64, "out of memory")
    analysis = analysed(study, [("Baseline", 5e12, failed)])
    found = answers(analysis, Evidence(records=[failed]))
    assert found["How many runs are behind the fits?"].standing == "missing"
    assert "1 run diverged: out of memory (1)" in found["Which runs were left out, and why?"].answer
