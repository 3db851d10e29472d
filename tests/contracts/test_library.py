"""What a user imports, and the page that shows it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import typing
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import isoflop
from isoflop.evaluation.loss import Reading, ReadingKeywords
from isoflop.sweep.running import run_study
from isoflop.training.loop import RunExecution, RunExecutionKeywords
from sweep_studies import instant

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "library.md"


def test_every_public_name_can_be_had() -> None:
    for name in isoflop.__all__:
        assert getattr(isoflop, name) is not None
    assert set(isoflop.__all__) <= set(dir(isoflop))
    assert set(isoflop.__all__) == {*isoflop._HOME_OF, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'isoflop' has no attribute 'nothing'"):
        _ = isoflop.nothing
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from isoflop import nothing")


@pytest.mark.parametrize(
    ("keywords", "value"),
    [(ReadingKeywords, Reading), (RunExecutionKeywords, RunExecution)],
)
def test_keywords_are_the_fields_of_their_value(keywords, value) -> None:
    by_place = {"sequence_length"}
    assert set(keywords.__annotations__) == set(value.model_fields) - by_place


def test_type_checkers_see_what_is_loaded_lazily() -> None:
    tree = ast.parse(Path(isoflop.__file__).read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    found = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert found == isoflop._HOME_OF


def test_torch_is_loaded_only_for_what_computes() -> None:
    code = """
import sys, isoflop
print("pydantic" in sys.modules)
sys.modules["torch"] = None  # Whoever imports it fails.
isoflop.ModelConfig, isoflop.Study, isoflop.load, isoflop.forward_flops, isoflop.read_records
try:
    isoflop.build
except ModuleNotFoundError as error:
    print(error.name)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.split() == ["False", "torch"]


def blocks_of_page(page: Path = PAGE) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


PICTURES = {
    "vegalite_to_svg.return_value": "<svg/>",
    "svg_to_png.return_value": b"png",
    "svg_to_pdf.return_value": b"pdf",
}


def test_the_page_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Pictures and the charts' script are drawn in tests of the report.
    monkeypatch.setattr("isoflop.report.render.vl_convert", Mock(**PICTURES))
    monkeypatch.setattr("isoflop.report.page.vega_javascript", lambda: "/* vega */")
    # Runs are trained in tests of studies.
    monkeypatch.setattr("isoflop.sweep.running.measured_speeds", lambda *_, **__: None)
    monkeypatch.setitem(run_study.__kwdefaults__, "train", instant)
    threads = torch.get_num_threads()
    blocks = blocks_of_page()
    assert len(blocks) == 11
    names: dict[str, typing.Any] = {}
    printed = []
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
            printed.append(capsys.readouterr().out.splitlines())
            # What a comment says is printed, is.
            for line, shown in re.findall(r"print\((.*)\)  # (.*)", block):
                assert shown in printed[-1], line
    finally:
        torch.set_num_threads(threads)
    decided = [line for line in printed[1] if line.startswith("block")]
    assert [line.split(":")[0] for line in decided] == [
        "block 1 processed 7 of 30",
        "block 3 processed 7 of 30",
    ]
    assert printed[2][1:] == [
        "predictor: logits before a changed token stay",
        "top_k: logits before a changed token change",
        "threshold: logits before a changed token stay",
    ]
    assert [line.split(":")[0] for line in printed[3][1:]] == ["causal", "full", "6nd"]
    assert len(printed[4]) == 7
    seen = [line.partition(" of")[0] for line in printed[6] if not line.startswith(" ")]
    assert seen[0] == "predictor: 0%"
    assert seen[1] != "top_k: 0%"
    assert seen[2] == "threshold: 0%"
    assert printed[7][1].startswith("we the")
    assert printed[8][0].startswith("3 ")
    assert printed[9] == ["3 0 True"]
    assert len(names["fitted"].result.variants) == 1
    assert names["predicted"].predictions[0].parameters is not None
    assert printed[10][-1] == names["page"].name
    assert names["page"].is_file()


def test_the_page_on_block_attention_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, typing.Any] = {}
    blocks = blocks_of_page(DOCS / "block-attention.md")
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "block-attention.md", "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        shown = re.findall(r"print\(.*\)  # (.*)", block)
        assert len(shown) == len(printed)
        for comment, line in zip(shown, printed, strict=True):
            assert comment.startswith(line)


def test_the_page_on_generation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, typing.Any] = {}
    blocks = blocks_of_page(DOCS / "generation.md")
    assert len(blocks) == 5
    printed = []
    for block in blocks:
        exec(compile(block, "generation.md", "exec"), names)
        printed.append(capsys.readouterr().out.splitlines())
    assert printed[0] == ["20 length", "20 length"]
    # Two sequences of six tokens, the last ones not run.
    assert len(printed[1]) == 12
    assert [line.split()[2:] for line in printed[1][-2:]] == [["None", "length"]] * 2
    for block, lines in zip(blocks[2:], printed[2:], strict=True):
        assert re.findall(r"print\(.*\)  # (.*)", block) == lines
