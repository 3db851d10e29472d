"""`isoflop convert` on a run that has learned its text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from isoflop.cli import main
from isoflop.data import BpeTokenizer, ByteTokenizer
from isoflop.evaluation import evaluate
from isoflop.interop import load_pretrained
from isoflop.interop.tokenizers import tokenizer_json
from isoflop.runs import RunFolder
from isoflop.trained import HeldOut, Opened, Wishes, evaluate_run, sample_run
from learned import WORDS, Trained

transformers = pytest.importorskip("transformers", reason="needs the dev extra")

PROMPT = "the state of "


def converted(*arguments: object, code: int = 0) -> None:
    assert main(["convert", *map(str, arguments)]) == code


@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_out_and_writes_the_same_text_by_a_pipeline(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("isoflop.interop.hugging_face")
    out, run = tmp_path / "out", tmp_path / "study" / "runs" / "run"
    shutil.copytree(trained.folder.path, run)
    (tmp_path / "study" / "study.json").write_text('{"name": "words"}')
    converted(run, out, "--to", "hf", "--remote-code", "--cache", trained.cache)
    assert capsys.readouterr().out == f"wrote {out}: IsoflopForCausalLM\n"
    pipeline = transformers.pipeline("text-generation", model=str(out), tokenizer=str(out))
    wishes = Wishes(prompt=PROMPT, tokens=18, temperature=0)
    ours = sample_run(trained.folder, wishes, cache=trained.cache)
    text = "".join(token.text for token in ours.tokens)
    made = pipeline(PROMPT, max_new_tokens=18, do_sample=False)[0]["generated_text"]
    assert made == PROMPT + text
    card = (out / "README.md").read_text()
    loss = trained.folder.record().evaluation("test")
    assert f"| test | predictor | {loss.loss:.4f} [" in card
    assert "decision `predictor`" in card
    assert f"# Run {trained.config.run_id} of study words\n" in card
    remote = transformers.AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert type(remote).__name__ == "IsoflopForCausalLM"
    # As a checkpoint it is asked the same: the text of its run goes on alike, and so do losses.
    corpus = tmp_path / "other.jsonl"
    rows = ({"text": " ".join((*WORDS[n % 7 :], str(n)))} for n in range(200))
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    there = evaluate_run(RunFolder(out), HeldOut(corpus=str(corpus)), cache=tmp_path / "cache")
    test = Opened.of(out).text(str(corpus), tmp_path / "cache")[1].split("test")
    own = evaluate(trained.model, test, 32, split="test", decision="predictor")
    assert there.measures.decisions[0].evaluation == own
    assert there.run_id == str(out)
    there = sample_run(RunFolder(out), wishes)
    assert (there.prompt, there.tokens) == (ours.prompt, ours.tokens)
    capsys.readouterr()
    evaluated = ["eval", str(out), "--corpus", str(corpus), "--cache", str(tmp_path / "cache")]
    assert main([*evaluated, "--split", "validation"]) == 0
    assert f"{out} (" in "".join(capsys.readouterr().out.splitlines())
    for command, told in (
        (["eval", out], "names no text; expected --corpus with what is to be read"),
        (["sample", out, "--write"], "is a checkpoint's folder, not a run's"),
    ):
        assert main([str(one) for one in command]) == 2
        assert told in capsys.readouterr().err
    # Back in, as another variant.
    converted(out, tmp_path / "block", "--from", "hf", "--as", "attention=block:4,2")
    assert load_pretrained(tmp_path / "block").config.attention.kind == "block"
    converted(out, tmp_path / "skip", "--from", "hf", "--as", "depth=fixed_skip:0.5")
    skipping = load_pretrained(tmp_path / "skip").config.depth
    assert (skipping.kind, skipping.settings) == ("fixed_skip", {"capacity": 0.5})
    assert (tmp_path / "block" / "tokenizer.json").is_file()
    again = f"{out} exists; expected a folder that is not there yet"
    converted(trained.folder.path, out, "--to", "hf", "--cache", trained.cache, code=2)
    assert again in capsys.readouterr().err


def test_wrong_ways_are_refused_in_a_line(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nowhere")
    for arguments, told in (
        ((trained.folder.path,), "expected one of --to hf"),
        ((trained.folder.path, "--to", "hf", "--from", "hf"), "expected one of --to hf"),
        ((trained.folder.path, "--to", "hf", "--as", "depth=top_k:0.5"), "--as changes a model"),
        ((trained.folder.path, "--to", "hf", "--decision", "top_k"), "decision is 'top_k'; exp"),
        ((tmp_path, "--to", "hf"), "is not a run folder"),
        ((tmp_path / "nowhere", "--from", "hf"), "is no folder"),
        ((tmp_path, "--from", "hf", "--remote-code"), "--remote-code is of a run that goes out"),
        ((tmp_path, "--from", "hf", "--decision", "top_k"), "--decision is of a run that goes o"),
        ((trained.folder.path, dangling, "--to", "hf"), "dangling exists; expected a folder that"),
    ):
        converted(*arguments, code=2)
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    broken = tmp_path / "broken"
    shutil.copytree(trained.folder.path, broken)
    shutil.rmtree(broken / "checkpoint")
    converted(broken, "--to", "hf", code=2)
    assert "has no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("begins", [False, True])
def test_a_tokenizer_of_the_library_gives_our_ids(begins: bool) -> None:
    from tokenizers import Tokenizer

    texts = ["the state of the union is strong", "H\u00e4llo \u2603  two\n\tspaces", "", "\x01\x7f"]
    bpe = BpeTokenizer.train((one.encode() for one in texts * 20), 280)
    for tokenizer in (ByteTokenizer(), bpe):
        text = tokenizer_json(tokenizer, begins=begins)
        assert text is not None
        library = Tokenizer.from_str(text)
        for one, ours in zip(texts, tokenizer.encode([t.encode() for t in texts]), strict=True):
            assert library.encode(one).ids == [0] * begins + ours.tolist()
            assert library.decode(ours.tolist()) == one
