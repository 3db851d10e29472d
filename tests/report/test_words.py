from __future__ import annotations

from dataclasses import replace

import pytest
import synthetic_study as synthetic
from made_reports import analysed

from isoflop.report.analysis import Analysis
from isoflop.report.page import lede
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
