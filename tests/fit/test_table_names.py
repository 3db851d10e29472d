"""Columns are known by the names and units that people give them."""

import pandas as pd
import pytest

from isoflop.fit import run_table
from isoflop.fit.tables.names import known

GOOD = pd.DataFrame(
    {"loss": [3.0, 2.9, 2.95], "parameters": [1e6, 2e6, 4e6], "tokens": [4e7, 2e7, 1e7]}
)
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
