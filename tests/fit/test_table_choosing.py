"""Rows that a user asks for, units that are asked about, and repeats that are none."""

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import run_table

SIZES = 1e8 * 1.6 ** np.arange(6)


def grid(**settings: list[object]) -> pd.DataFrame:
    """Return a run for each size, number of tokens and combination of settings, with loss."""
    axes = {"parameters": SIZES.tolist(), "tokens": [2e9, 8e9, 32e9], **settings}
    rows = pd.MultiIndex.from_product(list(axes.values()), names=list(axes)).to_frame(index=False)
    n, d = rows["parameters"], rows["tokens"]
    return rows.assign(loss=1.8 + 480 / n**0.35 + 2100 / d**0.37)


def noisy(rows: pd.DataFrame, scale: float, added: object = 0.0) -> pd.DataFrame:
    noise = scale * np.random.default_rng(0).normal(size=len(rows))
    return rows.assign(loss=rows["loss"] + added + noise)


@pytest.mark.parametrize(
    ("conditions", "rows"),
    [
        (("kind=web", "kind = WEB", "kind!=web", "lr<0.003", "lr>=0.003"), 2),
        (("lr=0.001", "lr=1e-3", "lr>0.003", "a=b=1", "eval step==3"), 1),
        (("lr<=0.003", "lr>=0.002"), 3),
    ],
)
def test_rows_are_chosen_by_condition(conditions: tuple[str, ...], rows: int) -> None:
    table = grid()[:4].assign(
        kind=["web", "Web", "code", "code"],
        lr=["0.001", "0.002", "0.003", "1e-2"],
        **{"a=b": [1, 2, 3, 4], "eval step": [1, 2, 3, 4]},
    )
    for condition in conditions:
        (left,) = run_table(table, where=[condition]).left_out
        assert (left.reason, left.rows) == (f"not {condition}", 4 - rows)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("tokens=7", "no row of the table has tokens=7; tokens holds 2"),
        ("kind=web", "has no column 'kind' for --where"),
        ("tokens", "expected COLUMN=VALUE"),
        ("tokens<x", "expected a number after <"),
    ],
)
def test_a_condition_that_is_none_is_refused(condition: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run_table(grid(), where=[condition])


def history(**settings: list[object]) -> pd.DataFrame:
    """Return four rows along each run; tokens, compute and the rate go with the step."""
    rows = grid(**settings, step=[100, 200, 300, 400])
    rows = rows.drop_duplicates(["parameters", *settings, "step"])
    steps = rows["step"]
    rows = rows.assign(
        tokens=steps * 1e7,
        flops=6e7 * rows["parameters"] * steps,
        lr=1e-3 * (1 - steps / 500),
        grad_norm=np.random.default_rng(0).uniform(0.1, 1, len(rows)).round(3),
        loss=1.8 + 480 / rows["parameters"] ** 0.35 + 2100 / (steps * 1e7) ** 0.37,
    )
    return rows.sample(frac=1, random_state=0)


def named(prefix: str, column: str = "run_id") -> pd.DataFrame:
    """Return rows along runs that a column names by their sizes."""
    return history().assign(**{column: lambda rows: prefix + rows["parameters"].astype(str)})


TWO = [named("a", "Name"), named("b", "Name").eval("tokens = 7 * tokens")]
TWO_NAMES = pd.concat(TWO, ignore_index=True).drop(columns=["flops", "lr", "grad_norm"])


@pytest.mark.parametrize(
    ("rows", "kept", "told"),
    [
        (history(), {4e9: 6}, "6 runs, told apart by parameters."),
        # Settings tell runs apart, and what goes with the step does not.
        (history(batch=[1, 2], peak=[1e-3, 3e-3]), {4e9: 6}, "24 runs, told apart by parameters,"),
        # Runs end where they end, and a row without a loss is not the last.
        (history(seed=[0, 1]).query("seed == 0 or step <= 300"), {4e9: 6, 3e9: 6}, "12 runs"),
        (history().assign(loss=lambda t: t["loss"].where(t["step"] < 400)), {3e9: 6}, "6 runs"),
        (TWO_NAMES.assign(loss=3.0 + TWO_NAMES.index / 100), {4e9: 6, 28e9: 6}, "parameters, run."),
    ],
)
def test_the_last_row_of_each_run_is_kept(
    rows: pd.DataFrame, kept: dict[float, int], told: str
) -> None:
    runs = run_table(rows, last_of="step")
    assert runs.table["tokens"].value_counts().to_dict() == kept
    assert any(told in note for note in runs.notes)
    assert "it is not the last of its run by step" in {one.reason for one in runs.left_out}


def searched(best: float, **settings: list[object]) -> pd.DataFrame:
    """Return a grid whose loss rises away from a rate, and from a weight decay of 0.1."""
    rows = grid(lr=[1, 2, 3], **settings)
    rows["loss"] += (rows["lr"] - best).abs() / 10 + (rows.get("wd", 0.1) - 0.1) ** 2
    return rows


def test_the_best_of_a_setting_is_that_of_its_mean_over_seeds() -> None:
    rows = searched(2, seed=[0, 1])
    rows.loc[(rows["lr"] == 3) & (rows["seed"] == 0), "loss"] -= 0.15
    runs = run_table(rows, best_of=["lr"])
    np.testing.assert_allclose(runs.table["loss"], np.repeat(grid()["loss"], 2))
    assert not runs.warnings


def test_a_best_at_the_edge_is_warned_of_and_settings_are_searched_together() -> None:
    (warning,) = run_table(searched(1), best_of=["lr"]).warnings
    assert "the lowest or the highest tried in 18 of them" in warning
    rows = searched(2, wd=[0.0, 0.1, 0.2])
    runs = run_table(rows, best_of=["lr", "wd"])
    assert len(runs.table) == 18
    assert any("The best lr and wd of 9 tried" in note for note in runs.notes)
    with pytest.raises(ValueError, match="has no column 'rate' for --best-of"):
        run_table(rows, best_of=["rate"])


@pytest.mark.parametrize(
    ("factors", "told"),
    [
        ({"parameters": 1e-6}, '"parameters=parameters*1e6"'),
        ({"tokens": 1e-6}, '"tokens=tokens*1e6"'),
        ({"budget_flops": 1e-9}, '"budget_flops=budget_flops*1e9"'),
        ({"budget_flops": 1 / 8.64e19}, '"budget_flops=budget_flops*8.64e19"'),
        ({"parameters": 1e-6, "tokens": 1e-9}, '"parameters=parameters*1e6" "tokens=tokens*1e9"'),
    ],
)
@pytest.mark.parametrize("dropped", ["none", "tokens", "budget_flops"])
def test_other_units_are_asked_about_with_their_factor(
    factors: dict[str, float], told: str, dropped: str
) -> None:
    rows = grid().eval("budget_flops = 6 * parameters * tokens")
    rows = rows.assign(**{name: rows[name] * factor for name, factor in factors.items()})
    rows = rows.drop(columns=dropped, errors="ignore")
    if not factors.keys() <= set(rows):
        return
    with pytest.raises(ValueError) as error:
        run_table(rows)
    assert told in str(error.value)
    corrected = {name: f"{name}*{1 / factor:.3g}" for name, factor in factors.items()}
    table = run_table(rows, columns=corrected).table
    np.testing.assert_allclose(table["parameters"], grid()["parameters"], rtol=2e-3)


@pytest.mark.parametrize("ratio", [0.1, 3, 30])
def test_other_conventions_of_compute_and_tiny_models_are_taken(ratio: float) -> None:
    rows = grid().eval(f"budget_flops = {6 * ratio} * parameters * tokens")
    assert len(run_table(rows).table) == 18
    tiny = grid().eval("parameters = parameters / 1e6")
    assert len(run_table(tiny, columns={"parameters": "parameters*1"}).table) == 18


def doubled(other: pd.Series, scale: float) -> pd.DataFrame:
    """Return a grid with runs of another condition that no column tells apart."""
    both = pd.concat([GRID, GRID.loc[other.index].assign(loss=other)], ignore_index=True)
    return noisy(both, scale)


GRID = grid()
LOSS = GRID["loss"]
BATCHES = grid(batch=[256, 512], wd=[0.0, 0.1], seed=[0, 1])
RATES = grid(lr=[1.0, 2.0, 4.0, 8.0])
SHIFTED = np.log(RATES["lr"] / (2.0 + np.log(RATES["parameters"] / SIZES[0])))
MEASURED = noisy(grid(seed=[0, 1, 2]), 0.01).assign(
    train_loss=lambda t: t["loss"].round(1), accuracy=lambda t: (10 / t["loss"]).round(0)
)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (noisy(BATCHES, 0.003, 0.03 * (BATCHES["batch"] == 512)), "or --where batch=256"),
        # A setting whose best shifts with size.
        (noisy(RATES, 0.002, 0.05 * SHIFTED**2), "differ in lr"),
        (MEASURED, ""),
        # Steps of one run are no seeds, and rows along runs no finished ones.
        (history().assign(tokens=4e9).drop(columns=["flops", "lr"]), "--last-of step keeps"),
        (named("r"), "--last-of step keeps the last row of each"),
        (named("r", "name"), ""),
        # Names that share a size are those of runs.
        (TWO_NAMES, 'Runs by "Name" have up to 4 rows'),
        # Two conditions are noticed where several cells are far apart.
        (doubled(LOSS - 0.1, 0.006), "in 18 of 18 such cells"),
        (doubled(LOSS[:3] * 1.3, 0.003), "in 3 of 3 such cells"),
        (doubled(LOSS + 0.01, 0.002), ""),
        (GRID.assign(loss=np.exp(LOSS)), "is a perplexity, say --columns 'loss=log(loss)'."),
        (GRID, ""),
    ],
)
def test_repeats_that_are_none_are_told(rows: pd.DataFrame, told: str) -> None:
    warnings = run_table(rows).warnings
    assert bool(warnings) == bool(told)
    assert all(told in one for one in warnings[:1])


@pytest.mark.parametrize("scale", [0.002, 0.05])
def test_seeds_of_any_noise_raise_no_alarm(scale: float) -> None:
    for trial in range(6):
        draw = np.random.default_rng(trial)
        rows = grid(repeat=[0, 1, 2], node=["a", "b"])
        noise = scale * draw.normal(size=len(rows))
        rows["loss"] += noise * (SIZES[0] / rows["parameters"]) ** 0.3
        rows["batch"] = draw.choice([256, 512], len(rows))
        assert run_table(rows).warnings == (), trial
