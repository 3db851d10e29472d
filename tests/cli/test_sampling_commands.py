"""`isoflop sample` on tiny trained runs: the text, its colours, and what it refuses."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from functools import partial

import pytest

from isoflop.config import SampledToken, TextSample
from isoflop.data import ByteTokenizer
from isoflop.terminal.sample import summary, text_display
from isoflop.trained import Wishes, sample_run

PROMPT = "the caf\u00e9 of"
pytestmark = pytest.mark.filterwarnings("ignore:prompt and continuation take")

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def sample(on_run):
    return partial(on_run, "sample")


@pytest.fixture
def terminal(monkeypatch):
    """Give a display a terminal of 256 columns that knows all colours; NO_COLOR is not set."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    return Terminal()


def found(sample, folder, *arguments) -> TextSample:
    return TextSample.model_validate_json(sample(folder, *arguments, "--json"))


def text_of(one: TextSample) -> str:
    return "".join(token.text for token in (*one.prompt, *one.tokens))


def display(
    terminal: Terminal, *tokens: SampledToken, routed: int = 3, plain: bool = False
) -> None:
    with redirect_stdout(terminal), text_display(routed, plain=plain) as show:
        for token in tokens:
            show(token)


def token(text: str, *processed: int) -> SampledToken:
    return SampledToken(id=7, text=text, processed=processed)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:270"])
def test_a_sample_tells_who_processed_each_token(make_run, sample, tokenizer):
    folder = make_run("routed", tokenizer)
    one = found(sample, folder, "--prompt", PROMPT, "--tokens", 40, "--seed", 3)
    assert one.run_id == folder.config().run_id
    assert one.routed_blocks == folder.config().model.routed_blocks == (1, 3)
    assert one.prompt[0].id == 0
    assert "".join(piece.text for piece in one.prompt) == PROMPT
    assert len(one.tokens) == 40 or one.reason == "stop"
    assert all(set(piece.processed) <= {1, 3} for piece in (*one.prompt, *one.tokens[:-1]))
    assert one.tokens[-1].processed is None
    if tokenizer == "bytes":
        ids = [piece.id for piece in (*one.prompt, *one.tokens)]
        assert text_of(one) == ByteTokenizer().decode(ids).decode(errors="replace")
    assert one.decision == "predictor"


def test_a_seed_gives_the_same_text(make_run, sample):
    folder = make_run("routed")
    options = ("--prompt", "we", "--tokens", 30)
    first, again = (found(sample, folder, *options, "--seed", 5) for _ in range(2))
    assert first == again
    assert found(sample, folder, *options, "--seed", 6).tokens != first.tokens
    greedy = [
        found(sample, folder, *options, *options_of, "--seed", seed).tokens
        for seed, options_of in (
            (5, ("--temperature", 0)),
            (6, ("--top-k", 1)),
            (7, ("--top-p", 1e-9)),
            (8, ("--min-p", 1)),
        )
    ]
    assert all(tokens == greedy[0] for tokens in greedy)


def test_decision_and_cap_are_heeded(make_run, sample):
    folder = make_run("routed")
    options = ("--prompt", "the law", "--tokens", 16)
    every = found(sample, folder, *options, "--decision", "every_token")
    assert every.shares == (1.0, 1.0)
    capped = found(
        sample,
        folder,
        *(*options, "--decision", "every_token", "--cap-window", 4, "--cap-tokens", 1),
    )
    # The prompt is eight tokens, one of them the end of a document; the last one is not run.
    run = [piece.processed for piece in (*capped.prompt, *capped.tokens[:-1])]
    assert [bool(taken) for taken in run] == [place % 4 == 0 for place in range(len(run))]


def test_a_pipe_gets_the_text_alone(make_run, sample):
    folder = make_run("routed")
    options = ("--prompt", "state\tof\n", "--tokens", 20)
    one = found(sample, folder, *options)
    shown = sample(folder, *options)
    assert shown.startswith("state\tof\n")
    assert shown.endswith("\n")
    assert shown == sample(folder, *options, "--plain")
    assert re.sub(r"\\x[0-9a-f]{2}|\\[rn]", "", shown.rstrip("\n")) == "".join(
        c for c in text_of(one) if c in "\n\t" or c.isprintable()
    ).rstrip("\n")


def test_a_sample_is_kept_when_asked_and_the_record_left_alone(make_run, sample):
    folder = make_run("routed", learning_rate=9e-3)
    before = (folder.path / "record.json").read_bytes()
    first = found(sample, folder, "--prompt", "peace", "--tokens", 5)
    kept = folder.sample()
    sample(folder, "--prompt", "peace", "--tokens", 5, "--write")
    assert kept is None
    assert folder.sample() == first
    second = found(sample, folder, "--prompt", "war", "--tokens", 6, "--write")
    assert folder.sample() == second
    assert (folder.path / "record.json").read_bytes() == before
    assert json.loads((folder.path / "sample.json").read_text())["prompt"][1]["text"] == "w"


def test_colours_tell_how_many_blocks_processed_a_token(terminal):
    display(terminal, token("none"), token("one", 1), token("all", 1, 3, 5), token("again", 5))
    shown = terminal.getvalue()
    legend, text = shown.split("\n\n")
    assert ESCAPE.sub("", legend) == "routed blocks that processed a token:  0  1  2  3  of 3"
    assert ESCAPE.sub("", text) == "noneoneallagain\n"
    assert text.startswith("none")
    codes = dict(re.findall(r"(\x1b\[[0-9;]+m)(one|all|again)\x1b\[0m", text))
    by_text = {word: code for code, word in re.findall(r"(\x1b\[[0-9;]+m)(\w+)\x1b\[0m", text)}
    assert len(codes) == 2
    assert by_text["one"] == by_text["again"] != by_text["all"]
    assert f"{by_text['one']} 1 " in legend
    assert f"{by_text['all']} 3 " in legend


def test_a_legend_of_many_blocks_stays_short(terminal):
    display(terminal, token("x"), routed=40)
    legend = ESCAPE.sub("", terminal.getvalue().split("\n")[0])
    assert legend.endswith("35  40  of 40")
    assert len(legend) < 80


@pytest.mark.parametrize("how", ["plain", "NO_COLOR", "dumb"])
def test_colours_can_be_left_away(terminal, monkeypatch, how):
    if how == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    if how == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    display(terminal, token("one", 1), token("two", 1, 3), plain=how == "plain")
    assert terminal.getvalue() == "onetwo\n"


@pytest.mark.parametrize("plain", [True, False])
def test_no_text_reaches_the_terminal_as_a_command(terminal, plain):
    hostile = "\x1b]0;title\x07\x1b[2J\x9b31m\r\x08\x7f\u202e\u2066[red]:smile:\u2028end"
    display(terminal, *(token(character, 1) for character in hostile), plain=plain)
    shown = ESCAPE.sub("", terminal.getvalue())
    if not plain:
        shown = shown.split("\n\n")[1]
    assert shown == (
        r"\x1b]0;title\x07\x1b[2J\x9b31m\r\x08\x7f\u202e\u2066[red]:smile:\u2028end" + "\n"
    )


def test_an_encoding_that_lacks_characters_is_no_error(terminal):
    terminal.encoding = "ascii"
    display(terminal, token("caf\u00e9", 1))
    assert "caf\\xe9" in ESCAPE.sub("", terminal.getvalue())


def test_an_interrupted_text_ends_its_line(terminal):
    def interrupted() -> None:
        with redirect_stdout(terminal), text_display(3) as show:
            show(token("and so", 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().endswith("\n")


def test_the_summary_tells_shares(make_run, sample):
    one = found(sample, make_run("routed"), "--decision", "every_token", "--tokens", 4)
    assert summary(one).endswith(
        "under every_token, prompt included: block 1: 100.0%, block 3: 100.0%"
    )
    ended = one.model_copy(update={"reason": "stop", "routed_blocks": ()})
    assert summary(ended) == f"{len(one.tokens)} tokens, then the document ended"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--tokens", 0), "tokens is 0; expected at least 1"),
        (("--seed", -1), "seed is -1; expected from 0"),
        (("--temperature", -1), "temperature is -1"),
        (("--temperature", "nan"), "temperature is nan"),
        (("--top-p", 0), "top_p is 0"),
        (("--top-k", 0), "top_k is 0"),
        (("--min-p", 2), "min_p is 2"),
        (("--decision", "top_k"), "decision is 'top_k', which ranks tokens that are not there"),
        (("--decision", "bernoulli"), "decision is 'bernoulli'; expected one of"),
        (("--cap-tokens", 2), "--cap-tokens is given without --cap-window"),
        (("--cap-window", 0), "--cap-window is 0; expected 1 or more"),
        (("--threads", 0), "threads is 0"),
        (("--prompt", "\udcff"), "the prompt is not valid UTF-8"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(make_run, sample, options, told):
    lines = sample(make_run("routed"), *options, code=2).splitlines()
    assert len(lines) == 1
    assert told in lines[0]


def test_a_text_longer_than_training_windows_is_warned_of(make_run, trained_root):
    wishes = Wishes(tokens=16, top_k=1)
    with pytest.warns(UserWarning, match="take up to 17 tokens; .* on windows of 16"):
        sample_run(make_run("dense"), wishes, cache=trained_root, show=lambda _: None)
