"""`isoflop check FILE` passes a variant that keeps to the door, and names what another breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from isoflop.check import Outcome, outcomes, own, own_checks
from isoflop.check.comparing import Place
from isoflop.check.coordinates import changes
from isoflop.check.steps import small_run
from isoflop.cli import main
from isoflop.cli.study import starter_text
from isoflop.config import BlockAttention, Choices, RandomK, TopK
from isoflop.config.own import BUILT_IN, of_file
from isoflop.config.own import own as own_variant

FILES = Path(__file__).parents[1] / "variants" / "files"
EXAMPLES = FILES.parents[2] / "examples"
LINEAR, SKIP = ((FILES / f"{name}.py").read_text() for name in ("linear", "skip"))


all_checks = own.checks
MINE = 'attention = { kind = "mine", from = "Mine.py" }\n\n[[variants]]'


def judged(folder: Path, text: str, *names: str, **beside: Any) -> dict[str, Outcome]:
    """Return how checks of those names, or all, went for the text of a file."""
    (folder / "mine.py").write_text(text)
    part, named = of_file(folder / "mine.py")
    checks = own_checks(Choices(**{part: named}, **beside))
    chosen = [check for check in checks if not names or check.name in names]
    return {one.name: one for one in outcomes(chosen, "cpu", ("fp32", "bf16"))}


def edited(text: str, *edits: tuple[str, str]) -> str:
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return text


AGAIN = (
    "self.decode(x, cosines, sines, None)[0]",
    "checkpoint(self.decode, x, cosines, sines, None, use_reentrant=False)[0]",
)
AGAIN_FROM = ("import torch\n", "import torch\nfrom torch.utils.checkpoint import checkpoint\n")
OUTPUT = "return self.output("
NAN = (OUTPUT, "return torch.nan * self.output(")
DRAWN = (OUTPUT, f"mixed = mixed + 0.1 * torch.randn_like(mixed); {OUTPUT}")
SPARE = ("self.output = ", "self.spare = nn.Linear(width, 1, bias=False); self.output = ")
REFUSED = {
    "FLOPs": [
        ([("2 * tokens * weights +", "tokens * weights +")], "attention in block 1 counts"),
        ([("4 * tokens * state", "4 * tokens * state * (convention == 'full')")], "32,768 causal"),
        ([AGAIN_FROM, AGAIN], "the model counts 237,568 a token"),
    ],
    "parameters": [([SPARE], "attention in block 0 holds 36,960, `costs` says 36,864")],
    "gradients": [
        ([SPARE], "none reaches spare.weight in block 0"),
        ([NAN], "not finite in step 0"),
        ([("self.scale,", "self.roles = {'output.weight': 'out'}; self.scale,")], "has 'out'; exp"),
    ],
    "later tokens": [
        ([(".cumsum(1)", ".sum(1, keepdim=True)")], "evaluation by every_token a leak moves 100"),
        ([(".cumsum(1)", ".cumsum(1).roll(-self.training, 1)")], "in training by every_token a"),
        ([DRAWN], "the same tokens give other logits when they are given again"),
    ],
    "decoding": [
        ([("sums[:, -1:]", "0.9 * sums[:, -1:]")], ""),
        ([("cache_values=state", "cache_values=2 * state")], "16,384 bytes kept, `costs` says 32,"),
    ],
    "first loss": [([NAN], "nan, ln 256 = 5.55")],
    "steps in parts": [([("F.elu(q)", "F.elu(q) + q.mean(0, keepdim=True)")], "at a time")],
    "bf16": [([(OUTPUT, "assert x.dtype == self.output(")], "Assertion")],
    "width and depth": [([("= scale, heads", "= scale * width, heads")], "width +")],
}
CASES = [(name, *case) for name, cases in REFUSED.items() for case in cases]


@pytest.mark.parametrize(("name", "edits", "said"), CASES)
def test_what_is_wrong_fails_its_line(
    tmp_path: Path, name: str, edits: list[tuple[str, str]], said: str
) -> None:
    outcome = judged(tmp_path, edited(LINEAR, *edits), name)[name]
    assert not outcome.passed
    assert said in outcome.note
    assert outcome.hint


def test_pairs_hide_no_wrong_charge(tmp_path: Path) -> None:
    text = (EXAMPLES / "differential_attention.py").read_text()
    text = edited(text, ("flops=2 * tokens", "flops=2.04 * tokens"))
    assert "in twos " in judged(tmp_path, text, "FLOPs")["FLOPs"].note


LAYERS = [
    ("nn.Conv1d(inner, inner, 4, groups=inner, bias=False)", "(F.pad(x.mT, (3, 0))).mT", "4"),
    ("nn.Conv1d(inner, inner, 4, groups=2, bias=False)", "(F.pad(x.mT, (3, 0))).mT", "2 * inner"),
    ("nn.LSTM(inner, inner, bias=False)", "(x)[0]", "8 * inner"),
]


@pytest.mark.parametrize(("layer", "applied", "weights"), LAYERS)
def test_torchs_layers_count(tmp_path: Path, layer: str, applied: str, weights: str) -> None:
    text = edited(
        LINEAR,
        ("self.scale, self.heads", f"self.layer = {layer}; self.scale, self.heads"),
        (OUTPUT, f"x = mixed.flatten(2); mixed = self.layer{applied}; {OUTPUT}"),
        ("weights = 4 *", f"weights = inner * {weights} + 4 *"),
    )
    assert judged(tmp_path, text, "FLOPs")["FLOPs"].passed


BESIDE = [
    {"attention": BlockAttention(block_size=16, top_k=2, full_last=3)},
    {"depth": RandomK(capacity=0.25)},
    {"depth": TopK(capacity=0.25, blocks=(3,))},
]


@pytest.mark.parametrize("beside", BESIDE)
def test_what_is_right_passes_beside_what_ships(beside: dict[str, object]) -> None:
    part, named = of_file(EXAMPLES / "squared_relu.py")
    choices = Choices.model_validate({part: named, **beside})
    checks = [one for one in own_checks(choices) if one.name in ("FLOPs", "decoding")]
    assert [str(one) for one in outcomes(checks, "cpu", ("fp32",)) if not one.passed] == []
    config = small_run(Place("cpu", "fp32"), 2, **dict(choices))
    tokens = torch.arange(20).view(2, 10)
    assert changes(config, tokens) == changes(config, tokens)


def test_routing_hides_no_leak_in_training(tmp_path: Path) -> None:
    text = edited(LINEAR, (".cumsum(1)", ".cumsum(1).roll(-self.training, 1)"))
    found = judged(tmp_path, text, "later tokens", depth=TopK(capacity=0.5))["later tokens"]
    assert not found.passed
    assert "in training by predictor a leak" in found.note


def test_what_does_not_run_is_told_once(tmp_path: Path) -> None:
    found = judged(tmp_path, edited(LINEAR, ("F.elu(k)", "F.eluu(k)")))
    assert list(found) == ["parameters", "FLOPs"]
    assert "fails (line 40): AttributeError: module " in found["FLOPs"].note
    assert "protocols.py says" in str(found["FLOPs"].hint)


@pytest.mark.parametrize("file", [LINEAR, SKIP], ids=["linear", "skip"])
def test_what_is_right_passes(tmp_path: Path, file: str) -> None:
    names = [check.name for check in own_checks(Choices()) if "compiled" not in check.name]
    found = judged(tmp_path, file, *names)
    assert len(found) == 9
    assert [name for name, one in found.items() if not one.passed] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_own_parts_compile(tmp_path: Path) -> None:
    for text in (LINEAR, SKIP):
        outcome = judged(tmp_path, text, "compiled step")["compiled step"]
        assert outcome.passed
        assert outcome.difference


def test_the_command_judges_a_file_or_the_variants_of_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "checks", lambda choices: all_checks(choices)[:1])
    (tmp_path / "Mine.py").write_text(LINEAR)
    study = starter_text().replace("[[variants]]", "[[variants]]\nname = 'Mine'\n" + MINE, 1)
    (tmp_path / "study.toml").write_text(study)
    assert main(["check", "Mine.py"]) == 0
    assert 'attention = { kind = "mine", from = "Mine.py" }' in capsys.readouterr().out
    assert main(["check", "study.toml", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["parameters"]
    (tmp_path / "Mine.py").write_text(edited(LINEAR, SPARE))
    assert main(["check", "Mine.py"]) == 1
    assert "FAIL  parameters: " in capsys.readouterr().out
    (tmp_path / "study.toml").write_text(starter_text())
    for name, said in (("study.toml", "has no variant of your own"), ("no.py", "no such file")):
        assert main(["check", name]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "Mine.py").write_text(edited(LINEAR, ('"attention"', '"attn"')))
    assert main(["check", "Mine.py"]) == 2
    assert "its PART is 'attn'; expected one of attention, feed_forward" in capsys.readouterr().err


AROUND = {
    "sliding_window routed": {"depth": TopK(capacity=0.5)},
    "expert_choice skipped": {"depth": own_variant("depth", "fixed_skip", {"capacity": 0.3})},
}
SET = {
    "expert_choice": {"experts": 4, "capacity": 0.3},
    "fixed_skip": {"capacity": 0.3},
    "sliding_window": {"window": 16, "sinks": 2},
    "mixture_of_experts": {"noop_experts": 8},
}


@pytest.mark.parametrize("name", [*BUILT_IN, "mixture_of_experts default", *AROUND])
def test_costs_of_variants_that_ship_are_what_is_counted(name: str) -> None:
    kind, *how = name.split()
    settings = {} if how == ["default"] else SET.get(kind, {})
    variant = {BUILT_IN[kind]: own_variant(BUILT_IN[kind], kind, settings)}
    choices = Choices(**variant, **AROUND.get(name, {}))
    chosen = [one for one in own_checks(choices) if one.name in ("parameters", "FLOPs", "decoding")]
    assert [one.note for one in outcomes(chosen, "cpu", ("fp32",)) if not one.passed] == []
