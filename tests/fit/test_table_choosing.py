"""Rows that a user asks for, units that are asked about, and repeats that are none."""

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import run_table

RNG = np.random.default_rng(0)
SIZES = 1e8 * 1.6 ** np.arange(6)


def grid(**settings: list[object]) -> pd.DataFrame:
    """Return a run for each size, number of tokens and combination of settings, with loss."""
    axes = {"parameters": SIZES.tolist(), "tokens": [2e9, 8e9, 32e9], **settings}
    rows = pd.MultiIndex.from_product(list(axes.values()), names=list(axes)).to_frame(index=False)
    n, d = rows["parameters"], rows["tokens"]
    return rows.assign(loss=1.8 + 480 / n**0.35 + 2100 / d**0.37)


def noise(rows: pd.DataFrame, scale: float, seed: int = 0) -> pd.Series:
    return pd.Series(scale * np.random.default_rng(seed).normal(size=len(rows)))


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("kind=web", 2),
        ("kind = WEB", 2),
        ("kind!=web", 2),
        ("lr=0.001", 1),
        ("lr=1e-3", 1),
        ("lr<0.003", 2),
        ("lr<=0.003", 3),
        ("lr>0.002", 2),
        ("lr>=0.002", 3),
        ("a=b=1", 1),
        ("eval step==3", 1),
    ],
)
def test_rows_are_chosen_by_condition(condition: str, rows: int) -> None:
    table = pd.DataFrame(
        {
            "loss": [3.0, 2.9, 2.8, 2.7],
            "parameters": SIZES[:4],
            "tokens": 1e9,
            "kind": ["web", "Web", "code", "code"],
            "lr": ["0.001", "0.002", "0.003", "1e-2"],
            "a=b": [1, 2, 3, 4],
            "eval step": [1, 2, 3, 4],
        }
    )
    runs = run_table(table, where=[condition])
    assert len(runs.table) == rows
    (left,) = runs.left_out
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
    rows = (
        grid(**settings, step=[100, 200, 300, 400])
        .drop(columns="tokens")
        .drop_duplicates(["parameters", *settings, "step"])
    )
    rows["tokens"] = rows["step"] * 1e7
    rows["flops"] = 6 * rows["parameters"] * rows["tokens"]
    rows["lr"] = 1e-3 * (1 - rows["step"] / 500)
    rows["grad_norm"] = np.round(RNG.uniform(0.1, 1, len(rows)), 3)
    rows["loss"] = 1.8 + 480 / rows["parameters"] ** 0.35 + 2100 / rows["tokens"] ** 0.37
    return rows.sample(frac=1, random_state=0)


def test_the_last_row_of_each_run_is_kept() -> None:
    runs = run_table(history(), last_of="step")
    assert len(runs.table) == 6
    assert set(runs.table["tokens"]) == {4e9}
    assert runs.left_out[0].reason == "it is not the last of its run by step"


def test_settings_tell_runs_apart_and_what_goes_with_the_step_does_not() -> None:
    rows = history(batch=[1, 2], peak=[1e-3, 3e-3])
    runs = run_table(rows, last_of="step")
    assert len(runs.table.drop_duplicates()) == len(runs.table)
    note = next(one for one in runs.notes if "told apart by" in one)
    assert note.endswith("24 runs, told apart by parameters, batch, peak.")


def test_runs_end_where_they_end() -> None:
    rows = history(seed=[0, 1])
    rows = rows[~((rows["seed"] == 1) & (rows["step"] > 300))]
    table = run_table(rows, last_of="step").table
    assert table.groupby("seed")["tokens"].unique().map(list).to_dict() == {0: [4e9], 1: [3e9]}


def test_runs_are_told_apart_by_their_names() -> None:
    rows = pd.concat(
        [history().assign(run=f"r{i}", loss=lambda t, i=i: t["loss"] + i / 100) for i in range(2)]
    ).drop(columns=["lr", "grad_norm"])
    rows["run"] += rows["parameters"].map(str)
    table = run_table(rows, last_of="step").table
    assert len(table) == 12


def test_a_row_without_a_loss_is_not_the_last() -> None:
    rows = history()
    rows.loc[rows["step"] == 400, "loss"] = np.nan
    assert set(run_table(rows, last_of="step").table["tokens"]) == {3e9}


def test_the_best_of_a_setting_is_that_of_its_mean_over_seeds() -> None:
    rows = grid(lr=[1, 2, 3], seed=[0, 1])
    rows["loss"] += (rows["lr"] - 2).abs() / 10
    lucky = (rows["lr"] == 3) & (rows["seed"] == 0)
    rows.loc[lucky, "loss"] -= 0.15
    runs = run_table(rows, best_of=["lr"])
    assert len(runs.table) == 36
    np.testing.assert_allclose(
        runs.table["loss"],
        1.8 + 480 / runs.table["parameters"] ** 0.35 + 2100 / runs.table["tokens"] ** 0.37,
    )
    assert not runs.warnings


def test_a_best_at_the_edge_is_warned_of() -> None:
    rows = grid(lr=[1, 2, 3])
    rows["loss"] += (rows["lr"] - 1) / 10
    (warning,) = run_table(rows, best_of=["lr"]).warnings
    assert "the lowest or the highest tried in 18 of them" in warning


def test_two_settings_are_searched_together() -> None:
    rows = grid(lr=[1, 2, 3], wd=[0.0, 0.1, 0.2])
    rows["loss"] += (rows["lr"] - 2).abs() / 10 + (rows["wd"] - 0.1).abs()
    runs = run_table(rows, best_of=["lr", "wd"])
    assert len(runs.table) == 18
    assert any("The best lr and wd of 9 tried" in note for note in runs.notes)
    with pytest.raises(ValueError, match="has no column 'rate' for --best-of"):
        run_table(rows, best_of=["rate"])


@pytest.mark.parametrize(
    ("factors", "told"),
    [
        ({"parameters": 1e-6}, '"parameters=parameters*1e6"'),
        ({"parameters": 1e-9}, '"parameters=parameters*1e9"'),
        ({"tokens": 1e-9}, '"tokens=tokens*1e9"'),
        ({"tokens": 1e-6}, '"tokens=tokens*1e6"'),
        ({"budget_flops": 1e-9}, '"budget_flops=budget_flops\\*1e9".*GFLOPs'),
        ({"budget_flops": 1e-18}, '"budget_flops=budget_flops\\*1e18"'),
        ({"budget_flops": 1 / 8.64e19}, '"budget_flops=budget_flops\\*8.64e19".*PFLOP/s-days'),
        ({"parameters": 1e-6, "tokens": 1e-9}, '"parameters=.*1e6" "tokens=tokens\\*1e9"'),
    ],
)
@pytest.mark.parametrize("dropped", [None, "tokens", "budget_flops"])
def test_other_units_are_asked_about_with_their_factor(
    factors: dict[str, float], told: str, dropped: str | None
) -> None:
    rows = grid()
    rows["budget_flops"] = 6 * rows["parameters"] * rows["tokens"]
    rows = rows.assign(**{name: rows[name] * factor for name, factor in factors.items()})
    if dropped in factors:
        return
    with pytest.raises(ValueError, match=told.replace("s*1", r"s\*1")) as error:
        run_table(rows if dropped is None else rows.drop(columns=dropped))
    assert "\n" not in str(error.value)
    corrected = {name: f"{name}*{1 / factor:.3g}" for name, factor in factors.items()}
    kept = rows if dropped is None else rows.drop(columns=dropped)
    table = run_table(kept, columns=corrected).table
    np.testing.assert_allclose(table["parameters"], grid()["parameters"], rtol=2e-3)


def test_what_an_expression_says_is_taken() -> None:
    tiny = grid().assign(parameters=lambda t: t["parameters"] / 1e6)
    assert len(run_table(tiny, columns={"parameters": "parameters*1"}).table) == 18


@pytest.mark.parametrize("ratio", [0.1, 0.5, 3, 30])
def test_compute_by_other_conventions_is_taken(ratio: float) -> None:
    rows = grid()
    rows["budget_flops"] = ratio * 6 * rows["parameters"] * rows["tokens"]
    assert len(run_table(rows).table) == 18


def test_seeds_of_any_noise_raise_no_alarm() -> None:
    for trial in range(6):
        for scale in (0.002, 0.05):
            rows = grid(repeat=[0, 1, 2], node=["a", "b"])
            rows["loss"] += noise(rows, scale, trial) * (SIZES[0] / rows["parameters"]) ** 0.3
            rows["batch"] = np.random.default_rng(trial).choice([256, 512], len(rows))
            assert run_table(rows).warnings == (), (trial, scale)


def test_a_setting_that_moves_the_loss_is_named() -> None:
    rows = grid(batch=[256, 512], wd=[0.0, 0.1], seed=[0, 1])
    rows["loss"] += (rows["batch"] == 512) * 0.03 + noise(rows, 0.003)
    (warning,) = run_table(rows).warnings
    assert "differ in batch (256, 512)" in warning
    assert "--best-of batch" in warning


def test_a_setting_whose_best_shifts_with_size_is_named() -> None:
    rows = grid(lr=[1.0, 2.0, 4.0, 8.0])
    best = 2.0 + np.log(rows["parameters"] / SIZES[0])
    rows["loss"] += 0.05 * np.log(rows["lr"] / best) ** 2 + noise(rows, 0.002)
    assert any("lr" in one for one in run_table(rows).warnings)


def test_what_is_measured_is_not_accused() -> None:
    rows = grid(seed=[0, 1, 2])
    rows["loss"] += noise(rows, 0.01)
    rows["train_loss"] = rows["loss"].round(1)
    rows["accuracy"] = (10 / rows["loss"]).round(0)
    rows["bpb"] = rows["loss"] / 0.7
    rows["runtime"] = rows["loss"] * 100
    assert run_table(rows).warnings == ()


def test_steps_of_one_run_are_no_seeds() -> None:
    rows = history().assign(tokens=4e9).drop(columns=["flops", "lr", "grad_norm"])
    assert any("--last-of step keeps" in one for one in run_table(rows).warnings)


def test_two_conditions_that_no_column_tells_apart_are_noticed_by_their_even_difference() -> None:
    rows = grid()
    both = pd.concat([rows, rows.assign(loss=rows["loss"] - 0.1)], ignore_index=True)
    both["loss"] += noise(both, 0.006)
    (warning,) = run_table(both).warnings
    assert "in 18 of 18 such cells" in warning


def test_some_cells_with_two_conditions_are_noticed() -> None:
    rows = grid()
    rows["loss"] += noise(rows, 0.003)
    other = rows.iloc[:3].assign(loss=lambda t: t["loss"] * 1.3)
    (warning,) = run_table(pd.concat([rows, other])).warnings
    assert "in 3 of 3 such cells" in warning


def test_perplexities_in_a_column_of_losses_are_asked_about() -> None:
    rows = grid()
    (told,) = run_table(rows.assign(loss=np.exp(rows["loss"]))).warnings
    assert told.endswith("if it is a perplexity, say --columns 'loss=log(loss)'.")
    assert run_table(rows).warnings == ()
    named = rows.assign(loss=np.exp(rows["loss"]))
    assert run_table(named, columns={"loss": "log(loss)"}).warnings == ()


@pytest.mark.parametrize(("column", "warned"), [("run_id", True), ("name", False)])
def test_rows_along_runs_are_told(column: str, warned: bool) -> None:
    rows = history()
    rows[column] = "r" + rows["parameters"].astype(str)
    told = run_table(rows).warnings
    assert len(told) == warned
    assert all("--last-of step keeps the last row of each" in one for one in told)
    assert run_table(rows, last_of="step").warnings == ()


@pytest.mark.parametrize(("apart", "cells", "warned"), [(0.05, 18, 1), (0.05, 9, 0), (0.01, 18, 0)])
def test_two_conditions_without_a_name_are_told_where_all_cells_differ_alike(
    apart: float, cells: int, warned: int
) -> None:
    rows = grid().iloc[:cells]
    other = rows.assign(loss=rows["loss"] + apart)
    both = pd.concat([rows, other], ignore_index=True)
    both["loss"] += noise(both, 0.002)
    assert len(run_table(both).warnings) == warned


def test_a_table_of_names_alone_has_no_rows():
    with pytest.raises(ValueError, match="has no rows; expected a row for each run"):
        run_table(pd.DataFrame({"N": [], "D": [], "loss": []}))
