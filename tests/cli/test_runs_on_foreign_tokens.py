"""Runs on what others tokenised: with their tokeniser, as it is read or named, or without any."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest

import foreign
from isoflop.cli import main
from isoflop.fit.tables.frame import frame
from isoflop.interop import export_run
from isoflop.trained import Opened


@pytest.fixture(scope="session")
def tokenizer(trained_root):
    return str(foreign.byte_level(trained_root / "tokenizer.json"))


def test_a_run_is_told_per_byte_and_writes_text(make_run, on_run, tokenizer, trained_root):
    folder = make_run("routed", tokenizer)
    record = folder.record()
    for one in record.evaluations:
        # Words of the corpus take several ids each, none of them of less than a byte.
        assert 0 < one.bits_per_byte < one.loss / math.log(2)
    shown = on_run("eval", folder)
    assert "nats per token" in shown
    assert "bits per byte" in shown
    texts = folder.evaluation().token_texts
    assert texts.get(299, "<|end|>") == "<|end|>"
    other = json.loads(on_run("eval", folder, "--corpus", trained_root / "other.jsonl", "--json"))
    assert other["measures"]["decisions"][0]["bits_per_byte"]["value"] > 0
    told = json.loads(on_run("sample", folder, "--prompt", "the law", "--tokens", "3", "--json"))
    prompt = [token["text"] for token in told["prompt"]]
    assert (told["prompt"][0]["id"], prompt[0]) == (299, "")
    assert "".join(prompt) == "the law"


def test_a_run_on_ids_is_told_per_byte_once_their_tokenizer_is_named(make_run, on_run, tokenizer):
    bare = make_run("dense", "ids:304:3")
    assert bare.record().evaluation().bits_per_byte is None
    # The same run; trained where it was not yet.
    assert make_run("dense", "ids:304:3", tokenizer).record() == bare.record()
    folder = make_run("routed", "ids:304:3", tokenizer)
    assert folder.record().evaluation().bits_per_byte > 0
    found = on_run("sample", folder, "--prompt", "the law", "--tokens", "3")
    assert found.startswith("the law")
    shown = on_run("eval", folder)
    assert "bits per byte" in shown


def test_such_a_run_goes_out_with_its_tokenizer(make_run, tokenizer, trained_root, tmp_path):
    from tokenizers import Tokenizer

    folder = make_run("routed", tokenizer)
    export_run(folder, tmp_path / "out", cache=trained_root / "cache")
    values = {
        name: json.loads((tmp_path / "out" / f"{name}.json").read_text())
        for name in ("config", "generation_config", "tokenizer_config")
    }
    assert values["config"]["eos_token_id"] == values["generation_config"]["eos_token_id"] == 299
    assert values["tokenizer_config"]["eos_token"] == "<|endoftext|>"
    written = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    ours = Opened.of(folder.path).tokenizer(trained_root / "cache")
    (ids,) = ours.encode([b"our law"])
    np.testing.assert_array_equal(written.encode("our law").ids, [299, *ids])


def test_the_hub_needs_the_extra_that_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    path = tmp_path / "study.toml"
    study = 'name = "x"\nbudgets_flops = [1e11]\n[data]\ntokenizer = "hf:a/b"\n'
    path.write_text(study + '[[variants]]\nname = "B"\n')
    assert main(["plan", str(path)]) == 2
    told = capsys.readouterr().err
    assert "huggingface_hub is not installed, which this needs: pip install" in told


@pytest.fixture
def on_ids(make_run):
    return make_run("routed", "ids:50:3")


def test_losses_are_told_per_token_alone(on_ids, on_run):
    record = on_ids.record()
    assert record.state == "finished"
    assert len(record.evaluations) > 2
    assert all(one.bits_per_byte is None for one in record.evaluations)
    assert frame([record], {record.run_id: "a"})["bits_per_byte"].isna().all()
    shown = on_run("eval", on_ids)
    assert "nats per token" in shown
    assert f"{record.evaluation('test').loss:.4f}" in shown
    found = on_ids.evaluation()
    assert {one.bits_per_byte for one in found.measures.decisions} == {None}
    # Ids have no text, so they are named themselves.
    assert all(text == f"<{token}>" for token, text in found.token_texts.items())


def test_other_ids_can_be_read_and_text_cannot(on_ids, on_run, trained_root):
    own = on_ids.record().data_sha256
    other = trained_root / "other.bin"
    found = json.loads(on_run("eval", on_ids, "--corpus", other, "--json"))
    assert found["data_sha256"] != own
    told = on_run("eval", on_ids, "--corpus", trained_root / "other.jsonl", code=2)
    assert "expected a .bin or .npy file of token ids" in told


def test_nothing_is_written_in_ids(on_ids, on_run):
    told = on_run("sample", on_ids, "--prompt", "the", code=2)
    assert "was trained on token ids, whose text is not known" in told
