"""NaN and the infinities in results.

Injected: numbers that are not finite in all that is written, and the tokens NaN and Infinity in all
that is read. Expected: strict JSON with null, and readers that refuse the tokens.
"""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest
from every_file import JSON_FILES, Loaded
from one_tiny_run import tiny_run

import isoflop
from given import RECIPE
from isoflop import storage
from isoflop.cli.main import main
from isoflop.config import Evaluation
from isoflop.runs import MetricsLog, RunFolder, read_metrics, read_records, write_records
from isoflop.terminal.tables import show_json
from isoflop.training import train

TOKENS = ("NaN", "Infinity", "-Infinity")

UNSEEN = {
    ("config/load.py", "dumps"): "read back at once by a model that refuses such numbers",
    ("config/own.py", "dumps"): "read back at once by a model that refuses such numbers",
    ("data/store.py", "dumps"): "of hashes",
    ("interop/dataset.py", "model_dump_json"): "of runs, whose numbers are finite",
    ("interop/exporting.py", "dumps"): "of a model, whose numbers are finite",
    ("training/loop.py", "model_dump_json"): "of an environment, which holds no floats",
    ("report/page.py", "dumps"): "of a study, which refuses such numbers",
}
"""Calls of json.dumps that may let such numbers pass, and why they do not."""


def strict(text: str) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} in JSON")

    return json.loads(text, parse_constant=refuse)


def hold_all_strict(folder: Path) -> int:
    """Parse every JSON file below `folder` strictly and return how many there were."""
    count = 0
    for path in folder.rglob("*.json*"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        for line in lines:
            strict(line)
        count += 1
    return count


def test_row_10_what_is_not_finite_is_null_in_all_that_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hopeless = tiny_run(tmp_path, recipe=RECIPE.model_copy(update={"learning_rate": 1e30}))
    run = RunFolder(tmp_path / "run")
    record = train(hopeless, run, cache=tmp_path / "cache", threads=1, checkpoint_seconds=0)
    assert record.state == "diverged"
    assert run.record() == record
    write_records(tmp_path / "records.jsonl", [record])
    assert read_records(tmp_path / "records.jsonl") == [record]
    values = {"a": math.nan, "b": [math.inf, (-math.inf, 1.5)]}
    with MetricsLog(tmp_path / "metrics.jsonl", 0) as log:
        log.append({"step": 1, "routing": values})
    null = {"a": None, "b": [None, [None, 1.5]]}
    assert read_metrics(tmp_path / "metrics.jsonl") == ([{"step": 1, "routing": null}], 0)
    assert hold_all_strict(tmp_path) >= 6
    show_json(values)
    assert strict(capsys.readouterr().out) == null


def test_a_result_that_is_not_finite_is_refused_where_it_is_made() -> None:
    fields = {"split": "test", "decision": "every_token", "bits_per_byte": 1.0, "tokens": 1}
    for value in (math.nan, math.inf, None):
        with pytest.raises(ValueError, match="loss"):
            Evaluation.model_validate({**fields, "loss": value})


@pytest.mark.parametrize("file", JSON_FILES, ids=lambda file: file.name)
def test_the_tokens_are_refused_in_all_that_is_read(tmp_path: Path, file: Loaded) -> None:
    for token in TOKENS:
        (tmp_path / token).mkdir()
        file.put(tmp_path / token, f'{{"a": [1.5, {token}]}}\n'.encode())
        with pytest.raises(ValueError, match=rf"{Path(file.name).name}.*{token} is not"):
            file.load(tmp_path / token)


@pytest.mark.parametrize(
    ("value", "key"), [("nan", "budgets_flops"), ("inf", "budgets_flops"), ("-inf", "seeds")]
)
def test_a_study_with_such_numbers_is_refused(tmp_path: Path, value: str, key: str) -> None:
    fields: dict[str, str] = {"budgets_flops": "[1e12]", "seeds": "[0]", key: f"[{value}]"}
    lines = ['name = "s"', *(f"{k} = {v}" for k, v in fields.items())]
    (tmp_path / "s.toml").write_text("\n".join([*lines, "[[variants]]", 'name = "Baseline"']))
    assert main(["plan", str(tmp_path / "s.toml")]) == 2


def allows_nan(call: ast.Call) -> bool:
    return not any(
        keyword.arg == "allow_nan" and getattr(keyword.value, "value", None) is False
        for keyword in call.keywords
    )


def test_nothing_else_writes_json() -> None:
    sources = Path(isoflop.__file__).parent
    found = set()
    for path in sources.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", "")
                if name in ("dumps", "dump", "model_dump_json") and allows_nan(node):
                    found.add((path.relative_to(sources).as_posix(), name))
    assert found == set(UNSEEN)


@pytest.mark.parametrize("token", TOKENS)
def test_strict_reading_names_the_file(tmp_path: Path, token: str) -> None:
    path = tmp_path / "value.json"
    path.write_text(token)
    with pytest.raises(ValueError, match=rf"value\.json is not valid JSON: {token} is not JSON"):
        storage.read_json(path)
