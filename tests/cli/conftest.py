"""What commands are tried on: a small study with made-up records, and tiny trained runs."""

import json

import pytest

from given import RECIPE, record_of, small_model, write_words
from isoflop.cli import main
from isoflop.config import DataConfig, EveryToken, RandomK, RunConfig, TopK
from isoflop.config.load import load_study
from isoflop.planning import next_runs
from isoflop.runs import RunFolder, write_records

HOSTILE = "MoD [bold]\x1b[31m"
STUDY = {
    "name": "small",
    "budgets_flops": [1.5e11],
    "tokens_per_step": 1024,
    "data": {"corpus": "text.txt"},
    "recipe": {"precision": "fp32"},
    "grid": {"sizes": 3, "margin": 1, "centre_parameters": 60e3},
    "variants": [
        {"name": "Baseline"},
        {"name": HOSTILE, "depth": {"kind": "top_k", "capacity": 0.5, "every": 2}},
    ],
}

DEPTHS = {
    "dense": EveryToken(),
    "routed": TopK(capacity=0.25, router_bce=0.01),
    "random": RandomK(capacity=0.25),
}


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    """A study file in a folder of its own, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.json"
    path.write_text(json.dumps(STUDY))
    return path


@pytest.fixture
def study(study_file):
    return load_study(study_file)


@pytest.fixture
def committed(study, tmp_path):
    """Records of the study's first runs under `results`: one of them diverged."""
    runs = next_runs(study, [])
    records = [record_of(run.config, 2.0 - 0.1 * i) for i, run in enumerate(runs[:-1])]
    records.append(
        record_of(runs[-1].config, 0.0, state="diverged", reason="loss nan at step 3 \x1b[31m")
    )
    write_records(tmp_path / "results" / "small" / "records.jsonl", records)
    return records


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="session")
def make_run(trained_root):
    """Train a run of this depth and tokeniser once, and return its folder."""
    import torch

    from isoflop.training import train

    folder = write_words(trained_root / "corpus", 60)
    generator = torch.Generator().manual_seed(0)
    # Read where the tokeniser is one of ids, as no part of the text.
    ids = torch.randint(50, (4000,), generator=generator).numpy().astype("<u2")
    (folder / "ids.bin").write_bytes(ids.tobytes())
    (trained_root / "other.bin").write_bytes(ids[::-1].tobytes())
    (trained_root / "other.jsonl").write_text(
        "".join(json.dumps({"text": f"Number {i}: {i * i}. " * 12}) + "\n" for i in range(60))
    )

    def make(
        name: str, tokenizer: str = "bytes", ids_tokenizer: str | None = None, **recipe: object
    ) -> RunFolder:
        data = DataConfig(
            corpus=str(folder),
            tokenizer=tokenizer,
            ids_tokenizer=ids_tokenizer,
            sequence_length=16,
            validation_fraction=0.2,
            test_fraction=0.2,
        )
        config = RunConfig(
            model=small_model(vocabulary=data.vocabulary, blocks=4, depth=DEPTHS[name]),
            data=data,
            recipe=RECIPE.model_copy(update=recipe),
            steps=3,
            sequences_per_step=3,
            evaluation_tokens=1000,
        )
        run = RunFolder(trained_root / "runs" / config.run_id)
        before = torch.get_num_threads()
        train(config, run, cache=trained_root / "cache", threads=1)
        torch.set_num_threads(before)
        return run

    return make


@pytest.fixture
def call(capsys):
    """Type a command and return what it prints; standard error where it fails."""

    def call(*arguments, code=0):
        assert main([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        return captured.out if code == 0 else captured.err

    return call


@pytest.fixture
def told(call):
    """Type a command with --json and return what it tells."""
    return lambda *arguments: json.loads(call(*arguments, "--json"))


@pytest.fixture
def on_run(trained_root, call):
    """Call a command on a run and return what it prints; standard error where it fails."""

    def on_run(command, folder, *arguments, code=0):
        import torch

        before = torch.get_num_threads()
        typed = [command, getattr(folder, "path", folder), "--cache", trained_root / "cache"]
        try:
            return call(*typed, *arguments, code=code)
        finally:
            torch.set_num_threads(before)

    return on_run
