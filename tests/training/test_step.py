"""One optimiser step: what it clips, what it keeps apart, and what it refuses to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from told_apart import SPANS, told_apart
from torch import Tensor

from isoflop.config import AdamW, Depth, EveryToken, Muon, RandomK, RunConfig, TopK
from isoflop.model import build
from isoflop.training import Trainer, initialise
from isoflop.training.step import THRESHOLD_DECAY

MakeRun = Callable[..., RunConfig]
LEARNED = TopK(capacity=0.25)


def trainer_of(config: RunConfig) -> Trainer:
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    return Trainer(model, config, compiled=False)


def batch(index: int = 0) -> Tensor:
    return torch.randint(256, (3, 17), generator=torch.Generator().manual_seed(index))


def language_state(trainer: Trainer) -> dict[str, Tensor]:
    """What the language model computes with: everything but decision heads and thresholds."""
    return {
        name: value.clone()
        for name, value in trainer.model.state_dict().items()
        if "predictor" not in name and "threshold" not in name
    }


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_clips_before_the_step(make_run: MakeRun) -> None:
    limit = 1e-3
    trainer = trainer_of(make_run(LEARNED, gradient_clip=limit))
    result = trainer.step(batch(), 0, 1.0)
    assert result.gradient_norm > 10 * limit
    assert result.predictor_norm > 10 * limit
    apart = {id(p) for block in trainer.model.routed for p in block.predictor.parameters()}
    squares = {True: 0.0, False: 0.0}
    for parameter, state in trainer.optimiser.parts[0].state.items():
        # After one step the first moment is the gradient that the update was made from.
        gradient = state["exp_avg"] / (1 - 0.9)
        squares[id(parameter) in apart] += float(gradient.square().sum())
    # Each alone, so that a large gradient of the one does not shrink the other's.
    assert squares[True] ** 0.5 == pytest.approx(limit, rel=1e-3)
    assert squares[False] ** 0.5 == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("weight", [0.0, 1e6], ids=["without", "a million times"])
def test_predictor_loss_leaves_the_language_model_alone(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    config = make_run(LEARNED)
    usual, changed = trainer_of(config), trainer_of(config)
    auxiliary = changed._auxiliary
    monkeypatch.setattr(changed, "_auxiliary", lambda routing: weight * auxiliary(routing))
    for index in range(6):
        results = [trainer.step(batch(index), index, 1.0) for trainer in (usual, changed)]
        assert results[0].loss == results[1].loss
        assert results[0].gradient_norm == results[1].gradient_norm
    assert_equal(language_state(changed), language_state(usual))
    heads = [trainer.model.routed[0].predictor[0].weight for trainer in (usual, changed)]
    assert not torch.equal(*heads)


def test_threshold_leaves_the_language_model_alone(make_run: MakeRun) -> None:
    usual, changed = trainer_of(make_run(LEARNED)), trainer_of(make_run(LEARNED))
    for index in range(4):
        usual.step(batch(index), index, 1.0)
        for block in changed.model.routed:
            block.threshold.fill_(100.0)
        changed.step(batch(index), index, 1.0)
    assert_equal(language_state(changed), language_state(usual))


def test_threshold_follows_the_smallest_selected_score(make_run: MakeRun) -> None:
    trainer = trainer_of(make_run(LEARNED))
    expected = None
    for index in range(3):
        with torch.no_grad():
            logits = trainer.model(batch(index)[:, :-1], decision="top_k").routing[0].logits
        smallest = logits.topk(4, dim=1).values[:, -1].mean()
        if expected is None:
            expected = smallest
        else:
            expected = THRESHOLD_DECAY * expected + (1 - THRESHOLD_DECAY) * smallest
        trainer.step(batch(index), index, 1.0)
        torch.testing.assert_close(trainer.model.routed[0].threshold, expected)


def poison_weight(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.model.head.weight[3, 5] = float("nan")


def infinite_gradient(trainer: Trainer) -> None:
    trainer.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))


def infinite_predictor_gradient(trainer: Trainer) -> None:
    head = trainer.model.routed[0].predictor[0].weight
    head.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize("optimiser", [AdamW(), Muon()], ids=lambda one: one.kind)
@pytest.mark.parametrize("fault", [poison_weight, infinite_gradient, infinite_predictor_gradient])
def test_what_is_not_finite_updates_nothing(
    make_run: MakeRun, fault: Callable[[Trainer], None], optimiser: AdamW | Muon
) -> None:
    trainer = trainer_of(make_run(LEARNED, optimiser=optimiser))
    assert trainer.step(batch(), 0, 1.0).finite
    fault(trainer)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    moments = {name: value.clone() for name, value in trainer.optimiser.state().items()}
    assert not trainer.step(batch(1), 1, 1.0).finite
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value.nan_to_num(7.0), before[name].nan_to_num(7.0)), name
    assert_equal(trainer.optimiser.state(), moments)


def test_what_comes_after_it_updates_nothing_either(make_run: MakeRun) -> None:
    trainer = trainer_of(make_run(LEARNED))
    trainer.step(batch(), 0, 1.0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    fault = trainer.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    assert not trainer.step(batch(1), 1, 1.0).finite
    fault.remove()
    # A GPU may have begun the next step before anybody has read how the last one went.
    assert trainer.step(batch(2), 2, 1.0).finite
    assert_equal(trainer.model.state_dict(), before)


def test_control_draws_noise_by_step_and_seed(make_run: MakeRun) -> None:
    config = make_run(RandomK(capacity=0.25))

    def noise(config: RunConfig, index: int) -> Tensor:
        drawn = trainer_of(config)._noise(batch(), index)
        assert drawn is not None
        return drawn

    first = noise(config, 4)
    assert first.shape == (2, 3, 16)
    assert torch.equal(first, noise(config, 4))
    assert not torch.equal(first, noise(config, 5))
    assert not torch.equal(first, noise(config.model_copy(update={"seed": 1}), 4))
    assert not torch.equal(first[0], first[1])
    # What torch's global generator did before is of no account.
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.append(trainer_of(config).step(batch(), 4, 1.0).loss)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("depth", [EveryToken(), LEARNED, RandomK(capacity=0.25)])
def test_statistics_tell_the_selected_from_the_others(make_run: MakeRun, depth: Depth) -> None:
    trainer = trainer_of(make_run(depth))
    with torch.no_grad():
        output = trainer.model(batch()[:, :-1], decision=None, noise=trainer._noise(batch(), 0))
    statistics = trainer.step(batch(), 0, 1.0).routing
    if isinstance(depth, EveryToken):
        assert statistics == {}
        return
    learned = ("predictor_accuracy", "predictor_share") if isinstance(depth, TopK) else ()
    assert set(statistics) == {"selected_logit", "skipped_logit", *learned}
    for index, decided in enumerate(output.routing):
        chosen, others = decided.logits[decided.selected], decided.logits[~decided.selected]
        assert statistics["selected_logit"][index] == pytest.approx(float(chosen.mean()), abs=1e-5)
        assert statistics["skipped_logit"][index] == pytest.approx(float(others.mean()), abs=1e-5)


@pytest.mark.parametrize("depth", [EveryToken(), LEARNED])
def test_span_losses_are_of_the_batch_before_the_update(make_run: MakeRun, depth: Depth) -> None:
    trainer = trainer_of(told_apart(make_run(depth)))
    tokens = batch()
    with torch.no_grad():
        logits = trainer.model(tokens[:, :-1], decision=None).logits.double()
    chances = logits.log_softmax(-1)
    nats = [[-float(chances[b, t, tokens[b, t + 1]]) for t in range(16)] for b in range(3)]
    expected = [
        sum(sum(row[start:stop]) for row in nats) / (3 * (stop - start)) for start, stop in SPANS
    ]
    result = trainer.step(tokens, 0, 1.0)
    assert result.span_losses == pytest.approx(expected, rel=1e-5)
    assert result.span_losses[4] == pytest.approx(result.loss, rel=1e-6)


def test_telling_positions_apart_trains_alike(make_run: MakeRun) -> None:
    config = make_run(LEARNED)
    usual, apart = trainer_of(config), trainer_of(told_apart(config))
    for index in range(3):
        expected, found = (trainer.step(batch(index), index, 1.0) for trainer in (usual, apart))
        assert expected.span_losses == ()
        assert len(found.span_losses) == 6
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-4)
