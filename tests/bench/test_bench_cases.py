import pytest
import torch

from isoflop.bench import Case, cases, standard_groups
from isoflop.bench.cases import prepare_step
from isoflop.config import BlockAttention, DataConfig, Gelu, ModelConfig, RunConfig
from isoflop.costs import parameters


def small(**model: object) -> RunConfig:
    settings = {"vocabulary": 64, "width": 16, "blocks": 2, "heads": 2, "head_width": 8}
    return RunConfig(
        model=ModelConfig.model_validate({**settings, "hidden": 32, **model}),
        data=DataConfig(sequence_length=12),
        steps=1,
        sequences_per_step=2,
    )


def test_standard_groups_differ_only_in_what_is_compared() -> None:
    shapes = [(256, 4, 512, 8), (512, 8, 1024, 4)]
    for group, (width, heads, length, batch) in zip(standard_groups(), shapes, strict=True):
        assert [(c.implementation, c.compiled, c.variant) for c in group] == [
            ("isoflop", True, "dense"),
            ("isoflop", False, "dense"),
            ("isoflop", True, "MoD 12.5%"),
            ("transformers", False, "dense"),
            ("transformers", True, "dense"),
        ]
        dense, routed = group[0].config, group[2].config
        model = dense.model
        assert (model.width, model.blocks, model.heads, model.vocabulary) == (width, 8, heads, 4096)
        assert model.head_width * heads == width
        assert (dense.data.sequence_length, dense.sequences_per_step) == (length, batch)
        assert dense.recipe.precision == "bf16"
        assert (model.routed_blocks, routed.model.routed_blocks) == ((), (1, 3, 5, 7))
        plain = routed.model.model_copy(update={"depth": model.depth})
        assert routed.model_copy(update={"model": plain}) == dense
        assert {one.config for one in group} == {dense, routed}


def test_standard_groups_are_smaller_where_asked() -> None:
    for group in standard_groups("fp32", sequences=1, routed=False):
        assert {one.config.sequences_per_step for one in group} == {1}
        assert [one.variant for one in group] == ["dense"] * 4


@pytest.mark.parametrize("depth", ["top_k", "random_k"])
def test_our_step_trains(depth: str) -> None:
    config = small(depth={"kind": depth, "capacity": 0.5})
    prepare_step(Case(variant="a", config=config, compiled=False))()


def test_the_peer_has_our_parameters_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="needs transformers")
    config = small(kv_heads=1)
    model = cases.llama(config.model, 16)
    assert sum(p.numel() for p in model.parameters()) == parameters(config.model).total
    monkeypatch.setattr(cases, "llama", lambda *_: model)
    step = prepare_step(
        Case(variant="dense", config=config, compiled=False, implementation="transformers")
    )
    before = [p.detach().clone() for p in model.parameters()]
    step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("other", [{"feed_forward": Gelu()}, {"attention": BlockAttention()}])
def test_the_peer_has_only_plain_decoders(other: dict[str, object]) -> None:
    pytest.importorskip("transformers", reason="needs transformers")
    config = small(**other)
    with pytest.raises(ValueError, match="plain decoder"):
        prepare_step(
            Case(variant="dense", config=config, compiled=False, implementation="transformers")
        )
