"""The run id: a name for what is studied, and for nothing else."""

import pytest
from pydantic import ValidationError

from isoflop.config import ModelConfig, Recipe, RunConfig, Study, StudyRecipe, Variant, canonical
from isoflop.config.load import load_study
from isoflop.config.own import own
from isoflop.frozen import fingerprint
from isoflop.storage import write_json

OWN = """
from pathlib import Path
from isoflop.variants import Frozen
PART, build, costs = "feed_forward", None, None
class Config(Frozen):
    scale: float = 1.0
    table: Path | None = None
"""

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


def run_id(data):
    return RunConfig.model_validate(data).run_id


def test_run_id_stays_what_it_is_called_on_disk():
    # A change here renames every run ever made: raise RUN_ID_VERSION if that is meant.
    assert run_id(RUN) == run_id({**RUN, "budget_flops": 5_000_000_000_000}) == "2c1dbcb54a7a"
    gelu = {**RUN["model"], "feed_forward": {"kind": "gelu"}}
    for model in (RUN["model"], gelu):
        assert canonical(ModelConfig.model_validate(model)) == model


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


def test_settings_of_one_s_own_are_called_alike_in_python_and_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    mine = own("feed_forward", "mine", {"scale": 2.0, "table": "a"}, tmp_path / "mine.py")
    study = Study(name="s", budgets_flops=(1e12,), variants=(Variant(name="a", feed_forward=mine),))
    write_json(tmp_path / "study.json", study.model_dump(mode="json"))
    assert fingerprint(load_study(tmp_path / "study.json")) == fingerprint(study)
