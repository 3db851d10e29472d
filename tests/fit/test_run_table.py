"""Tables as people name and keep them become runs, or say in one line why not."""

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import run_table
from isoflop.fit.tables.frame import COLUMNS, group_budgets
from isoflop.fit.tables.names import known

GOOD = pd.DataFrame(
    {"loss": [3.0, 2.9, 2.95], "parameters": [1e6, 2e6, 4e6], "tokens": [4e7, 2e7, 1e7]}
)


def test_the_third_of_size_tokens_and_compute_follows() -> None:
    runs = run_table(GOOD)
    assert list(runs.table) == [*COLUMNS, "training_flops"]
    np.testing.assert_allclose(runs.table["budget_flops"], 6 * 4e13)
    assert "budget_flops = 6 N D" in runs.understood
    compute = GOOD.drop(columns="tokens").assign(budget_flops=2.4e14)
    np.testing.assert_allclose(run_table(compute).table["tokens"], GOOD["tokens"])
    sizes = GOOD.drop(columns="parameters").assign(budget_flops=2.4e14)
    np.testing.assert_allclose(run_table(sizes).table["parameters"], GOOD["parameters"])
    every = run_table(GOOD.assign(budget_flops=7e14))
    np.testing.assert_allclose(every.table["budget_flops"], 7e14)
    assert every.notes == ()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GOOD.drop(columns="loss"), "expected loss and two of"),
        (GOOD.drop(columns="tokens"), "expected loss and two of"),
        (GOOD.iloc[:0], "has no rows; expected a row for each run"),
        (GOOD.assign(loss=-1.0), "loss is no number that a run has"),
    ],
)
def test_a_table_without_runs_says_what_was_expected(rows: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_table(rows)


def test_rows_that_are_no_runs_are_left_out_and_counted() -> None:
    bad = pd.DataFrame(
        {
            "loss": [None, "diverged", np.inf, -2.0, 3.0, 3.0, 0.0],
            "parameters": [1e6, 1e6, 1e6, 1e6, 0.0, 1e6, 1e6],
            "tokens": [1e7, 1e7, 1e7, 1e7, 1e7, np.nan, 1e7],
        }
    )
    runs = run_table(pd.concat([GOOD, bad, GOOD], ignore_index=True))
    assert len(runs.table) == 3
    told = {one.reason: (one.rows, one.first) for one in runs.left_out}
    assert told == {
        "loss is no number that a run has": (5, 4),
        "parameters is no number that a run has": (1, 8),
        "tokens is no number that a run has": (1, 9),
        "the row is a copy of an earlier one": (3, 11),
    }


def test_seeds_of_equal_loss_are_no_copies_and_runs_without_a_seed_share_none() -> None:
    twice = pd.concat([GOOD, GOOD]).assign(seed=[0, 0, 0, 1, 1, 1])
    assert len(run_table(twice).table) == 6
    assert run_table(GOOD).table["seed"].nunique() == 3
    assert run_table(GOOD.assign(seed=[0.0, None, None])).table["seed"].nunique() == 3


def test_budgets_that_nearly_agree_are_one() -> None:
    flops = np.array([1.09e15, 1e15, 0.93e15, 3e15, 1e19])
    groups, farthest = group_budgets(flops, 0.1)
    middle = np.sqrt(0.93 * 1.09) * 1e15
    assert groups.tolist() == pytest.approx([middle, middle, middle, 3e15, 1e19])
    assert farthest == pytest.approx(np.sqrt(1.09 / 0.93) - 1)
    assert len(np.unique(group_budgets(flops, 0.01)[0])) == 5
    assert group_budgets(np.full(5, 3.3e21))[1] == 0


def test_clusters_come_from_a_column_and_a_missing_one_is_its_own() -> None:
    rows = GOOD.assign(lab=["a", "a", None])
    table = run_table(rows, cluster="lab").table
    assert table["cluster"].tolist() == ["a", "a", "row 3"]
    with pytest.raises(ValueError, match="has no column 'team'"):
        run_table(rows, cluster="team")


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("success", [True, False, None]),
        ("summary.success", ["1", "0", ""]),
        ("Finished", ["yes", "No", "yes"]),
        ("diverged", [False, True, False]),
        ("status", ["True", "false", "TRUE"]),
        *(("state", ["done", one, "done"]) for one in ("FAILED", "OUT_OF_MEMORY", "", "phase 2")),
    ],
)
def test_states_and_flags_tell_which_runs_have_finished(column: str, cells: list[object]) -> None:
    runs = run_table(GOOD.assign(**{column: pd.Series(cells, dtype=object)}))
    assert runs.table["loss"].tolist() == [3.0, 2.95]
    assert [(one.rows, one.first, one.value) for one in runs.left_out] == [(1, 2, str(cells[1]))]


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("success", ["0.5", "1", "0"]),
        ("success", [0, 0, 0]),
        ("success", ["", "", ""]),
        ("state", ["finished", "FINISHED", "Completed"]),
        ("state", ["success", "SUCCEEDED", "done"]),
    ],
)
def test_usual_words_and_what_may_be_no_flag_leave_no_run_out(
    column: str, cells: list[object]
) -> None:
    assert len(run_table(GOOD.assign(**{column: cells})).table) == 3


def test_other_states_are_named_and_said_by_a_condition() -> None:
    numbered = GOOD.assign(status=[0, 1, 0])
    with pytest.raises(ValueError, match=r"holds '0', '1'.*--where \"status=0\".*state=COLUMN"):
        run_table(numbered)
    assert len(run_table(numbered, where=["status=0"]).table) == 2


NAMES = {
    ("loss", 1): (
        "Final loss|eval/loss|validation/loss|test/loss|loss/val|summary.eval/loss|"
        "metrics.eval/loss|valLoss|val_loss (nats)|Loss [nats/token]|eval_results.eval_loss"
    ),
    ("parameters", 1): (
        "total_params|num_parameters|model_params|config.n_params|nParams|#params|N|"
        "model.num_parameters|Paramètres"
    ),
    ("parameters", 1e6): (
        "N (M)|params (M)|Params [M]|params_m|ParamsM|params in millions|params_millions|"
        "parameters (×10^6)|Parameter (Mio.)"
    ),
    ("parameters", 1e9): "Model size, B",
    ("tokens", 1): (
        "tokens_seen|train/tokens|num_input_tokens_seen|D|train_results.num_input_tokens_seen"
    ),
    ("tokens", 1e9): "tokens (B)|tokens_b|Tokens (billions)|Token (Mrd.)",
    ("budget_flops", 1): "compute_budget|train/total_flos|C|FLOPs",
    ("budget_flops", 1e18): "flops_e18|FLOPs (1e18)|total EFLOPs",
    ("budget_flops", 1e9): "compute (GFLOPs)|gflops",
    ("budget_flops", 1e15 * 86400): "compute (PFLOP/s-days)|compute_pflop_s_days|compute (PF-days)",
    ("seed", 1): "random_seed",
    ("state", 1): "State",
}
"""Headers by the column that they tell, and the factor of their unit."""


@pytest.mark.parametrize(
    ("header", "name", "factor"),
    [(header, *told) for told, headers in NAMES.items() for header in headers.split("|")],
)
def test_a_name_tells_the_column_and_its_unit(header: str, name: str, factor: float) -> None:
    inside = {one.name: one.unit for one in known(header)}[name]
    assert (1 if inside is None else inside.factor) == factor


@pytest.mark.parametrize(
    "header",
    [
        *("d_model", "n_layers", "lr", "peak_lr", "batch_tokens", "flops_per_step", "dense_params"),
        *("compute (TFLOP/s)", "loss_0_256", "top_k_loss", "tokens_per_step", "step", "wall time"),
        *("compute_exact", "compute_6nd", "learning_rate", "", "x" * 10_000),
        *("teacher.loss", "optimizer.n", "vocabulary.size"),
    ],
)
def test_other_names_are_not_guessed(header: str) -> None:
    wanted = {"loss", "parameters", "tokens", "budget_flops"}
    assert not wanted & {one.name for one in known(header)}


def test_units_of_the_header_are_used_and_said() -> None:
    rows = pd.DataFrame({"dense (M)": [1, 2], "tokens (B)": [0.04, 0.02], "loss": [3.0, 2.9]})
    # A column that the user names has the unit of its header too; arithmetic on it has none.
    for mapped in ("dense (M)", '"dense (M)"*1e6'):
        runs = run_table(rows, columns={"parameters": mapped})
        assert runs.table["parameters"].tolist() == [1e6, 2e6]
        assert runs.table["tokens"].tolist() == [4e7, 2e7]
        assert 'tokens = "tokens (B)" * 1e+09' in runs.understood


def test_an_ambiguous_column_must_be_named() -> None:
    rows = GOOD.drop(columns="loss").assign(test_loss=3.0, val_loss=3.1)
    with pytest.raises(ValueError, match=r"'test_loss', 'val_loss'.*--columns"):
        run_table(rows)
    assert run_table(rows, columns={"loss": "val_loss"}).table["loss"].iloc[0] == 3.1


RENAMED = GOOD.rename(columns={"parameters": "total_params", "loss": "val_loss"})
COMPUTE = {"parameters": "how big", "budget_flops": "how dear", "loss": "how bad"}


@pytest.mark.parametrize(
    ("rows", "mapping"),
    [
        (GOOD.assign(budget_flops=1e15).rename(columns=COMPUTE).drop(columns="tokens"), COMPUTE),
        # Columns that hold the same are not asked about.
        (GOOD.assign(n_params=GOOD["parameters"]).rename(columns={"parameters": "params"}), {}),
        # Totals and what is held out go before others, which stand in where there are none.
        (RENAMED.assign(non_embedding_params=[8e5, 1e6, 3e6], train_loss=1.0), {}),
        (RENAMED.rename(columns={"total_params": "non_embedding_params"}), {}),
        (RENAMED.rename(columns={"val_loss": "train_loss"}), {}),
        # A name without numbers is no size; a name alone goes before the same in something.
        (RENAMED.assign(model_size="small"), {}),
        (GOOD.assign(**{"teacher.parameters": [9e6, 9e6, 9e6]}), {}),
    ],
)
def test_columns_are_found_by_their_names(rows: pd.DataFrame, mapping: dict[str, str]) -> None:
    table = run_table(rows, columns=mapping).table
    assert table["parameters"].tolist() == GOOD["parameters"].tolist()
    assert table["loss"].tolist() == GOOD["loss"].tolist()
    own = rows["non_embedding_params"] if "non_embedding_params" in rows else table["loss"] * 0
    assert table["non_embedding"].fillna(0).tolist() == own.tolist()


def test_a_budget_by_name_is_none_where_size_and_tokens_tell_it() -> None:
    runs = run_table(GOOD.assign(budget=["small", "small", "large"]))
    assert runs.table["budget_flops"].tolist() == [2.4e14] * 3
    with pytest.raises(ValueError, match="budget_flops is no number that a run has"):
        run_table(GOOD.drop(columns="tokens").assign(budget=["small", "small", "large"]))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            ("dense_params", "step", "batch_tokens", "val_ppl"),
            "loss=log(val_ppl) parameters=dense_params tokens=step*batch_tokens",
        ),
        (("params", "tokens", "train.lm_loss", "c4.loss"), 'loss="c4.loss"'),
    ],
)
def test_what_could_be_mapped_is_named(columns: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError) as error:
        run_table(pd.DataFrame({name: [20.0] for name in columns}))
    assert str(error.value).endswith(f"such as {told}")
