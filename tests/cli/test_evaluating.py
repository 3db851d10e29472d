"""`isoflop eval` on tiny trained runs: what it prints, writes and refuses."""

from __future__ import annotations

import io
import json
import sys
from functools import partial

import pytest
from rich.console import Console

from isoflop.config import Cap, RunEvaluation
from isoflop.data import prepare
from isoflop.runs import RunFolder
from isoflop.terminal.evaluation import evaluation_tables
from isoflop.trained import HeldOut, evaluate_run


@pytest.fixture
def evaluate(on_run):
    return partial(on_run, "eval")


@pytest.mark.filterwarnings("ignore:.* computes in bf16, which is")
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_routed_run_has_the_losses_of_its_record(make_run, evaluate, precision):
    folder = make_run("routed", precision=precision)
    record = folder.record()
    shown = evaluate(folder)
    found = folder.evaluation()
    for one in found.measures.decisions:
        recorded = record.evaluation("test", one.decision)
        assert one.evaluation.loss == pytest.approx(recorded.loss, rel=1e-6)
        assert one.evaluation.document_tokens == recorded.document_tokens
        assert f"{recorded.loss:.4f} [" in shown
        assert (one.future.changed_visibly == 0) == (one.decision != "top_k")
    assert set(found.measures.decisions[0].stretch.tokens) <= set(found.token_texts)
    for text in ("predictor", "threshold", "router", "none", "Agreement", "25.0%", "Entropy"):
        assert text in shown
    # The record is left alone, and the evaluation may be written anew.
    assert folder.record() == record
    assert json.loads(evaluate(folder, "--json")) == folder.evaluation().model_dump(mode="json")


def test_a_dense_run_has_losses_alone(make_run, evaluate):
    folder = make_run("dense")
    shown = evaluate(folder)
    assert f"{folder.record().evaluation().loss:.4f} [" in shown
    assert "top-k" not in shown
    assert "Entropy" not in shown
    assert folder.evaluation().measures.sample is None


def test_the_random_control_has_bernoulli_and_top_k(make_run, evaluate):
    folder = make_run("random")
    evaluate(folder)
    bernoulli, top_k = folder.evaluation().measures.decisions
    assert (bernoulli.decision, top_k.decision) == ("bernoulli", "top_k")
    # Its top-k ranks noise, and so shows nothing of what follows.
    assert bernoulli.future.changed == top_k.future.changed == 0


@pytest.mark.parametrize(
    "options", [("--split", "validation"), ("--tokens", "100"), ("--decisions", "threshold")]
)
def test_a_part_is_shown_and_not_kept(make_run, evaluate, options):
    folder = make_run("routed")
    before = folder.evaluation()
    found = json.loads(evaluate(folder, *options, "--json"))
    assert folder.evaluation() == before
    decided = [one["evaluation"] for one in found["measures"]["decisions"]]
    assert {one["split"] for one in decided} == {
        "validation" if "validation" in options else "test"
    }
    assert decided[0]["tokens"] == (100 if "--tokens" in options else 1000)
    expected = ["top_k", "threshold"] if "--decisions" in options else None
    assert expected is None or [one["decision"] for one in decided] == expected


def test_under_a_cap_decisions_are_shown_twice_and_not_kept(make_run, evaluate, tmp_path):
    folder = make_run("routed")
    before = folder.evaluation()
    written = tmp_path / "capped.json"
    shown = evaluate(folder, "--cap-window", 8, "--cap-tokens", 1, "--out", written)
    assert folder.evaluation() == before
    for text in ("predictor, 1 of 8", "threshold, 1 of 8", "of nominal"):
        assert text in shown
    found = RunEvaluation.model_validate_json(written.read_text())
    caps = {one.evaluation.cap for one in found.measures.decisions}
    assert caps == {None, Cap(window=8, tokens=1)}
    assert "cap-window" in evaluate(folder, "--cap-tokens", 2, code=2)
    assert "no routed block" in evaluate(make_run("dense"), "--cap-window", 4, code=2)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:270"])
def test_another_corpus_is_read_with_the_runs_tokeniser(
    make_run, evaluate, trained_root, tokenizer
):
    folder = make_run("routed", tokenizer)
    corpus = trained_root / "other.jsonl"
    found = json.loads(evaluate(folder, "--corpus", corpus, "--json"))
    assert found["corpus"] == str(corpus)
    data = folder.config().data
    other = data.model_copy(update={"corpus": str(corpus)})
    own_tokeniser = prepare(data, trained_root / "cache").tokenizer
    assert found["data_sha256"] == prepare(other, trained_root / "cache", own_tokeniser).sha256
    if tokenizer != "bytes":
        assert found["data_sha256"] != prepare(other, trained_root / "cache").sha256
    assert folder.evaluation() is None or folder.evaluation().corpus != str(corpus)
    own = json.loads(evaluate(folder, "--json"))
    losses = [one["measures"]["decisions"][0]["loss"]["value"] for one in (found, own)]
    assert losses[0] != losses[1]


def test_tables_fit_the_terminal(make_run, trained_root):
    folder = make_run("routed")
    found = evaluate_run(folder, HeldOut(cap=Cap(window=256)), cache=trained_root / "cache")
    for width in (80, 120):
        file = io.StringIO()
        console = Console(file=file, width=width, highlight=False)
        for one in evaluation_tables(found, folder.config()):
            console.print(one)
        assert "'\N{OPEN BOX}'" in file.getvalue()
        assert max(map(len, file.getvalue().splitlines())) <= width
        assert "\N{HORIZONTAL ELLIPSIS}" not in file.getvalue()


def test_what_cannot_be_evaluated_is_told_in_a_line(make_run, evaluate, trained_root, tmp_path):
    def refused(*arguments):
        told = evaluate(*arguments, code=2).splitlines()
        assert len(told) == 1
        return told[0]

    assert "is not a run folder: there is none" in refused(tmp_path / "nothing")
    folder = make_run("dense")
    assert "decision is 'predictor'; expected one of every_token" in refused(
        folder, "--decisions", "predictor"
    )
    assert "there is no such file or folder" in refused(folder, "--corpus", "nowhere")
    assert "threads is 0; expected at least 1" in refused(folder, "--threads", "0")
    assert "the limit is 0" in refused(folder, "--tokens", "0")
    assert "no window of 16 tokens is full" in refused(make_run("routed"), "--tokens", "9")

    pending = RunFolder(tmp_path / "small" / "runs" / "pending")
    pending.create(folder.config())
    assert "is pending; expected a finished one" in refused(pending)
    with pending.claim():
        pending.write_record(folder.record())
    again = f"isoflop train {pending.path / 'config.json'} --out FOLDER"
    said = f"has no checkpoint, as after `isoflop clean`; train the model again, elsewhere: {again}"
    assert said in refused(pending)
    (study := tmp_path / "small" / "study.json").touch()
    assert f"`isoflop rebuild {study} --out {study.parent}` trains the best" in refused(pending)
    (pending.path / "model.safetensors").touch()
    assert "model.safetensors is cut short, or no safetensors; copy it here" in refused(pending)
    assert pending.evaluation() is None


def test_tasks_need_their_extra_and_have_their_own_text(make_run, evaluate, monkeypatch):
    folder = make_run("dense")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "isoflop.interop.lm_eval", raising=False)
    for options, told in (
        ((), '--tasks needs lm-eval; pip install "isoflop[lm-eval]"'),
        (("--split", "validation"), "expected no --split"),
        (("--cap-window", "4"), "expected no --cap-window"),
        (("--decisions", "predictor", "router"), "expected no several --decisions"),
        (("--limit", "0"), "limit is 0; expected at least 1"),
    ):
        assert told in evaluate(folder, "--tasks", "arc_easy", *options, code=2)
