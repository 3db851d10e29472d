"""Exported models in the hands of transformers: the same logits, the same text, the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from decoded import model_with
from isoflop.config import BlockAttention, DataConfig, Gelu, RandomK, Recipe, RunConfig, TopK
from isoflop.config.own import own
from isoflop.evaluation import control_noise
from isoflop.generation import engine_for, generate
from isoflop.interop import load_pretrained, parsed_choices
from isoflop.interop.exporting import folder_of_model, json_text, write_folder
from isoflop.interop.importing import import_checkpoint
from isoflop.model import Transformer, build
from isoflop.training.step import Trainer

transformers = pytest.importorskip("transformers", reason="needs the dev extra")
hugging_face = pytest.importorskip("isoflop.interop.hugging_face")

T, SEED = 24, 5
EXPERTS = own("feed_forward", "mixture_of_experts", {"experts": 4})
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"width": 24},
    "mistral": {},
    "qwen3": {"query_key_norm": True},
    "tied": {"width": 24, "tied_embeddings": True},
    "top_k": {"depth": TopK(capacity=0.25, router_bce=0.1)},
    "random_k": {"depth": RandomK(capacity=0.5)},
    "tied top_k": {"depth": TopK(capacity=0.5), "tied_embeddings": True},
    "block": {"attention": BlockAttention(block_size=4, top_k=2, key_convolution=3)},
    "gelu": {"feed_forward": Gelu()},
    "experts": {"width": 24, "hidden": 28, "feed_forward": EXPERTS},
    "window": {"attention": own("attention", "sliding_window", {"window": 5})},
    "skip": {"depth": own("depth", "fixed_skip", {"capacity": 0.3})},
    "routed": {"depth": own("depth", "routed", {"capacity": 0.25})},
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Warnings of transformers' own are no errors of ours."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def written(model: Transformer, folder: Path) -> Path:
    values, state = folder_of_model(model.config, T, model.state_dict(), None)
    seed = {"seed": SEED} if "model" in values else {}
    write_folder(folder, {"config.json": json_text(values | seed)}, state)
    return folder


def auto(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, 31, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("named", MODELS)
def test_a_model_goes_out_and_comes_back_bit_for_bit(named: str, tmp_path: Path) -> None:
    model = model_with(**MODELS[named])
    folder = written(model, tmp_path / "out")
    back = load_pretrained(folder)
    assert back.config == model.config
    state = model.state_dict()
    for name, one in back.state_dict().items():
        assert torch.equal(one, state[name]), name
    peer = auto(folder)
    plain = {"llama": "Llama", "tied": "Llama", "mistral": "Mistral", "qwen3": "Qwen3"}
    assert type(peer).__name__ == f"{plain.get(named, 'Isoflop')}ForCausalLM"
    tokens = torch.tensor(prompts(T, T))
    with torch.no_grad():
        noise = control_noise(model, model.config.decisions[0], 2, T, SEED)
        ours = model(tokens, noise=noise).logits
        theirs = peer(tokens).logits
    assert (ours - theirs).abs().max() <= 1e-5 * ours.abs().max()
    # And once more through transformers' own way of saving.
    peer.save_pretrained(tmp_path / "again")
    again = load_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(one, state[name]) for name, one in again.items())


@pytest.mark.parametrize("named", ["llama", "top_k", "random_k", "block", "experts", "routed"])
def test_greedy_text_is_that_of_the_engine(named: str, tmp_path: Path) -> None:
    model = model_with(**MODELS[named])
    peer = auto(written(model, tmp_path / "out"))
    given = prompts(5, 9)
    found = generate(engine_for(model, seed=SEED), given, max_tokens=12, stop=[0])
    longest = max(map(len, given))
    padded = torch.tensor([[0] * (longest - len(one)) + one for one in given])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in given])
    made = peer.generate(
        padded, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    for row, one in enumerate(found):
        ours = list(one.ids)
        assert made[row, longest : longest + len(ours)].tolist() == ours


def test_beams_are_reordered_in_the_compact_cache(tmp_path: Path) -> None:
    model = model_with(depth=TopK(capacity=0.25))
    peer = auto(written(model, tmp_path / "out"))
    tokens = torch.tensor(prompts(6))
    options = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    cached, whole = (peer.generate(tokens, use_cache=on, **options) for on in (True, False))
    assert torch.equal(cached, whole)


def test_padding_on_either_side_and_labels(tmp_path: Path) -> None:
    peer = auto(written(model_with(depth=TopK(capacity=0.25)), tmp_path / "out"))
    text = torch.tensor(prompts(7))
    with torch.no_grad():
        alone = peer(text).logits
        zeros, mask = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 7, dtype=torch.long)
        for order in (0, 1):
            sides = [(zeros, zeros), (text, mask)]
            ids, kept = (
                torch.cat(parts, 1) for parts in zip(*sides[:: 1 - 2 * order], strict=True)
            )
            found = peer(ids, attention_mask=kept).logits
            assert torch.allclose(found[:, 4:] if not order else found[:, :7], alone, atol=1e-6)
        labels = text.clone()
        labels[:, :3] = -100
        loss = peer(text, labels=labels).loss
    expected = torch.nn.functional.cross_entropy(alone[0, 2:-1], text[0, 3:])
    assert torch.allclose(loss, expected)


def tiny(kind: str, folder: Path, **changes: Any) -> Any:
    torch.manual_seed(1)
    sizes = {"vocab_size": 31, "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **heads, **changes})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    model.save_pretrained(folder, max_shard_size="20KB")
    return model


LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = {
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0},
    "llama3": LLAMA3 | {"rope_theta": 30.0, "factor": 8.0, "original_max_position_embeddings": 64},
}


@pytest.mark.parametrize(
    ("kind", "tied", "scaled"),
    [
        *((kind, tied, None) for kind in ("Llama", "Qwen3", "Mistral") for tied in (False, True)),
        *(("Llama", False, one) for one in SCALED),
    ],
)
def test_models_of_others_come_in_with_their_logits(
    kind: str, tied: bool, scaled: str | None, tmp_path: Path
) -> None:
    rope = {} if scaled is None else {"rope_parameters": SCALED[scaled]}
    theirs = tiny(kind, tmp_path / "theirs", tie_word_embeddings=tied, sliding_window=None, **rope)
    assert (tmp_path / "theirs/model.safetensors.index.json").is_file()
    found = import_checkpoint(tmp_path / "theirs", tmp_path / "ours")
    assert not found.added
    model = load_pretrained(tmp_path / "ours")
    tokens = torch.tensor(prompts(T, T))
    with torch.no_grad():
        ours, expected = model(tokens).logits, theirs(tokens).logits
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    if scaled is not None:
        told = json.loads((tmp_path / "ours/config.json").read_text())["rope_parameters"]
        assert told == SCALED[scaled]
        plain = build(model.config.model_copy(update={"rope_scaling": None}))
        plain.load_state_dict(model.state_dict())
        assert (plain(tokens).logits - expected).abs().max() > 1e-5 * expected.abs().max()


def test_a_dense_model_becomes_routed_with_its_weights(tmp_path: Path) -> None:
    """A router that has learned nothing passes its block's update on nearly as it was."""
    ends: dict[str, Any] = {"bos_token_id": 3, "eos_token_id": [4, 5], "pad_token_id": 6}
    theirs = tiny("Llama", tmp_path / "theirs", **ends)
    found = import_checkpoint(
        tmp_path / "theirs", tmp_path / "ours", parsed_choices(["depth=top_k:0.5"])
    )
    assert found.model.depth == TopK(capacity=0.5, gate="tanh")
    assert {name.split(".")[2] for name in found.added} == {"router", "predictor", "threshold"}
    import_checkpoint(tmp_path / "theirs", tmp_path / "plain")
    for name in ("ours", "plain"):
        told = json.loads((tmp_path / name / "config.json").read_text())
        assert {end: told.get(end) for end in ends} == ends
    model = load_pretrained(tmp_path / "ours")
    tokens = torch.tensor(prompts(T, T))
    with torch.no_grad():
        every = model(tokens, decision="every_token").logits
        expected = theirs(tokens).logits
    assert (every - expected).abs().max() <= 0.05 * expected.abs().max()
    # And is trained on: twenty steps on one batch.
    data = DataConfig(tokenizer="ids:31", sequence_length=T)
    recipe = Recipe(precision="fp32", learning_rate=1e-2)
    config = RunConfig(model=model.config, data=data, recipe=recipe, steps=20, sequences_per_step=4)
    trainer = Trainer(model, config, compiled=False)
    batch = torch.tensor(prompts(*[T + 1] * 4))
    losses = [trainer.step(batch, step, 1.0).loss for step in range(20)]
    assert losses[-1] < losses[0] - 0.5
    # As another routed model its routers, which have learned, are new once more.
    routers = [f"blocks.{at}.router.weight" for at in (1, 3)]
    again = import_checkpoint(
        written(model, tmp_path / "trained"), tmp_path / "again", parsed_choices(["depth=top_k:1"])
    )
    assert set(again.added) == set(found.added)
    quiet = load_pretrained(again.folder).state_dict()
    assert all(float(quiet[name].abs().max()) < 0.02 for name in routers)
    by_blocks = load_pretrained(tmp_path / "theirs", parsed_choices(["attention=block:4,2"]))
    assert by_blocks.config.attention == BlockAttention(block_size=4, top_k=2)
    convolved = written(model_with(**MODELS["block"]), tmp_path / "convolved")
    with pytest.raises(ValueError, match=r"'blocks.0.attention.key_convolution.weight', which"):
        load_pretrained(convolved, parsed_choices(["attention=block:8,2"]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; expected one of llama, mistral, qwen3"),
        ({"attention_bias": True}, "attention_bias = True: not supported here"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu': not supported here"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotary positions of type 'yarn'"),
        ({"model_type": "mistral", "sliding_window": 8}, "sliding_window = 8: not supported"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'; expected a whole number, 1 or more"),
        ({"num_hidden_layers": 5}, "has no weights 'model.layers.4.input_layernorm.weight'"),
    ],
)
def test_what_is_not_supported_is_named(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    tiny("Llama", folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))
    with pytest.raises(ValueError, match=told):
        load_pretrained(folder)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    tiny("Llama", folder)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"no model.safetensors; pytorch_model.bin is a pickle"):
        load_pretrained(folder)
    with pytest.raises(ValueError, match=r"is no folder; expected one with config.json"):
        load_pretrained(tmp_path / "nowhere")


def test_words_for_choices_are_of_the_forms_that_are_known() -> None:
    given = ['feed_forward={"kind": "gelu"}', "attention=full"]
    assert parsed_choices(given) == {
        "feed_forward": {"kind": "gelu"},
        "attention": {"kind": "full"},
    }
    for wrong in ("width=3", "depth=top_k:much", "depth={", "depth"):
        with pytest.raises(ValueError, match=r"expected depth=top_k:CAPACITY"):
            parsed_choices([wrong])
