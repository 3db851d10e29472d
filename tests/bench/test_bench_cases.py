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
    for group, (width, heads, length, batch) in zip(
        standard_groups(), [(256, 4, 512, 8), (512, 8, 1024, 4)], strict=True
    ):
        assert [(c.implementation, c.compiled) for c in group] == [
            ("isoflop", True),
            ("isoflop", False),
            ("isoflop", True),
            ("transformers", False),
            ("transformers", True),
        ]
        for one in group:
            model = one.config.model
            assert (model.width, model.blocks, model.heads) == (width, 8, heads)
            assert model.head_width * heads == width
            assert (model.vocabulary, one.config.recipe.precision) == (4096, "bf16")
            assert one.config.data.sequence_length == length
            assert one.config.sequences_per_step == batch
        assert len({one.config.model.hidden for one in group}) == 1
        assert [one.config.model.routed_blocks for one in group] == [
            (1, 3, 5, 7) if one.variant == "MoD 12.5%" else () for one in group
        ]


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
