"""What tokens are drawn with: definitions, limits, and draws that come in the right shares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from isoflop.generation import GREEDY, Sampling, probabilities
from isoflop.generation.sampling import Sampler

PLAIN = torch.tensor([[0.4, 0.1, 0.3, 0.15, 0.05], [0.05, 0.05, 0.2, 0.1, 0.6]]).double()
LOGITS = PLAIN.log() + torch.tensor([[3.0], [-7.0]])


def cut(**choices: float) -> Tensor:
    return probabilities(LOGITS, Sampling(**choices))


@pytest.mark.parametrize("choices", [{}, {"top_p": 1.0, "min_p": 0.0}, {"top_k": 5}, {"top_k": 9}])
def test_what_cuts_nothing_is_the_softmax(choices: dict[str, float]) -> None:
    torch.testing.assert_close(cut(**choices), PLAIN)


@pytest.mark.parametrize(
    ("choices", "kept"),
    [
        ({"top_k": 1}, [[0], [4]]),
        ({"top_k": 2}, [[0, 2], [2, 4]]),
        # The tokens needed to reach the probability, the one that reaches it among them.
        ({"top_p": 0.39}, [[0], [4]]),
        ({"top_p": 0.41}, [[0, 2], [4]]),
        ({"top_p": 0.72}, [[0, 2, 3], [2, 4]]),
        # At least this share of the likeliest: 0.4 * 0.3 = 0.12 and 0.6 * 0.3 = 0.18.
        ({"min_p": 0.3}, [[0, 2, 3], [2, 4]]),
        ({"min_p": 0.01}, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        ({"min_p": 1.0}, [[0], [4]]),
        # Every cut looks at the whole distribution; a token stays that all of them leave.
        ({"top_k": 2, "top_p": 0.72}, [[0, 2], [2, 4]]),
        ({"top_k": 3, "min_p": 0.3, "top_p": 0.41}, [[0, 2], [4]]),
    ],
)
def test_cuts_by_hand(choices: dict[str, float], kept: list[list[int]]) -> None:
    expected = torch.zeros_like(PLAIN)
    for row, tokens in enumerate(kept):
        expected[row, tokens] = PLAIN[row, tokens] / PLAIN[row, tokens].sum()
    torch.testing.assert_close(cut(**choices), expected)


def test_of_equally_likely_tokens_the_lowest_stay() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0]])
    for choices in ({"top_k": 2}, {"top_p": 0.5}):
        found = probabilities(logits, Sampling(**choices))
        assert found.tolist() == [[0, 0.5, 0.5, 0]]


def test_temperature() -> None:
    torch.testing.assert_close(cut(temperature=0.5), PLAIN**2 / (PLAIN**2).sum(-1, keepdim=True))
    # The cuts look at what the temperature makes: 0.15 over 0.4 is squared.
    assert int((cut(temperature=0.5, min_p=0.3) > 0).sum()) == 3
    greedy = torch.zeros_like(PLAIN)
    greedy[0, 0] = greedy[1, 4] = 1
    for temperature in (0.0, 5e-324, 1e-3):
        torch.testing.assert_close(cut(temperature=temperature), greedy)
    flat = cut(temperature=1e9)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.2))


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=1), Sampling(temperature=1e-4)])
def test_limits_are_greedy(sampling: Sampling) -> None:
    sampler = Sampler(sampling, [1, 2])
    for _ in range(20):
        assert sampler.draw(LOGITS.float()) == [0, 4]


def test_draws_come_in_their_shares() -> None:
    sampling = Sampling(top_k=3)
    sampler = Sampler(sampling, range(4000))
    drawn = torch.tensor(sampler.draw(LOGITS[:1].expand(4000, -1)))
    shares = drawn.bincount(minlength=5) / 4000
    expected = probabilities(LOGITS[:1], sampling)[0]
    assert float((shares - expected).abs().max()) < 0.03
    assert shares[expected == 0].sum() == 0
    # One stream's draws do too, and differ from step to step.
    alone = Sampler(sampling, [7])
    counts = torch.tensor([alone.draw(LOGITS[:1])[0] for _ in range(1000)]).bincount(minlength=5)
    assert float((counts / 1000 - expected).abs().max()) < 0.06


def test_a_stream_hangs_on_its_seed_only() -> None:
    logits = torch.zeros(3, 1000)
    together = Sampler(Sampling(), [5, 6, 7])
    first = together.draw(logits)
    together.keep([2, 0])
    later = together.draw(logits[:2])
    for place, (seed, row) in enumerate(((7, 2), (5, 0))):
        alone = Sampler(Sampling(), [seed])
        assert alone.draw(logits[:1]) == [first[row]]
        assert alone.draw(logits[:1]) == [later[place]]
    assert len(set(first)) == 3


def test_logits_that_are_not_finite_are_refused() -> None:
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(FloatingPointError, match="logits are not finite"):
            Sampler(GREEDY, [0]).draw(torch.tensor([[1.0, wrong, 2.0]]))
    # A token may be ruled out.
    assert Sampler(GREEDY, [0]).draw(torch.tensor([[1.0, -torch.inf]])) == [0]
