"""Columns are known by the names and units that people give them."""

import pandas as pd
import pytest

from isoflop.fit import run_table
from isoflop.fit.tables.names import known

GOOD = pd.DataFrame(
    {"loss": [3.0, 2.9, 2.95], "parameters": [1e6, 2e6, 4e6], "tokens": [4e7, 2e7, 1e7]}
)


@pytest.mark.parametrize(
    ("header", "name", "factor"),
    [
        ("Final loss", "loss", 1),
        ("eval/loss", "loss", 1),
        ("validation/loss", "loss", 1),
        ("test/loss", "loss", 1),
        ("loss/val", "loss", 1),
        ("summary.eval/loss", "loss", 1),
        ("metrics.eval/loss", "loss", 1),
        ("valLoss", "loss", 1),
        ("val_loss (nats)", "loss", 1),
        ("Loss [nats/token]", "loss", 1),
        ("total_params", "parameters", 1),
        ("num_parameters", "parameters", 1),
        ("model_params", "parameters", 1),
        ("config.n_params", "parameters", 1),
        ("nParams", "parameters", 1),
        ("#params", "parameters", 1),
        ("N", "parameters", 1),
        ("N (M)", "parameters", 1e6),
        ("params (M)", "parameters", 1e6),
        ("Params [M]", "parameters", 1e6),
        ("params_m", "parameters", 1e6),
        ("ParamsM", "parameters", 1e6),
        ("params in millions", "parameters", 1e6),
        ("params_millions", "parameters", 1e6),
        ("Model size, B", "parameters", 1e9),
        ("parameters (×10^6)", "parameters", 1e6),
        ("tokens_seen", "tokens", 1),
        ("train/tokens", "tokens", 1),
        ("num_input_tokens_seen", "tokens", 1),
        ("D", "tokens", 1),
        ("tokens (B)", "tokens", 1e9),
        ("tokens_b", "tokens", 1e9),
        ("Tokens (billions)", "tokens", 1e9),
        ("compute_budget", "budget_flops", 1),
        ("train/total_flos", "budget_flops", 1),
        ("C", "budget_flops", 1),
        ("FLOPs", "budget_flops", 1),
        ("flops_e18", "budget_flops", 1e18),
        ("FLOPs (1e18)", "budget_flops", 1e18),
        ("compute (GFLOPs)", "budget_flops", 1e9),
        ("gflops", "budget_flops", 1e9),
        ("total EFLOPs", "budget_flops", 1e18),
        ("compute (PFLOP/s-days)", "budget_flops", 1e15 * 86400),
        ("compute_pflop_s_days", "budget_flops", 1e15 * 86400),
        ("compute (PF-days)", "budget_flops", 1e15 * 86400),
        ("random_seed", "seed", 1),
        ("State", "state", 1),
        ("eval_results.eval_loss", "loss", 1),
        ("model.num_parameters", "parameters", 1),
        ("train_results.num_input_tokens_seen", "tokens", 1),
        ("Paramètres", "parameters", 1),
        ("Parameter (Mio.)", "parameters", 1e6),
        ("Token (Mrd.)", "tokens", 1e9),
    ],
)
def test_a_name_tells_the_column_and_its_unit(header: str, name: str, factor: float) -> None:
    found = {one.name: one for one in known(header)}
    assert name in found
    inside = found[name].unit
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
    rows = pd.DataFrame({"params (M)": [1, 2], "tokens (B)": [0.04, 0.02], "loss": [3.0, 2.9]})
    runs = run_table(rows)
    assert runs.table["parameters"].tolist() == [1e6, 2e6]
    assert runs.table["tokens"].tolist() == [4e7, 2e7]
    assert 'parameters = "params (M)" in M' in runs.understood
    # A column that the user names has the unit of its header too; arithmetic on it has none.
    mapped = run_table(
        rows.rename(columns={"params (M)": "dense (M)"}), columns={"parameters": "dense (M)"}
    )
    assert mapped.table["parameters"].tolist() == [1e6, 2e6]
    times = run_table(rows, columns={"parameters": '"params (M)"*1e6'})
    assert times.table["parameters"].tolist() == [1e6, 2e6]


@pytest.mark.parametrize(
    ("names", "mapping"),
    [
        (("Model Size", "Training FLOP", "loss"), {}),
        (("N", "C", "Final Loss"), {}),
        (("n_params", "train_flops", "val_loss"), {}),
        (
            ("how big", "how dear", "how bad"),
            {"parameters": "how big", "budget_flops": "how dear", "loss": "how bad"},
        ),
    ],
)
def test_columns_are_found_by_their_names(
    names: tuple[str, str, str], mapping: dict[str, str]
) -> None:
    rows = pd.DataFrame({names[0]: [1e6, 2e6], names[1]: [1e15, 1e15], names[2]: [3.0, 2.9]})
    table = run_table(rows, columns=mapping).table
    assert table["parameters"].tolist() == [1e6, 2e6]
    assert table["loss"].tolist() == [3.0, 2.9]


def test_an_ambiguous_column_must_be_named() -> None:
    rows = GOOD.drop(columns="loss").assign(test_loss=3.0, val_loss=3.1)
    with pytest.raises(ValueError, match=r"'test_loss', 'val_loss'.*--columns"):
        run_table(rows)
    assert run_table(rows, columns={"loss": "val_loss"}).table["loss"].iloc[0] == 3.1


def test_columns_that_hold_the_same_are_not_asked_about() -> None:
    rows = GOOD.assign(n_params=GOOD["parameters"], num_params=GOOD["parameters"])
    assert run_table(rows.drop(columns="parameters")).table["parameters"].tolist() == [
        1e6,
        2e6,
        4e6,
    ]


def test_total_parameters_go_before_others_which_stand_in_where_there_are_none() -> None:
    rows = GOOD.rename(columns={"parameters": "total_params"})
    both = run_table(rows.assign(non_embedding_params=[8e5, 1e6, 3e6])).table
    assert both["parameters"].tolist() == [1e6, 2e6, 4e6]
    assert both["non_embedding"].tolist() == [8e5, 1e6, 3e6]
    alone = run_table(GOOD.rename(columns={"parameters": "non_embedding_params"}))
    assert alone.table["parameters"].tolist() == [1e6, 2e6, 4e6]
    assert 'parameters = "non_embedding_params"' in alone.understood


def test_a_held_out_loss_goes_before_the_training_loss() -> None:
    rows = GOOD.rename(columns={"loss": "val_loss"}).assign(train_loss=1.0)
    assert run_table(rows).table["loss"].tolist() == [3.0, 2.9, 2.95]
    assert run_table(rows.drop(columns="val_loss")).table["loss"].tolist() == [1.0] * 3


def test_a_name_without_numbers_is_no_size() -> None:
    rows = GOOD.rename(columns={"parameters": "n_params"}).assign(model_size="small")
    assert run_table(rows).table["parameters"].tolist() == [1e6, 2e6, 4e6]


def test_a_budget_by_name_is_none_where_size_and_tokens_tell_it() -> None:
    runs = run_table(GOOD.assign(budget=["small", "small", "large"]))
    assert runs.table["budget_flops"].tolist() == [2.4e14] * 3
    with pytest.raises(ValueError, match="budget_flops is missing or no number"):
        run_table(GOOD.drop(columns="tokens").assign(budget=["small", "small", "large"]))


def test_a_name_alone_goes_before_the_same_in_something() -> None:
    runs = run_table(GOOD.assign(**{"teacher.parameters": [9e6, 9e6, 9e6]}))
    assert runs.table["parameters"].tolist() == [1e6, 2e6, 4e6]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            ("dense_params", "step", "batch_tokens", "val_ppl"),
            "loss=log(val_ppl) parameters=dense_params tokens=step*batch_tokens",
        ),
        (("params", "steps", "batch_size", "seq_len", "loss"), "tokens=steps*batch_size*seq_len"),
        (("params", "tokens_per_param", "loss"), "tokens=params*tokens_per_param"),
        (
            ("log10_params", "log10_tokens", "val_bpb"),
            "loss=val_bpb parameters=10^log10_params tokens=10^log10_tokens",
        ),
        (("params", "tokens", "train.lm_loss", "c4.loss"), 'loss="c4.loss"'),
    ],
)
def test_what_could_be_mapped_is_named(columns: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError) as error:
        run_table(pd.DataFrame({name: [20.0] for name in columns}))
    assert str(error.value).endswith(f"such as {told}")


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ("finished", True),
        ("FINISHED", True),
        ("Completed", True),
        ("success", True),
        ("SUCCEEDED", True),
        ("done", True),
        ("FAILED", False),
        ("crashed", False),
        ("running", False),
        ("OUT_OF_MEMORY", False),
        ("CANCELLED", False),
        ("", False),
        ("phase 2", False),
    ],
)
def test_states_are_known_by_many_words(state: str, counts: bool) -> None:
    runs = run_table(GOOD.assign(state=["finished", "finished", state]))
    assert len(runs.table) == 2 + counts
    assert all(one.value == state for one in runs.left_out)


def test_states_of_which_none_is_known_are_named() -> None:
    with pytest.raises(ValueError, match=r'"status" holds \'phase 1\', \'phase 2\'.*state=COLUMN'):
        run_table(GOOD.assign(status=["phase 1", "phase 2", "phase 1"]))
