"""A variant of one's own in transformers: its code goes along, and runs where it is trusted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from own_runs import CHOICES, run_of

from isoflop.cli import main
from isoflop.config import own
from isoflop.generation import engine_for, generate
from isoflop.runs import RunStore
from isoflop.training import load_model, train

transformers = pytest.importorskip("transformers", reason="needs the dev extra")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Warnings of transformers' own are no errors of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def loaded(folder: Path, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()


@pytest.mark.parametrize("named", ["parallel", "moe in linear in skip"])
def test_its_code_goes_along_and_is_run_where_it_is_trusted(
    named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("isoflop.interop.hugging_face")
    config, cache = run_of(tmp_path, **CHOICES[named]), tmp_path / "cache"
    folder = RunStore(tmp_path).folder(config.run_id)
    train(config, folder, cache=cache, threads=1)
    model, out = load_model(folder), tmp_path / "out"
    assert main(["convert", str(folder.path), str(out), "--to", "hf", "--cache", str(cache)]) == 0
    told = f"wrote {out}: IsoflopForCausalLM, read with trust_remote_code=True"
    assert told in capsys.readouterr().out.splitlines()
    assert "`trust_remote_code=True`" in (out / "README.md").read_text()
    # As in a process that knows nothing of the variant.
    monkeypatch.setattr(own, "_TEXTS", {})
    own.config_of.cache_clear()
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        loaded(out, trust_remote_code=False)
    peer = loaded(out, trust_remote_code=True)
    tokens = torch.tensor([[1, 98, 99, 97, 98]])
    with torch.no_grad():
        assert torch.equal(peer(tokens).logits, model(tokens).logits)
    made = peer.generate(tokens, max_new_tokens=6, do_sample=False, pad_token_id=0)
    (ours,) = generate(engine_for(model), tokens.tolist(), max_tokens=6, stop=[0])
    assert made[0, 5 : 5 + len(ours.ids)].tolist() == list(ours.ids)
