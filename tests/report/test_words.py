from __future__ import annotations

from dataclasses import replace

import pytest
import synthetic_study as synthetic
from made_reports import analysed

from isoflop.report.analysis import Analysis
from isoflop.report.page import lede
from isoflop.report.sections.curves import claims
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
    (result,) = pair.budgets
    (name, verdict), *_ = result.verdicts.items()
    unsure = verdict.model_copy(update={"outcome": "unresolved"})
    doubtful = replace(pair, budgets=(replace(result, verdicts={name: unsure}),))
    assert "leaves open whether it is better" in lede(doubtful)


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
