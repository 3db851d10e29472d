"""Variants that ship through the door, against others' code and slow obvious references."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from own_runs import model_of, shipped

from isoflop.config import ModelConfig
from isoflop.config.own import own
from isoflop.costs import cache_bytes, forward_flops, parameters
from isoflop.model import build
from isoflop.ops import rotary_tables, rotate
from isoflop.variants import costs_of, made, processed
from isoflop.variants.mixture_of_experts import grouped

MOE = "mixture_of_experts"


def part(part: Any, kind: str, model: ModelConfig, block: int = 0, **settings: Any) -> Any:
    """Return a shipped module in float64 with weights that do something."""
    module = made(own(part, kind, settings), part, model, block)
    assert module is not None
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return module.double()


def tokens(length: int, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, length, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("inner", "outer"), [(10, 16), (16, 10), (18, 22), (16, 16)])
def test_groups_of_any_width_are_multiplied_by_their_own_matrix(inner: int, outer: int) -> None:
    generator, ends = torch.Generator().manual_seed(0), torch.tensor([2, 2, 7])
    rows, matrices = (
        torch.randn(*shape, generator=generator) for shape in ((9, inner), (3, outer, inner))
    )
    gradients = []
    for kind in (torch.float32, torch.float64):
        given = [one.to(kind).requires_grad_() for one in (rows, matrices)]
        found = grouped(*given, ends)[:7]
        of_rows, of_matrices = torch.autograd.grad((found**2).sum(), given)
        # What belongs to no group is told nothing that is used.
        gradients.append((found, of_rows[:7], of_matrices))
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_experts_are_mixtrals_weight_for_weight(top_k: int) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the dev extra")
    from transformers.models.mixtral import modeling_mixtral

    settings = {"experts": 5, "top_k": top_k, "normalise": True, "balance": 0.0}
    ours = part("feed_forward", MOE, model_of(), **settings)
    config = transformers.MixtralConfig(
        hidden_size=12,
        intermediate_size=ours.down.shape[-1],
        num_local_experts=5,
        num_experts_per_tok=top_k,
        router_jitter_noise=0.0,
        experts_implementation="eager",
    )
    theirs = modeling_mixtral.MixtralSparseMoeBlock(config).double()
    theirs.gate.weight.data = ours.router.weight.data.float().double()
    theirs.experts.gate_up_proj.data = ours.gate_up.data
    theirs.experts.down_proj.data = ours.down.data
    x, y = (tokens(11).requires_grad_() for _ in range(2))
    found, expected = ours(x)[0], theirs(y)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    (found**2).sum().backward()
    (expected**2).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)
    # And by the grouped product, which knows no float64.
    torch.testing.assert_close(
        ours.float()(x.detach().float())[0].double(), expected, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        ours.gate_up.grad.double(), theirs.experts.gate_up_proj.grad, rtol=1e-5, atol=1e-5
    )


def test_no_ops_give_nothing_and_shared_experts_meet_all() -> None:
    settings = {"experts": 2, "noop_experts": 2, "top_k": 1, "shared": 1}
    module = part("feed_forward", MOE, model_of(), **settings)
    x = tokens(40)
    found, told = module(x)
    odds = F.linear(x.float(), module.router.weight.float()).softmax(-1)
    best, chosen = odds.max(-1)

    def swiglu(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        gate, up = F.linear(x, gate_up).chunk(2, -1)
        return F.linear(F.silu(gate) * up, down)

    expected = swiglu(x, module.shared_gate_up.weight, module.shared_down.weight)
    for expert in range(2):
        made_ = swiglu(x, module.gate_up[expert], module.down[expert])
        expected = expected + made_ * (best * (chosen == expert))[..., None]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert float(told["computed"]) == pytest.approx(float((chosen < 2).float().mean()))
    # f and p of each sequence; an even router has a loss of its weight.
    load = torch.stack([(chosen == e).float().mean(1) for e in range(4)], -1)
    assert float(told["loss"].detach()) == pytest.approx(
        float((0.01 * 4 * (load * odds.mean(1)).sum(-1).mean()).detach())
    )
    found.sum().backward()
    assert torch.isfinite(module.gate_up.grad).all()


def test_a_token_goes_to_no_more_experts_than_there_are() -> None:
    with pytest.raises(ValueError, match="top_k is 3; expected at most 2"):
        own("feed_forward", MOE, {"experts": 1, "noop_experts": 1, "top_k": 3})


def test_a_bias_evens_the_load_without_a_loss() -> None:
    settings = {"experts": 4, "top_k": 1, "balance": 0.0, "bias_rate": 0.01}
    module = part("feed_forward", MOE, model_of(), **settings)
    x = tokens(200) + 1.0
    first = module(x)[1]["load"]
    for _ in range(200):
        module.after_step(module(x)[1])
    last = module(x)[1]["load"]
    assert "loss" not in module(x)[1]
    assert last.std() < 0.2 * first.std()


@pytest.mark.parametrize(("top_k", "noop", "shared"), [(1, 0, 0), (2, 0, 1), (2, 4, 0), (8, 0, 0)])
def test_costs_of_experts_are_those_of_what_a_token_meets(
    top_k: int, noop: int, shared: int
) -> None:
    settings = {"experts": 8, "top_k": top_k, "noop_experts": noop, "shared": shared, "hidden": 0.5}
    model = model_of(**shipped("feed_forward", MOE, **settings))
    found = costs_of(model.feed_forward, "feed_forward", model, 0, 64)  # type: ignore[arg-type]
    each, router = 3 * 12 * 8, 12 * (8 + noop)
    computed = top_k * 8 / (8 + noop) + shared
    assert found.flops == 2 * 64 * (router + computed * each)
    assert found.active == round(router + computed * each)
    counted = parameters(model)
    assert counted.total - counted.active == 2 * (found.parameters - found.active)


def test_each_expert_takes_its_best_tokens() -> None:
    module = part("feed_forward", "expert_choice", model_of(), experts=3, capacity=1.0)
    module.decision = "top_k"
    x = tokens(12)
    found, told = module(x)
    odds = F.linear(x.float(), module.router.weight.float()).softmax(-1)
    expected = torch.zeros_like(x)
    for row in range(3):
        for expert in range(3):
            best = odds[row, :, expert].topk(4)
            gate, up = F.linear(x[row, best.indices], module.gate_up[expert]).chunk(2, -1)
            made_ = F.linear(F.silu(gate) * up, module.down[expert]) * best.values[:, None]
            expected[row].index_add_(0, best.indices, made_)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    module.after_step(told)
    assert torch.equal(module.threshold, told["smallest"].double())
    module.decision = "threshold"
    changed = x.clone()
    changed[:, 6:] += 1.0
    torch.testing.assert_close(module(x)[0][:, :6], module(changed)[0][:, :6])


def window_reference(module: Any, x: torch.Tensor, model: ModelConfig, window: int, sinks: int):
    """Every query with all of its keys, by a mask over T x T."""
    length = x.shape[1]
    cosines, sines = (one.double() for one in rotary_tables(length, model.head_width, 1e4))
    heads = module.query_key_value(x).view(len(x), length, -1, model.head_width)
    groups = model.key_value_heads
    q, k, v = heads.split((model.heads, groups, groups), 2)
    q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
    share = model.heads // groups
    q, k, v = q.transpose(1, 2), *(o.transpose(1, 2).repeat_interleave(share, 1) for o in (k, v))
    back = torch.arange(length)[:, None] - torch.arange(length)
    allowed = (back >= 0) & ((back < window) | (torch.arange(length) < sinks))
    scores = (q @ k.mT / model.head_width**0.5).masked_fill(~allowed, float("-inf"))
    return module.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)), int(allowed.sum())


@pytest.mark.parametrize("length", [3, 8, 21, 24])
@pytest.mark.parametrize(("window", "sinks"), [(4, 0), (4, 2), (5, 6), (1, 1), (64, 3)])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_windows_are_those_of_a_mask(length: int, window: int, sinks: int, kv_heads: int) -> None:
    model = model_of().model_copy(update={"heads": 4, "kv_heads": kv_heads})
    settings = {"window": window, "sinks": sinks}
    module = part("attention", "sliding_window", model, **settings)
    x = tokens(length).requires_grad_()
    tables = [one.double() for one in rotary_tables(length, model.head_width, 1e4)]
    found = module(x, *tables)
    y = x.detach().clone().requires_grad_()
    expected, pairs = window_reference(module, y, model, window, sinks)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for result in (found, expected):
        (result**2).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-6)
    named = own("attention", "sliding_window", settings)
    cost = costs_of(named, "attention", model, 0, length)
    weights = module.query_key_value.weight.numel() + module.output.weight.numel()
    assert cost.parameters == weights
    assert cost.flops == 2 * length * weights + 4 * model.heads * model.head_width * pairs
    # A token at a time, from a prompt of five on.
    state, made_ = None, []
    for first, last in ((0, min(5, length)), *((at, at + 1) for at in range(5, length))):
        rows = [table[first:last] for table in tables]
        out, state = module.decode(x.detach()[:1, first:last], *rows, state)
        made_.append(out)
    torch.testing.assert_close(torch.cat(made_, 1), expected.detach()[:1], rtol=1e-6, atol=1e-6)
    assert state is not None
    assert cost.cache_values == state[0].numel() + state[1].numel()


def test_every_so_many_blocks_attend_fully() -> None:
    settings = {"window": 4, "full_every": 2}
    model = model_of(**shipped("attention", "sliding_window", **settings))
    costs = [costs_of(model.attention, "attention", model, b, 32) for b in (0, 1)]  # type: ignore[arg-type]
    full = forward_flops(model_of(), 32).parts
    assert costs[1].flops == full["attention_projections"] / 2 + full["attention_scores"] / 2
    assert costs[0].flops < costs[1].flops
    assert cache_bytes(model, 32) == cache_bytes(model_of(), 32) * (32 + 3) / 64


def test_capacities_by_block_and_over_training() -> None:
    model = model_of().model_copy(update={"blocks": 8})
    listed = own("depth", "routed", {"capacity": [0.5, 0.25]})
    assert [processed(listed, model, b, 64) for b in range(8)] == [64, 32, 64, 32, 64, 16, 64, 16]
    falling = own("depth", "routed", {"capacity": 0.25, "start_capacity": 1.0, "reached": 0.5})
    taken = [processed(falling, model, 1, 64, at) for at in (0.0, 0.25, 0.5, 1.0)]
    assert taken == [64, 40, 16, 16]
    with pytest.raises(ValueError, match="which teaches a router nothing"):
        own("depth", "routed", {"gate": "one"})
    with pytest.raises(ValueError, match="expected shares above 0, up to 1"):
        own("depth", "routed", {"capacity": [0.5, 0.0]})


def test_a_frozen_router_stays_and_a_gate_of_one_adds_the_whole_update() -> None:
    model = model_of(**shipped("depth", "routed", capacity=0.5, router="frozen", gate="one"))
    built = build(model, 0)
    frozen = [n for n, p in built.named_parameters() if not p.requires_grad]
    assert frozen == ["blocks.1.depth.own.router.weight"]
    whole = model_of(**shipped("depth", "routed", capacity=1.0, router="frozen", gate="one"))
    routed = build(whole, 0)
    plain = build(model_of(), 0)
    state = {n.replace("1.block.", "1."): p for n, p in routed.state_dict().items()}
    plain.load_state_dict({n: p for n, p in state.items() if ".depth." not in n})
    ids = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(routed(ids, decision="top_k").logits, plain(ids).logits)


@pytest.mark.filterwarnings("ignore")
def test_a_capacity_that_falls_compiles_nothing_anew() -> None:
    settings = {"capacity": 0.25, "start_capacity": 1.0, "reached": 0.5}
    model = build(model_of(**shipped("depth", "routed", **settings)), 0)
    counted = torch._dynamo.testing.CompileCounter()
    model.blocks[1].compile(backend=counted, dynamic=False)
    ids = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(0))
    frames = []
    for step in range(6):
        for _, part in model.own:
            part.own.progress(step / 10)
        model(ids, decision="top_k")
        frames.append(counted.frame_count)
    assert frames == frames[:1] * 6


def test_experts_that_are_given_no_token_cost_nothing() -> None:
    depth = own("depth", "fixed_skip", {"capacity": 0.5, "every": 1})
    model = model_of(depth=depth, feed_forward=own("feed_forward", "expert_choice", {}))
    assert forward_flops(model, 1).own == 0
