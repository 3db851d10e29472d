"""The commands measure what is asked for, keep it and print it."""

import json

import pytest
from measured_rows import attention_report, decode_report

from isoflop.bench.train import BenchReport
from isoflop.cli import main

DECODE = ["--contexts", "512", "--batches", "2", "--threads", "1", "--dtype", "bf16"]


@pytest.mark.parametrize(
    ("name", "options", "report", "files", "said", "asked_for"),
    [
        (
            "attention",
            ["--lengths", "4096", "--block-sizes", "512"],
            attention_report((4096, 512, 2.0)),
            ["attention-fp32.json", "attention-fp32-speed.png"],
            "faster from 4,096 tokens on",
            {"sequence_length": 4096, "block_sizes": (512,), "top_k": 3},
        ),
        (
            "decode",
            [*DECODE, "--width", "128", "--blocks", "2"],
            decode_report(),
            ["decode.json"],
            "MoD 12.5%",
            {"context": 512, "batch": 2, "threads": 1, "dtype": "bf16"},
        ),
    ],
)
def test_command(monkeypatch, tmp_path, capsys, name, options, report, files, said, asked_for):
    asked = []
    monkeypatch.setattr(
        f"isoflop.bench.bench_{name}", lambda cases, **more: asked.append((cases, more)) or report
    )
    command = ["bench", name, *options, "--force"]
    assert main([*command, "--json", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == report.model_dump(mode="json")["rows"]
    assert type(report).model_validate_json((tmp_path / files[0]).read_text()) == report
    assert all((tmp_path / file).stat().st_size > 500 for file in files)
    cases, more = asked[0]
    assert asked_for.items() <= dict(cases[0]).items()
    assert more["force"] is True
    assert main(command) == 0
    assert said in capsys.readouterr().out


def test_steps_of_standard_shapes_are_written_where_asked(monkeypatch, tmp_path):
    report = BenchReport(rows=(), torch="2", machine="a machine")
    monkeypatch.setattr("isoflop.bench.bench_train", lambda *_, **__: report)
    assert main(["bench", "train", "--dtype", "fp32", "--out", str(tmp_path)]) == 0
    assert BenchReport.model_validate_json((tmp_path / "bench.json").read_text()) == report


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["attention", "--lengths", "64", "--block-sizes", "512"], "no length of [64]"),
        (["decode", "--contexts", "100"], "context is 100; expected 8 or a multiple of it"),
        (["decode", "--width", "96"], "width is 96; expected a multiple of 64"),
        (["memory", "--width", "96"], "width is 96; expected a multiple of 64"),
        (["memory", "--sequences", "0"], "isoflop: sequences_per_step is 0; expected a whole n"),
        (["train", "--sequences", "0", "--dtype", "fp32"], "sequences_per_step is 0; expected"),
        (["attention", "--block-sizes", "0", "--dtype", "fp32"], "block size is 0; expected at"),
        (["train", "--ranks", "1"], "--ranks is 1; expected at least 2"),
        (["train", "study.toml", "--ranks", "2"], "expected no study and no --sizes"),
    ],
)
def test_command_refuses(command, said, capsys):
    assert main(["bench", *command]) == 2
    assert said in capsys.readouterr().err
