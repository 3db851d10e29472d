"""Losses per byte where a tokenizer is not bytes: fits, predictions, pages, lines of runs."""

from __future__ import annotations

import json

import pytest

from given import record_of
from isoflop.config.load import load_study
from isoflop.planning import next_runs, scaling_runs
from isoflop.runs import write_records

NAT = 0.4
"""Bits per byte of a nat per token here; of the second tokenizer half as many."""


def study(tokenizer: str, **changes: object) -> dict[str, object]:
    return {
        "name": "small",
        "budgets_flops": [1.5e11],
        "tokens_per_step": 1024,
        "equivalence_margin": 0.5,
        "data": {"corpus": "text.txt", "tokenizer": tokenizer},
        "recipe": {"precision": "fp32"},
        "grid": {"sizes": 5, "margin": 1, "centre_parameters": 60e3},
        "variants": [{"name": "Baseline"}, {"name": "Gelu", "feed_forward": {"kind": "gelu"}}],
        **changes,
    }


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def per_byte(record, nat):
    evaluations = [
        {**dict(one), "bits_per_byte": nat and nat * one.loss} for one in record.evaluations
    ]
    return type(record).model_validate({**dict(record), "evaluations": evaluations})


def committed(folder, name, tokenizer, nat, loss=2.0, **changes):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**study(tokenizer, **changes), "name": name}))
    loaded = load_study(path)
    runs = next_runs(loaded, []) if loaded.scaling is None else scaling_runs(loaded)
    records = [
        per_byte(record_of(run.config, loss + 0.1 * abs(i % 5 - 2) ** 2), nat)
        for i, run in enumerate(runs)
    ]
    write_records(folder / "results" / name / "records.jsonl", records)
    return path, records


def test_a_fit_is_told_per_byte(folder, call, told):
    path, _ = committed(folder, "small", "bpe:300", NAT)
    token, byte = (told("fit", path, *per) for per in ((), PER))
    assert (token["loss_unit"], byte["loss_unit"]) == ("nats per token", "bits per byte")
    minima = [
        [one["loss"] for of in found["variants"].values() for one in of["minima"] if one["loss"]]
        for found in (token, byte)
    ]
    assert minima[1] == pytest.approx([NAT * loss for loss in minima[0]], rel=1e-6)
    assert [one["margin"] for one in token["verdicts"]] == [0.5]
    assert [one["margin"] for one in byte["verdicts"]] == [pytest.approx(0.5 * NAT)]
    told = told("fit", path, *PER, "--margin", "0.3")
    assert [one["margin"] for one in told["verdicts"]] == [0.3]
    note = "A nat per token is 0.4000 bits per byte of the test text; --per byte tells losses so."
    assert note in token["notes"]
    assert "0.4000 bits per byte" in call("fit", path)
    assert "bits per byte" in call("fit", path, *PER)
    assert "bits per byte" in call("predict", path, *PER, "--budget", "3e11")
    told = call("predict", path, *PER, "--budget", "3e11", "--register", "a.json", code=2)
    assert "--register writes down losses per token" in told


PER = ("--per", "byte")


def test_bytes_need_no_word_and_ids_alone_have_none(folder, call, told):
    path, _ = committed(folder, "small", "bytes", 1.4427)
    assert "bits per byte" not in call("fit", path)
    assert "bits per byte" in call("fit", path, *PER)
    path, _ = committed(folder, "ids", "ids:300", None)
    assert told("fit", path)["notes"] == []
    assert "stand for no text that is known" in call("fit", path, *PER, code=2)
    (folder / "t.csv").write_text("loss,N,D\n1,2,3\n")
    assert "--columns loss=COLUMN" in call("fit", folder / "t.csv", *PER, code=2)


def test_studies_of_two_tokenizers_compare_per_byte(folder, told):
    both = []
    for name, tokenizer, nat in (("one", "bpe:300", NAT), ("two", "bpe:400", NAT / 2)):
        both += committed(folder, name, tokenizer, nat, variants=[{"name": "Baseline"}])[1]
    write_records(folder / "both.jsonl", both)
    token, byte = (told("fit", "both.jsonl", *per) for per in ((), PER))
    assert any("several tokenizers, between which losses per" in one for one in token["warnings"])
    assert not any("several tokenizers" in one for one in byte["warnings"])
    names = ["every_token, bpe:300", "every_token, bpe:400"]
    assert list(byte["variants"]) == names
    losses = [
        next(one["loss"] for one in byte["variants"][name]["minima"] if one["loss"])
        for name in names
    ]
    assert losses[0] == pytest.approx(2 * losses[1], rel=0.05)
