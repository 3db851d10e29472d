"""Routed blocks against plain loops, and against the wrong variants that public code has.

`written_out` computes a whole model a sequence at a time, with its own normalisation, rotary
positions and feed-forward. Given the name of a wrong variant, it makes that mistake: the model
must agree with the right one and must not agree with any wrong one.
"""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from given import small_model
from isoflop.config import EveryToken, Gate, ModelConfig, Own, RandomK, TopK
from isoflop.config.own import own
from isoflop.model import Block, RoutedBlock, Transformer, build, membership_loss
from isoflop.ops import causal_attention_reference, membership, routed_update_reference

Wrong = Literal[
    "residual counted twice",
    "gated sum replaces the token",
    "only the feed-forward gated",
    "no gate",
    "strict threshold selects k - 1",
    "positions renumbered",
    "router shared between layers",
    "all tokens are keys",
]
WRONG: tuple[Wrong, ...] = Wrong.__args__  # type: ignore[attr-defined]

BATCH, LENGTH = 3, 13


def config(depth: object, **choices: object) -> ModelConfig:
    shape = {"vocabulary": 29, "width": 10, "blocks": 4, "heads": 4, "kv_heads": 2}
    return small_model(**shape, head_width=6, hidden=14, depth=depth, **choices)


def routed_model(depth: object, **choices: object) -> Transformer:
    """A model whose routers are as large as trained ones, so that every mistake shows."""
    model = build(config(depth, **choices), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for block in model.routed:
            block.router.weight.normal_(0, 1, generator=generator)
    return model


def token_ids(seed: int = 5) -> Tensor:
    return torch.randint(29, (BATCH, LENGTH), generator=torch.Generator().manual_seed(seed))


def normalised(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight


def turned(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Rotary positions of (C, H, K) by complex products."""
    half = x.shape[-1] // 2
    angles = positions[:, None] * base ** (-torch.arange(half) / half)
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angles), angles
    ).unsqueeze(1)
    return torch.cat((pairs.real, pairs.imag), -1)


def attended(block: Block, config: ModelConfig, x: Tensor, positions: Tensor) -> Tensor:
    """The attention update of one sequence (C, D)."""
    heads, groups, width = config.heads, config.key_value_heads, config.head_width
    inner = normalised(x, block.attention_norm.weight, config.norm_epsilon)
    projected = inner @ block.attention.query_key_value.weight.T
    q, k, v = projected.view(len(x), -1, width).split((heads, groups, groups), dim=1)
    q, k = turned(q, positions, config.rope_base), turned(k, positions, config.rope_base)
    mixed = causal_attention_reference(*(part.transpose(0, 1)[None] for part in (q, k, v)))
    return mixed[0].transpose(0, 1).flatten(1) @ block.attention.output.weight.T


def fed_forward(block: Block, config: ModelConfig, x: Tensor) -> Tensor:
    """The feed-forward update of tokens (C, D)."""
    inner = normalised(x, block.feed_forward_norm.weight, config.norm_epsilon)
    if isinstance(config.feed_forward, Own):
        return torch.stack([mixed(block.feed_forward.own, config, token) for token in inner])
    gate, up = (inner @ block.feed_forward.gate_up.weight.T).chunk(2, -1)
    return (F.silu(gate) * up) @ block.feed_forward.down.weight.T


def mixed(module: nn.Module, config: ModelConfig, token: Tensor) -> Tensor:
    """What one token (D) gets from its experts, those that give nothing among them."""
    odds = (module.router.weight @ token).softmax(-1)
    chosen = odds.argsort(descending=True).tolist()
    result = torch.zeros_like(token)
    for expert in chosen[: config.feed_forward.settings["top_k"]]:
        if expert < len(module.down):
            gate, up = (module.gate_up[expert] @ token).chunk(2)
            result = result + odds[expert] * (module.down[expert] @ (F.silu(gate) * up))
    return result


def updated(block: Block, config: ModelConfig, x: Tensor, positions: Tensor) -> Tensor:
    """f(x) of one sequence, without the outer residual."""
    attention = attended(block, config, x, positions)
    return attention + fed_forward(block, config, x + attention)


def routed_sequence(
    block: RoutedBlock, router: Tensor, config: ModelConfig, x: Tensor, wrong: Wrong | None
) -> Tensor:
    """One sequence (T, D) through a routed block with a linear gate, under top-k."""
    logits = x @ router
    k = config.depth.selected_tokens(len(x))
    ranked = sorted(range(len(x)), key=lambda i: (-logits[i].item(), i))
    chosen = sorted(ranked[: k - 1] if wrong == "strict threshold selects k - 1" else ranked[:k])
    where = torch.tensor(chosen)
    tokens = x[where]
    positions = torch.arange(len(chosen)) if wrong == "positions renumbered" else where
    update = updated(block.block, config, tokens, positions)
    if wrong == "all tokens are keys":
        update = updated(block.block, config, x, torch.arange(len(x)))[where]
    gate = logits[where, None]
    match wrong:
        case "residual counted twice":
            new = tokens + gate * (tokens + update)
        case "gated sum replaces the token":
            new = gate * (tokens + update)
        case "only the feed-forward gated":
            middle = tokens + attended(block.block, config, tokens, positions)
            new = middle + gate * fed_forward(block.block, config, middle)
        case "no gate":
            new = tokens + update
        case _:
            new = tokens + gate * update
    rows = list(x)
    for row, i in zip(new, chosen, strict=True):
        rows[i] = row
    return torch.stack(rows)


def written_out(model: Transformer, tokens: Tensor, wrong: Wrong | None = None) -> Tensor:
    """Logits (B, T, V) under top-k, a sequence at a time."""
    config = model.config
    results = []
    for sequence in tokens:
        x = model.embedding.weight[sequence]
        for block in model.blocks:
            if isinstance(block, RoutedBlock):
                first = wrong == "router shared between layers"
                router = (model.routed[0] if first else block).router.weight[0]
                x = routed_sequence(block, router, config, x, wrong)
            else:
                plain = getattr(block, "block", block)  # Experts tell of their load, in a wrapper.
                x = x + updated(plain, config, x, torch.arange(len(x)))
        x = normalised(x, model.norm.weight, config.norm_epsilon)
        results.append(x @ model.head.weight.T)
    return torch.stack(results)


def distance(found: Tensor, expected: Tensor) -> float:
    difference = (found - expected).detach().abs().max()
    return float(difference / expected.detach().abs().max())


@torch.no_grad()
@pytest.mark.parametrize("wrong", WRONG)
def test_catches(wrong: Wrong) -> None:
    model = routed_model(TopK(capacity=0.4))
    tokens = token_ids()
    found = model(tokens, decision="top_k").logits
    assert distance(found, written_out(model, tokens)) < 1e-5
    assert distance(found, written_out(model, tokens, wrong)) > 1e-2


@pytest.mark.parametrize("noop", [0, 3])
@pytest.mark.parametrize("depth", [TopK(capacity=0.4), EveryToken()], ids=["staged", "alone"])
def test_experts_behind_routing_and_beside_no_ops(
    depth: TopK | EveryToken, noop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staged and integrated MoDE (2404.02258, section 4.4), a whole model, forward and backward."""
    # Routers are in float32 whatever the model is in: by default that decides the last digits.
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    settings = {"experts": 4, "noop_experts": noop, "top_k": 3}
    experts = own("feed_forward", "mixture_of_experts", settings)
    model = routed_model(depth, feed_forward=experts).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "feed_forward.own" in name:
                weight.normal_(0, 0.5, generator=generator)
    learned = [weight for name, weight in model.named_parameters() if "predictor" not in name]
    tokens, results = token_ids(), []
    for logits in (model(tokens).logits, written_out(model, tokens)):
        results.append([logits, *torch.autograd.grad(logits.square().mean(), learned)])
    for found, expected in zip(*results, strict=True):
        assert distance(found, expected) < 1e-5  # Of rotary tables in float32.


@pytest.mark.parametrize("kind", ["linear", "sigmoid", "tanh"])
@pytest.mark.parametrize("depth", [TopK, RandomK])
def test_block_equals_the_reference_forward_and_backward(
    kind: Gate, depth: type[TopK] | type[RandomK]
) -> None:
    model = routed_model(depth(capacity=0.4, gate=kind))
    block = model.routed[0]
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(BATCH, LENGTH, 10, generator=generator)
    noise = torch.randn(BATCH, LENGTH, generator=generator) if depth is RandomK else None
    cosines, sines = model.rotary(LENGTH, torch.device("cpu"))

    def update(tokens: Tensor, positions: Tensor) -> Tensor:
        return block.block(tokens[None], cosines[positions], sines[positions])[0][0]

    def reference(x: Tensor) -> Tensor:
        logits = x @ block.router.weight[0]
        scores = logits.detach() if noise is None else noise
        best = [sorted(range(LENGTH), key=lambda i: -float(row[i]))[:5] for row in scores]
        gates = {"linear": logits, "sigmoid": logits.sigmoid(), "tanh": 1 + logits.tanh()}[kind]
        return routed_update_reference(x, membership(torch.tensor(best), LENGTH), gates, update)

    results = []
    for function in (lambda x: block(x, cosines, sines, "top_k", noise)[0], reference):
        leaf = x.clone().requires_grad_()
        learned = [*block.block.parameters(), block.router.weight]
        result = function(leaf)
        gradients = torch.autograd.grad(result.square().sum(), [leaf, *learned])
        results.append([result, *gradients])
    for found, expected in zip(*results, strict=True):
        assert distance(found, expected) < 1e-5


@torch.no_grad()
def test_catches_auxiliary_targets_without_the_batch_offset() -> None:
    model = routed_model(TopK(capacity=0.4, router_bce=1.0))
    routing = model.stream(token_ids(), decision="top_k").routing
    for decided in routing:
        k = model.config.depth.selected_tokens(LENGTH)
        positions = decided.logits.topk(k, dim=1).indices
        right = torch.zeros(BATCH, LENGTH)
        for row in range(BATCH):
            right[row, positions[row]] = 1
        wrong = torch.zeros(BATCH * LENGTH)
        wrong[positions.flatten()] = 1
        for logits in (decided.predictor_logits, decided.logits):
            loss, probabilities = membership_loss(logits, decided), logits.double().sigmoid()

            def entropy(target: Tensor, p: Tensor = probabilities) -> Tensor:
                return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

            torch.testing.assert_close(loss.double(), entropy(right), rtol=1e-5, atol=1e-6)
            assert abs(float(loss - entropy(wrong.view(BATCH, LENGTH)))) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("capacity", [0.01, 0.4, 0.999, 1.0])
def test_selects_exactly_k_of_each_sequence(capacity: float) -> None:
    model = routed_model(TopK(capacity=capacity))
    k = max(1, int(capacity * LENGTH))
    with torch.no_grad():
        # All scores equal: a strict comparison with the k-th largest would select none.
        model.routed[0].router.weight.zero_()
    for decided in model(token_ids(), decision="top_k").routing:
        assert decided.selected.sum(1).tolist() == [k] * BATCH


@torch.no_grad()
def test_capacity_one_with_gate_one_is_the_dense_model() -> None:
    # The tanh gate of a router without weights is exactly one.
    model = build(config(TopK(capacity=1.0, every=1, gate="tanh")), seed=3)
    dense = build(config(EveryToken()), seed=0)
    for block in model.routed:
        block.router.weight.zero_()
    state = {k.replace(".block.", "."): v for k, v in model.state_dict().items()}
    dense.load_state_dict({k: state[k] for k in dense.state_dict()})
    tokens = token_ids()
    expected = dense(tokens).logits
    assert distance(model(tokens, decision="top_k").logits, expected) < 1e-5
    assert distance(model(tokens, decision="every_token").logits, expected) < 1e-5
    half = build(config(TopK(capacity=0.5, every=1, gate="tanh")), seed=3)
    half.load_state_dict(model.state_dict())
    assert distance(half(tokens, decision="top_k").logits, expected) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("blocks", [(0,), (0, 3), (2, 1)])
def test_blocks_may_be_named(blocks: tuple[int, ...]) -> None:
    model = routed_model(TopK(capacity=0.4, blocks=blocks))
    routed = [i for i, block in enumerate(model.blocks) if isinstance(block, RoutedBlock)]
    assert routed == sorted(blocks)
    tokens = token_ids()
    assert distance(model(tokens, decision="top_k").logits, written_out(model, tokens)) < 1e-5


@torch.no_grad()
def test_random_control_ranks_noise_and_gates_by_the_router() -> None:
    model = routed_model(RandomK(capacity=0.4))
    noise = torch.randn(2, BATCH, LENGTH, generator=torch.Generator().manual_seed(8))
    first = model(token_ids(), decision="top_k", noise=noise)
    for index, decided in enumerate(first.routing):
        expected = membership(noise[index].topk(5, dim=1).indices, LENGTH)
        assert torch.equal(decided.selected, expected)
    model.routed[0].router.weight.mul_(2)
    doubled = model(token_ids(), decision="top_k", noise=noise)
    assert torch.equal(first.routing[0].selected, doubled.routing[0].selected)
    assert distance(doubled.logits, first.logits) > 1e-2
