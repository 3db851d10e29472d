"""The commands measure what is asked for, keep it and print it."""

import json

import pytest
from measured_rows import attention_report, attention_row, decode_report, decode_rows

from isoflop.cli import main

DECODE = ["--contexts", "512", "--batches", "2", "--threads", "1", "--dtype", "bf16"]


@pytest.mark.parametrize(
    ("name", "options", "report", "files", "said", "asked_for"),
    [
        (
            "attention",
            ["--lengths", "4096", "--block-sizes", "512"],
            attention_report(attention_row(4096, 2.0)),
            ("attention-fp32.json", "attention-fp32-speed.png"),
            "faster from 4,096 tokens on",
            {"sequence_length": 4096, "block_sizes": (512,), "top_k": 3},
        ),
        (
            "decode",
            [*DECODE, "--width", "128", "--blocks", "2"],
            decode_report(*decode_rows()),
            ("decode.json", "decode-speed.png"),
            "realised: 12.50%",
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
    rows, picture = (tmp_path / file for file in files)
    assert type(report).model_validate_json(rows.read_text()) == report
    assert picture.stat().st_size > 5000
    cases, more = asked[0]
    assert asked_for.items() <= dict(cases[0]).items()
    assert more["force"] is True
    assert main(command) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["attention", "--lengths", "64", "--block-sizes", "512"],
        ["decode", "--contexts", "100"],
        ["decode", "--width", "96"],
    ],
)
def test_command_refuses(command, capsys):
    assert main(["bench", *command]) == 2
    assert command[2] in capsys.readouterr().err
