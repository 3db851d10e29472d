import math

import pytest

from isoflop.papers.mod import mod_figures


def test_figure3_minima_and_order() -> None:
    figure = mod_figures().figure3
    minima = {m.variant: m for m in figure.minima}
    assert figure.budget_flops == 6e18
    assert minima["baseline"].loss == 3.14
    assert minima["baseline"].parameters == pytest.approx(250e6)
    assert minima["mod_12.5_every_2"].parameters == pytest.approx(math.sqrt(300e6 * 400e6))
    assert minima["mod_50_random_every_2"].parameters is None
    losses = [minima[name].loss for name in figure.order if name in minima]
    assert losses == sorted(losses)


def test_figure3_models_have_the_published_flop_ratios() -> None:
    one, two, three, four = mod_figures().figure3.models
    assert [m.number for m in (one, two, three, four)] == [1, 2, 3, 4]
    assert three.flops_per_step / one.flops_per_step == pytest.approx(0.655, abs=1e-3)
    assert four.flops_per_step / two.flops_per_step == pytest.approx(0.643, abs=1e-3)
    assert three.steps_per_second > one.steps_per_second


def test_figure4_has_three_budgets_and_mod_is_lower_and_larger_at_each() -> None:
    figure = mod_figures().figure4
    budgets = sorted({m.budget_flops for m in figure.minima})
    assert budgets == [6e18, 2e19, 1e20]
    for budget in budgets:
        at = {m.variant: m for m in figure.minima if m.budget_flops == budget}
        assert at["mod"].loss < at["baseline"].loss
        assert (at["mod"].parameters or 0) > (at["baseline"].parameters or 0)
    assert {p.name: (p.forward_flops, p.loss) for p in figure.points} == {
        "optimal_baseline": (1.0, 1.0),
        "optimal_mod": (1.0, 0.988),
        "matching_mod": (0.4, 1.0),
    }
