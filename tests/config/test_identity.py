"""The run id: a name for what is studied, and for nothing else."""

import json
import random

import pytest
from pydantic import ValidationError

from isoflop.config import (
    ModelConfig,
    Recipe,
    RunConfig,
    Study,
    StudyRecipe,
    canonical,
    fingerprint,
)

RUN = {
    "model": {
        "vocabulary": 512,
        "width": 48,
        "blocks": 4,
        "heads": 6,
        "head_width": 16,
        "hidden": 128,
        "depth": {"kind": "top_k", "capacity": 0.125},
    },
    "data": {"corpus": "python", "tokenizer": "bpe:512"},
    "steps": 7,
    "sequences_per_step": 5,
    "budget_flops": 5e12,
}

CHANGES = {
    "model": {
        "vocabulary": 513,
        "width": 64,
        "blocks": 5,
        "heads": 3,
        "kv_heads": 2,
        "head_width": 14,
        "hidden": 144,
        "attention": {"kind": "block", "block_size": 64},
        "feed_forward": {"kind": "gelu"},
        "query_key_norm": True,
        "tied_embeddings": True,
        "rope_base": 500_000.0,
        "norm_epsilon": 1e-6,
    },
    "data": {
        "corpus": "sotu",
        "tokenizer": "bytes",
        "sequence_length": 128,
        "windows": "documents",
        "validation_fraction": 0.1,
        "test_fraction": 0.1,
        "split_seed": 1,
    },
    "recipe": {
        "learning_rate": 3e-3,
        "reference_width": 128,
        "reference_blocks": 8,
        "warmup_fraction": 0.1,
        "final_fraction": 0.1,
        "weight_decay": 0.0,
        "beta1": 0.8,
        "beta2": 0.99,
        "epsilon": 1e-9,
        "gradient_clip": 0.5,
        "router_rate": 2.0,
        "embedding_scale": 0.5,
        "router_scale": 0.01,
        "precision": "fp32",
    },
    "depth": {
        "capacity": 0.5,
        "every": 3,
        "blocks": [1],
        "gate": "sigmoid",
        "router_bce": 0.01,
        "kind": "random_k",
    },
    "run": {
        "steps": 8,
        "sequences_per_step": 6,
        "budget_flops": 6e12,
        "convention": "full",
        "seed": 1,
        "data_seed": 3,
        "evaluation_tokens": 1024,
        "positions": {"ranges": 4, "trailing": 16},
    },
}


def changed(table, key, value):
    run = json.loads(json.dumps(RUN))
    if key == "positions":
        run["data"]["windows"] = "documents"
    target = {"run": run, "depth": run["model"]["depth"]}.get(table)
    if target is None:
        target = run.setdefault(table, {})
    target[key] = value
    return RunConfig.model_validate(run)


def run_id(data):
    return RunConfig.model_validate(data).run_id


def shuffled(value, rng):
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {key: shuffled(item, rng) for key, item in items}
    return value


def test_run_id_is_twelve_hexadecimal_digits():
    assert set(run_id(RUN)) <= set("0123456789abcdef")
    assert len(run_id(RUN)) == 12


def test_run_id_ignores_the_order_of_keys():
    rng = random.Random(0)
    assert {run_id(shuffled(RUN, rng)) for _ in range(20)} == {run_id(RUN)}


def test_run_id_ignores_defaults_that_are_written_out():
    config = RunConfig.model_validate(RUN)
    full = config.model_dump(mode="json")
    assert len(json.dumps(full)) > 2 * len(json.dumps(RUN))
    assert run_id(full) == config.run_id


def test_run_id_ignores_how_a_number_is_written():
    assert run_id({**RUN, "budget_flops": 5_000_000_000_000}) == run_id(RUN)


@pytest.mark.parametrize(
    ("table", "key"), [(table, key) for table, keys in CHANGES.items() for key in keys]
)
def test_every_field_changes_the_run_id(table, key):
    same = changed(table, key, None).run_id if key == "positions" else run_id(RUN)
    assert changed(table, key, CHANGES[table][key]).run_id != same


def test_every_field_is_tried():
    config = RunConfig.model_validate(RUN)
    tables = {
        "model": config.model,
        "data": config.data,
        "recipe": config.recipe,
        "depth": config.model.depth,
        "run": config,
    }
    nested = {"model", "data", "recipe", "depth"}
    for name, value in tables.items():
        fields = set(type(value).model_fields) - nested
        assert set(CHANGES[name]) == fields, name


def test_canonical_drops_defaults_and_keeps_kinds():
    model = RunConfig.model_validate(RUN).model
    assert canonical(model) == RUN["model"]
    assert (
        canonical(ModelConfig.model_validate({**RUN["model"], "depth": {"kind": "every_token"}}))[
            "width"
        ]
        == 48
    )
    gelu = {**RUN["model"], "feed_forward": {"kind": "gelu"}}
    assert canonical(ModelConfig.model_validate(gelu))["feed_forward"] == {"kind": "gelu"}


def test_canonical_form_is_json_that_reads_back_as_the_same_value():
    for kind, data in (
        (RunConfig, RUN),
        (Study, {"name": "s", "budgets_flops": [1e12], "variants": [{"name": "a"}]}),
    ):
        value = kind.model_validate(data)
        again = kind.model_validate(json.loads(json.dumps(canonical(value))))
        assert again == value
        assert fingerprint(again) == fingerprint(value)


def test_run_id_stays_what_it_is_called_on_disk():
    # A change here renames every run ever made: raise RUN_ID_VERSION if that is meant.
    assert run_id(RUN) == "2c1dbcb54a7a"


def test_a_run_says_no_precision_for_bf16_and_never_leaves_it_open():
    written = {**RUN, "recipe": {"precision": "bf16"}}
    assert run_id(RUN) == run_id(written) != run_id({**RUN, "recipe": {"precision": "fp32"}})
    with pytest.raises(ValidationError, match="precision"):
        RunConfig.model_validate({**RUN, "recipe": {"precision": "auto"}})
    with pytest.raises(ValidationError, match="Recipe"):
        RunConfig.model_validate({**RUN, "recipe": StudyRecipe()})


def test_a_study_s_recipe_becomes_that_of_a_run():
    settled = StudyRecipe(learning_rate=3e-3, precision="fp32").settled()
    assert settled == Recipe(learning_rate=3e-3, precision="fp32")
    with pytest.raises(ValueError, match=r"recipe\.precision is 'auto' and not settled yet"):
        StudyRecipe().settled()
    study = Study.model_validate(
        {"name": "s", "budgets_flops": [1e12], "variants": [{"name": "a"}], "recipe": Recipe()}
    )
    assert study.recipe == StudyRecipe(precision="bf16")
    assert study.with_precision("fp32").recipe.settled() == Recipe(precision="fp32")
