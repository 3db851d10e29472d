"""A study whose runs start from a checkpoint: planned at its shape, trained from its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from given import small_model, write_words
from isoflop.cli import main
from isoflop.cli.study_models import study_groups
from isoflop.config import DataConfig, ModelConfig, RunConfig, Start, Study
from isoflop.config.load import load_study
from isoflop.interop import load_pretrained
from isoflop.interop.exporting import folder_of_model, json_text, model_card, write_folder
from isoflop.model import build
from isoflop.planning import next_runs
from isoflop.runs import RunStore
from isoflop.sweep import Folders

T = 16
HELD_OUT = "validation_fraction = 0.2, test_fraction = 0.2"
TEXT = """
name = "started"
budgets_flops = [2e8]
seeds = [0, 1]
tokens_per_step = 64
evaluation_tokens = 512
recipe = {{ precision = "fp32", check_first = false, learning_rate = 1e-4 }}
data = {{ corpus = "{corpus}", sequence_length = 16, {held_out} }}
start = {{ checkpoint = "{checkpoint}" }}

[[variants]]
name = "Baseline"

[[variants]]
name = "MoD"
depth = {{ kind = "top_k", capacity = 1.0, gate = "tanh" }}
"""


def write_checkpoint(folder: Path, config: ModelConfig, seed: int = 1) -> Path:
    model = build(config, seed=seed)
    values, state = folder_of_model(config, T, model.state_dict(), None)
    write_folder(folder, {"config.json": json_text(values)}, state)
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    corpus = write_words(tmp_path / "words", 30)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_model())
    path = tmp_path / "study.toml"
    path.write_text(TEXT.format(corpus=corpus, checkpoint=checkpoint, held_out=HELD_OUT))
    return path


def settled(file: Path) -> Study:
    return load_study(file)


def ids(study: Study) -> list[str]:
    return [run.config.run_id for run in next_runs(study, [])]


def test_every_variant_has_one_size_and_the_run_id_the_checkpoint(file: Path) -> None:
    study = load_study(file)
    runs = next_runs(study, [])
    assert [(run.variant, run.config.seed) for run in runs] == [("Baseline", 0), ("MoD", 0)]
    for run, variant in zip(runs, study.variants, strict=True):
        assert run.config.model == small_model().with_choices(variant)
    (group,) = study_groups(study, Folders.of(study), "fp32")
    assert [(case.variant, case.config.model.depth.kind) for case in group] == [
        ("Baseline", "every_token"),
        ("MoD", "top_k"),
    ]
    # The same study, read back from what a study's folder holds.
    assert Study.model_validate_json(study.model_dump_json()) == study
    before, folder = ids(study), file.parent / "checkpoint"
    moved = shutil.copytree(folder, file.parent / "moved")
    file.write_text(file.read_text().replace(str(folder), str(moved)))
    assert ids(load_study(file)) == before
    shutil.rmtree(moved)
    write_checkpoint(moved, small_model(), seed=2)
    assert not set(ids(load_study(file))) & set(before)
    plain = file.read_text().replace("start = ", "# start = ")
    file.write_text(plain)
    assert '"start"' not in load_study(file).model_dump_json()


@pytest.mark.parametrize(("vocabulary", "warned"), [(256, False), (264, False), (300, True)])
def test_a_tokenizer_of_too_few_ids_is_doubted(
    file: Path, capsys: pytest.CaptureFixture[str], vocabulary: int, warned: bool
) -> None:
    """Ids of another tokenizer are other text to the checkpoint, and nothing fails by it."""
    folder = file.parent / "checkpoint"
    shutil.rmtree(folder)
    write_checkpoint(folder, small_model().model_copy(update={"vocabulary": vocabulary}))
    assert main(["plan", str(file)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    words = "starts from a checkpoint of 300 ids with a tokenizer of 256, likely another one"
    assert (words in told) == warned


def test_runs_start_from_its_weights_and_all_is_said(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    study = load_study(file)
    assert study.start is not None
    assert main(["plan", str(file)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Every run starts from {study.start.words}; FLOPs are counted from there." in told
    assert main(["run", str(file), "--workers", "1"]) == 0
    records = {folder.path.name: folder for folder in RunStore(Path("runs/started")).folders()}
    assert len(records) == 4
    losses = {}
    for folder in records.values():
        config, record = folder.config(), folder.record()
        assert record is not None
        assert record.config.start == study.start
        losses[config.model.depth.kind, config.seed] = folder.read_metrics()[0][0]["loss"]
        assert study.start.words in model_card(record, "LlamaForCausalLM", "every_token")
    model = load_pretrained("checkpoint")
    fresh = build(small_model(), seed=0)
    for seed in (0, 1):
        # Of the same first batch: at capacity 1 a quiet router changes next to nothing.
        assert losses["top_k", seed] == pytest.approx(losses["every_token", seed], abs=0.02)
    assert not torch.equal(model.embedding.weight, fresh.embedding.weight)
    assert main(["report", str(file)]) == 0
    page = Path("runs/started/report/index.html").read_text()
    assert f"FLOPs counted from <b>{study.start.words}" in page
    assert "size the mean loss of MoD less that of Baseline is" in " ".join(page.split())
    assert main(["status", str(file)]) == 0
    assert capsys.readouterr().out.count("the only size") == 2
    # Over sizes nothing can be compared: where it can be is said.
    assert main(["fit", str(file)]) == 0
    assert "compares variants there by their seeds" in " ".join(capsys.readouterr().out.split())
    # Which has no tokeniser beside it.
    for command in ("eval", "sample"):
        assert main([command, "checkpoint"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "checkpoint has no tokenizer.json; expected it beside" in line


def test_a_changed_or_missing_checkpoint_is_a_line(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    config = next_runs(load_study(file), [])[0].config
    single = file.parent / "run.json"
    single.write_text(config.model_dump_json())
    shutil.rmtree("checkpoint")
    write_checkpoint(file.parent / "checkpoint", small_model(), seed=2)
    assert main(["train", str(single)]) == 2
    assert "changed: its SHA-256 was" in capsys.readouterr().err.splitlines()[-1]
    shutil.rmtree("checkpoint")
    for command in (["train", str(single)], ["plan", str(file)]):
        assert main(command) == 2
        assert "where no folder is; expected one that" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("start = ", "grid = { sizes = 3 }\nstart = ", "grid is given beside [start]"),
        ("start = ", "shape = { head_width = 4 }\nstart = ", "shape is given beside [start]"),
        ("checkpoint =", "folder =", 'expected checkpoint = "FOLDER" alone'),
        ("data = {", 'data = { tokenizer = "bpe:300",', "data.tokenizer has 300 ids and start"),
        ("depth = {", 'feed_forward = { kind = "gelu" }\ndepth = {', "variant 'MoD' has parts"),
        ('gate = "tanh"', "every = 3", "variant 'MoD' does not fit the 2 blocks"),
    ],
)
def test_what_a_checkpoint_cannot_be_is_a_line(
    before: str, after: str, told: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text().replace(before, after))
    assert main(["plan", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_run_alone_has_the_shape_of_its_checkpoint(tmp_path: Path) -> None:
    start = Start.of(str(write_checkpoint(tmp_path / "checkpoint", small_model())))
    known = {"steps": 1, "sequences_per_step": 1, "data": DataConfig(sequence_length=T)}
    assert RunConfig(model=small_model(), start=start, **known).run_id != (
        RunConfig(model=small_model(), **known).run_id
    )
    with pytest.raises(ValueError, match=r"another shape than start.checkpoint"):
        RunConfig(model=small_model(width=24), start=start, **known)
    config = json.loads((tmp_path / "checkpoint/config.json").read_text())
    (tmp_path / "checkpoint/config.json").write_text(json.dumps(config | {"note": "mine"}))
    assert Start.of(start.checkpoint) == start
