"""What each position decides from its own past must not know the future; top-k must leak it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from isoflop.config import Cap, Decision, EveryToken, ModelConfig, RandomK, TopK, decisions
from isoflop.model import Transformer, build, control_draws

BATCH, LENGTH = 3, 17
LEARNED = TopK(capacity=0.3, router_bce=0.1)
CAUSAL: list[tuple[object, Decision]] = [
    (EveryToken(), "every_token"),
    (LEARNED, "predictor"),
    (LEARNED, "threshold"),
    (LEARNED, "router"),
    (LEARNED, "every_token"),
    (RandomK(capacity=0.3), "bernoulli"),
]


def model_with(depth: object) -> Transformer:
    """A model whose routers, predictors and thresholds select some tokens and not others."""
    config = ModelConfig(
        vocabulary=29, width=10, blocks=4, heads=2, head_width=6, hidden=14, depth=depth
    )
    model = build(config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for block in model.routed:
            block.router.weight.normal_(0, 1, generator=generator)
            block.threshold.fill_(0.4)
    return model


def token_ids() -> Tensor:
    return torch.randint(29, (BATCH, LENGTH), generator=torch.Generator().manual_seed(3))


def draws(model: Transformer) -> Tensor | None:
    if not isinstance(model.config.depth, RandomK):
        return None
    shape = (len(model.routed), LENGTH)
    return torch.rand(shape, generator=torch.Generator().manual_seed(4))


def change_of_the_past(model: Transformer, decision: Decision, t: int) -> float:
    """Largest change of the logits up to t when every token after t is another one."""
    tokens = token_ids()
    changed = tokens.clone()
    changed[:, t + 1 :] = (changed[:, t + 1 :] + 7) % 29
    with torch.no_grad():
        before, after = (
            model(x, decision=decision, noise=draws(model)).logits for x in (tokens, changed)
        )
    assert (before - after)[:, t + 1 :].abs().max() > 1e-2
    return float((before - after)[:, : t + 1].abs().max())


@pytest.mark.parametrize(("depth", "decision"), CAUSAL)
def test_the_future_leaves_causal_logits_alone(depth: object, decision: Decision) -> None:
    model = model_with(depth)
    assert max(change_of_the_past(model, decision, t) for t in range(LENGTH - 1)) < 1e-5


def test_top_k_leaks_the_future() -> None:
    model = model_with(LEARNED)
    leaks = [change_of_the_past(model, "top_k", t) for t in range(LENGTH - 1)]
    assert max(leaks) > 1e-2
    # Not only at the end: most positions lose or gain their place to a later token.
    assert sum(leak > 1e-3 for leak in leaks) > LENGTH // 2


@pytest.mark.parametrize(("depth", "decision"), CAUSAL)
def test_a_batch_equals_its_sequences_one_by_one(depth: object, decision: Decision) -> None:
    model = model_with(depth)
    tokens, noise = token_ids(), draws(model)
    with torch.no_grad():
        together = model(tokens, decision=decision, noise=noise)
        for row in range(BATCH):
            alone = model(tokens[row : row + 1], decision=decision, noise=noise)
            torch.testing.assert_close(
                together.logits[row : row + 1], alone.logits, rtol=1e-5, atol=1e-5
            )
            for batched, single in zip(together.routing, alone.routing, strict=True):
                assert torch.equal(batched.selected[row], single.selected[0])


def test_rows_may_select_nothing_or_all() -> None:
    model = model_with(LEARNED)
    block = model.routed[0]
    block.threshold.fill_(0.0)
    direction = block.router.weight[0]
    x = torch.randn(BATCH, LENGTH, 10, generator=torch.Generator().manual_seed(5))
    x[1] -= 9 * direction
    x[2] += 9 * direction
    cosines, sines = model.rotary(LENGTH, torch.device("cpu"))
    with torch.no_grad():
        together, decided = block(x, cosines, sines, "threshold", None)
        counts = decided.selected.sum(1).tolist()
        assert 0 < counts[0] < LENGTH
        assert counts[1:] == [0, LENGTH]
        assert torch.equal(together[1], x[1])
        for row in range(BATCH):
            alone, _ = block(x[row : row + 1], cosines, sines, "threshold", None)
            torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-5)


def test_each_decision_selects_by_its_own_rule() -> None:
    model = model_with(LEARNED)
    with torch.no_grad():
        # One token's own logit, so that the border shows: what reaches the threshold is selected.
        logits = model(token_ids(), decision="router").routing[0].logits
        model.routed[0].threshold.copy_(logits.flatten().median())
        for decision in ("predictor", "threshold", "router"):
            first = model(token_ids(), decision=decision).routing[0]
            assert first.predictor_logits is not None
            expected = {
                "predictor": first.predictor_logits > 0,
                "threshold": first.logits >= model.routed[0].threshold,
                "router": first.logits > 0,
            }[decision]
            assert torch.equal(first.selected, expected)
            assert 0 < int(expected.sum()) < expected.numel()


def test_bernoulli_selects_a_capacity_share() -> None:
    model = model_with(RandomK(capacity=0.3))
    noise = torch.rand(2, 4000, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        output = model(torch.zeros(1, 4000, dtype=torch.long), decision="bernoulli", noise=noise)
    for decided in output.routing:
        assert abs(float(decided.selected.float().mean()) - 0.3) < 0.03


@pytest.mark.parametrize("depth", [EveryToken(), LEARNED, RandomK(capacity=0.3)])
def test_default_is_top_k_in_training_and_the_headline_after(depth: object) -> None:
    model = model_with(depth)
    torch.manual_seed(0)
    headline = decisions(model.config.depth)[0]
    for training, expected in ((True, "top_k"), (False, headline)):
        model.train(training)
        decision = headline if headline == "every_token" else expected
        torch.manual_seed(0)
        implied = model(token_ids()).logits
        torch.manual_seed(0)
        assert torch.equal(implied, model(token_ids(), decision=decision).logits)


@pytest.mark.parametrize(
    ("depth", "decision"),
    [
        (EveryToken(), "top_k"),
        (TopK(capacity=0.3), "router"),
        (TopK(capacity=0.3), "bernoulli"),
        (RandomK(capacity=0.3), "predictor"),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(depth: object, decision: Decision) -> None:
    model = model_with(depth)
    with pytest.raises(ValueError, match=f"decision is '{decision}'; expected one of "):
        model(token_ids(), decision=decision)


@pytest.mark.parametrize("decision", ["predictor", "threshold", "router", "every_token"])
def test_a_cap_processes_the_first_wanted_tokens_of_each_window(decision: Decision) -> None:
    model = model_with(LEARNED)
    tokens = token_ids()[:, :15]
    with torch.no_grad():
        free = model(tokens, decision=decision).routing[0].selected
        held = model(tokens, decision=decision, cap=Cap(window=5, tokens=2)).routing
        loose = model(tokens, decision=decision, cap=Cap(window=5, tokens=5))
        # Left to the model, it is its capacity: 0.3 of ten tokens.
        nominal = model(tokens, decision=decision, cap=Cap(window=10)).routing[0].selected
    wanted = free.view(BATCH, 3, 5)
    expected = (wanted & (wanted.cumsum(-1) <= 2)).flatten(1)
    assert torch.equal(held[0].selected, expected)
    assert not torch.equal(expected, free)
    assert int(nominal[:, :10].sum(1).max()) == 3
    assert torch.equal(loose.logits, model(tokens, decision=decision).logits)


@pytest.mark.parametrize(("depth", "decision"), [(LEARNED, "top_k"), (EveryToken(), None)])
def test_a_cap_that_does_not_fit_is_refused(depth: object, decision: Decision | None) -> None:
    with pytest.raises(ValueError, match="expected a causal decision in a model that routes"):
        model_with(depth)(token_ids(), decision=decision, cap=Cap(window=4))


def test_draws_of_the_control_are_keyed_by_seed_block_and_position() -> None:
    short, long = control_draws(13, 3, seed=5), control_draws(1000, 3, seed=5)
    assert torch.equal(short, long[:, :13])
    assert not torch.equal(short, control_draws(13, 3, seed=6))
    assert short.unique().numel() == 3 * 13
