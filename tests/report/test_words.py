from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic_study as synthetic
from made_reports import analysed

from isoflop.fit.curves.seeds import NoisyMinimum
from isoflop.fit.intervals import mean_estimate
from isoflop.fit.minima.minimum import Minimum
from isoflop.report.analysis import Analysis
from isoflop.report.page import lede
from isoflop.report.sections.curves import claims
from isoflop.report.words import answers
from isoflop.report.words.prose import told


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_too_few_seeds_state_no_spread(seeds: tuple[int, ...]) -> None:
    study = synthetic.study(seeds=seeds, variants=synthetic.VARIANTS[:2])
    analysis = analysed(study, synthetic.runs(study))
    assert not any(
        "over seeds" in sentence
        for sentence in told("study", "results", analysis, analysis.budgets[0])
    )


def test_the_headline_says_whether_the_noise_leaves_the_winner_open(pair: Analysis) -> None:
    assert lede(pair).endswith("MoD 12.5% has the lowest loss: 4.4% below Baseline.")
    third = replace(pair, study=pair.study.model_copy(update={"variants": synthetic.VARIANTS[:3]}))
    assert lede(third) == f"{lede(pair)} Not compared for want of a minimum: MoD 50%."
    (result,) = pair.budgets
    alone = {key: one for key, one in result.minima.items() if key[0] == "Baseline"}
    alone = replace(pair, budgets=(replace(result, minima=alone, verdicts={}),))
    assert "Baseline alone has a minimum that may be used, so nothing is compared" in lede(alone)
    (name, verdict), *_ = result.verdicts.items()
    for changed, said in (
        ({"outcome": "unresolved"}, "leaves open whether it is better."),
        ({"outcome": "equivalent"}, ": it equals it to within the margin declared."),
        ({"outcome": "unresolved", "difference": None}, "; how far seeds move that is not known."),
    ):
        unsure = verdict.model_copy(update=changed)
        assert lede(replace(pair, budgets=(replace(result, verdicts={name: unsure}),))).endswith(
            said
        )


def test_tokens_per_step_that_differ_are_told_by_budget() -> None:
    each = [{"budget_flops": 1e12, "tokens_per_step": 512}, {"tokens_per_step": 1024}]
    runs = [SimpleNamespace(config=SimpleNamespace(**{"budget_flops": 5e12} | one)) for one in each]
    found = answers.tokens_per_step(runs)
    assert found == "Tokens per step: 512 at 10¹² FLOPs, 1,024 at 5×10¹² FLOPs"


def test_a_share_of_forward_flops_without_an_interval_is_not_told(pair: Analysis) -> None:
    (result,) = pair.budgets
    (name, verdict), *_ = result.verdicts.items()
    assert any("of its forward FLOPs" in one for one in told("study", "results", pair, result))
    open_ = verdict.model_copy(update={"forward_fraction": None})
    said = " ".join(told("study", "results", pair, replace(result, verdicts={name: open_})))
    assert "Noise leaves open how few forward FLOPs" in said


def test_of_variants_alike_the_best_is_told_from_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of seven, held against each other one by one, leaves one out in a quarter."""
    names, left_out = [f"V{i}" for i in range(7)], 0
    for study in range(200):
        rng = np.random.default_rng(study)
        noisy = {
            name: NoisyMinimum(
                name,
                Minimum(estimator="parabola", status="converged", message="", loss=off.mean()),
                loss=mean_estimate(off),
                seed_deviations=dict(enumerate(off - off.mean())),
            )
            for name, off in zip(names, rng.standard_normal((7, 3)), strict=True)
        }
        monkeypatch.setattr(answers, "noisy_minimum", lambda _, name, __, known=noisy: known[name])
        # Elsewhere than where the baseline is the best, which has another headline.
        ranked = sorted(noisy, key=lambda name: noisy[name].minimum.loss)
        analysis = SimpleNamespace(declared=None, names=names, baseline=ranked[-1])
        ranking = [SimpleNamespace(variant=name) for name in ranked]
        result = SimpleNamespace(budget_flops=1e18, ranking=lambda ranking=ranking: ranking)
        near, best = answers.near_best(analysis, result), ranked[0]
        assert best not in near
        left_out += len(near) < 5
    assert left_out <= 20
    # Where the noise of the best is not known, all are near it.
    noisy[best] = replace(noisy[best], loss=None)
    assert set(answers.near_best(analysis, result)) == set(names) - {best, ranked[-1]}


def test_a_budget_that_is_too_small_takes_the_verdict_from_itself_alone(pair: Analysis) -> None:
    (result,) = pair.budgets
    small = replace(result, budget_flops=1.4e12)
    mixed = replace(pair, budgets=(small, result))
    assert told("study", "doubtful", mixed) == ()
    assert lede(mixed) == lede(pair)
    said = "No verdict stands at this budget: below about 5×10¹²"
    for one, without in ((small, True), (result, False)):
        assert told("study", "results", mixed, one)[0].startswith(said) == without
    found = claims(mixed)
    verdicts = {budget: set(of.verdict) for budget, of in found.groupby("budget_flops")}
    assert verdicts[1.4e12] == {"no verdict"}
    assert "no verdict" not in verdicts[result.budget_flops]
    (doubt,) = told("study", "doubtful", replace(pair, budgets=(small,)))
    assert doubt.startswith("A budget of 1.4×10¹² FLOPs is too small: below about 5×10¹²")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"outcome": "worse"}, "no variant has a lower minimum than Baseline."),
        (
            {"outcome": "unresolved", "difference": None},
            "no variant has a lower minimum than Baseline.",
        ),
        (
            {"outcome": "unresolved"},
            "Baseline has the lowest loss, but the noise between seeds leaves open whether "
            "MoD 12.5% is worse.",
        ),
    ],
)
def test_the_headline_says_whether_the_noise_leaves_a_winning_baseline_open(
    pair: Analysis, changed: dict[str, object], said: str
) -> None:
    (result,) = pair.budgets
    verdict = result.verdicts["MoD 12.5%"].model_copy(update=changed)
    behind = {
        key: found.model_copy(update={"loss": 9.0}) if key[0] == "MoD 12.5%" else found
        for key, found in result.minima.items()
    }
    altered = replace(result, minima=behind, verdicts={"MoD 12.5%": verdict})
    assert lede(replace(pair, budgets=(altered,))).endswith(said)
