import pandas as pd
import pytest

from isoflop.papers.numbered import numbered_models

CENTRE = 2e5
PAIR = {"Baseline": {"loss": 1.25}, "MoD": {"loss": 1.24, "at": 3e5, "flops_per_parameter": 1.2}}


def figure3(table, **budget):
    return numbered_models(table, "Baseline", "MoD", **budget)[0]


def figure4(table, **budget):
    return numbered_models(table, "Baseline", "MoD", **budget)[1]


def sizes(models) -> list[float | None]:
    return [one.model and one.model.parameters for one in models]


def steps(*powers: float) -> list[float]:
    return [pytest.approx(CENTRE * 1.6**power) for power in powers]


def test_figure3_takes_optimum_twice_its_size_and_the_same_shapes(runs) -> None:
    table = runs(PAIR)
    one, two, three, four = models = figure3(table)
    assert [m.number for m in models] == [1, 2, 3, 4]
    assert sizes(models) == steps(0, 1, 0, 1)
    assert (one.model.variant, three.model.variant) == ("Baseline", "MoD")
    assert (three.model.blocks, three.model.width) == (one.model.blocks, one.model.width)
    assert (four.model.blocks, four.model.width) == (two.model.blocks, two.model.width)


def test_shapes_decide_not_parameters_and_off_ladder_runs_serve(runs) -> None:
    table = runs(PAIR)
    mod = table["variant"] == "MoD"
    table.loc[mod, "blocks"] += 2
    _, _, three, four = figure3(table)
    assert three.model is None
    assert three.reason == "5 blocks of width 80 were not trained"
    assert "not trained" in four.reason
    extra = (
        table[mod]
        .iloc[[0]]
        .assign(run_id="extra", on_ladder=False, blocks=5, width=80, parameters=2.1e5, loss=0.5)
    )
    _, _, three, four = figure3(pd.concat([table, extra]))
    assert three.model.run_ids == ("extra",)
    assert four.model is None


def test_baseline_of_twice_the_size_must_have_been_trained(runs) -> None:
    table = runs({**PAIR, "Baseline": {"loss": 1.25, "at": 4e5}})
    larger = table["parameters"] > 5e5
    table.loc[larger & (table["variant"] == "Baseline"), "parameters"] *= 4
    _, two, three, four = figure3(table)
    assert two.model is None
    assert "none was trained near" in two.reason
    assert three.model is not None
    assert four.reason == "model 2 is missing"


def test_figure4_rules(runs) -> None:
    one, two, three, four = models = figure4(runs(PAIR))
    assert [m.number for m in models] == [1, 2, 3, 4]
    assert four.model.parameters == pytest.approx(CENTRE * 1.6)
    # MoD's loss is 1.24 + 0.02 log(N / 3e5)^2, no higher than 1.25 from 1.48e5 on: step 0.
    assert three.model.parameters == pytest.approx(CENTRE)
    assert three.model.loss <= one.model.loss
    # 3 has 1.2 * 2e5 forward FLOPs; baselines have 2 N, nearest is 2 * 1.25e5.
    assert two.model.parameters == pytest.approx(CENTRE / 1.6)


def test_figure4_without_a_match(runs) -> None:
    one, two, three, four = figure4(runs({**PAIR, "MoD": {"loss": 1.3}}))
    assert one.model is not None
    assert four.model is not None
    assert three.reason == "none reaches the loss of model 1, 1.2500"
    assert two.reason == "model 3 is missing"
    models = figure4(runs({"Baseline": {"loss": 1.25}}))
    assert models[3].reason == "no finished runs of MoD"
    models = figure3(runs({**PAIR, "Baseline": {"loss": 1.2, "at": 1e7}}))
    assert sizes(models) == [None] * 4
    assert "at an end of its sizes" in models[0].reason
    table = pd.concat([runs(PAIR), runs(PAIR, budget=2e13)])
    with pytest.raises(ValueError, match="name one of them"):
        figure3(table)
    assert figure4(table, budget_flops=2e13)[0].model.budget_flops == 2e13
