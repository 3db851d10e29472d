"""What ships: studies load, are named as their files and can be planned; results can be read."""

import hashlib
import json
from pathlib import Path

import pytest

from isoflop.config import RunEvaluation, StudyRecipe
from isoflop.config.load import load_study
from isoflop.costs import parameters
from isoflop.planning import next_runs, scaling_runs
from isoflop.planning.assignment import assign
from isoflop.runs import read_records
from isoflop.sweep import kept_precision

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "studies").glob("*.toml"))
RECORDS = sorted((ROOT / "results").glob("*/records.jsonl.gz"))
EVALUATIONS = sorted((ROOT / "results").glob("*/evaluation*.json"))


def settled_of(path):
    """Return a shipped study in the precision that it names, or of accelerators."""
    study = load_study(path)
    return study.with_precision("bf16") if study.recipe.precision == "auto" else study


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_tells_its_command_duration_and_expectation(path):
    assert load_study(path).name == path.stem
    top = path.read_text().split("\nname = ")[0]
    assert f"studies/{path.name}" in top
    for word in ("# Command:", "# Duration:", "# Expected:"):
        assert word in top


@pytest.mark.parametrize("path", [one for one in FILES if one.stem != "demo"], ids=lambda p: p.stem)
def test_runs_in_bf16_are_called_what_they_were_called(path):
    runs = sorted(run.config.run_id for run in next_runs(settled_of(path), []))
    digest = hashlib.sha256("\n".join(runs).encode()).hexdigest()[:16]
    golden = json.loads((ROOT / "tests" / "golden" / "run_ids.json").read_text())
    assert digest == golden[path.stem]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_every_committed_record_is_of_its_study_as_it_is_now(path):
    study = load_study(ROOT / "studies" / f"{path.parent.name}.toml")
    precision = "fp32" if study.recipe.optimiser.kind == "muon" else "bf16"
    assert study.recipe.precision == precision
    # Reading refuses a record whose run id its configuration does not make.
    records = read_records(path)
    assert assign(study, records).foreign == ()
    # A study that left its precision to the machine would go on in that of its records.
    asked = study.model_copy(update={"recipe": StudyRecipe()})
    kept = kept_precision(asked, ROOT / "runs" / "none", path.parents[1])
    assert kept.precision == precision


def test_the_studies_are_here_and_the_demonstration_takes_what_is_faster():
    assert len(FILES) >= 14
    assert load_study(ROOT / "studies" / "demo.toml").recipe.precision == "auto"


def test_the_published_models_of_block_attention_have_their_sizes():
    study = settled_of(next(path for path in FILES if path.stem == "moba-scaling-paper"))
    runs = scaling_runs(study)
    full = [run.config for run in runs if run.variant == "Full attention"]
    sizes = [parameters(config.model).non_embedding for config in full]
    # 1.1B and 1.5B are 1.15B and 1.57B as 12 layers x width^2, which the rest are close to.
    assert sizes == pytest.approx([545e6, 822e6, 1.1e9, 1.5e9, 2.1e9], rel=0.055)
    assert [config.model.heads for config in full] == [14, 16, 18, 20, 22]
    assert {config.model.head_width for config in full} == {128}


@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda path: path.stem)
def test_committed_evaluations_are_what_this_version_writes(path):
    found = RunEvaluation.model_validate_json(path.read_text())
    assert found.model_dump(mode="json") == json.loads(path.read_text())
