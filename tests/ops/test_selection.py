"""Choosing and moving tokens against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from isoflop.ops import (
    add_at,
    cap_selection,
    gather_tokens,
    mask_positions,
    membership,
    routed_update_reference,
    top_k_positions,
)

# Few distinct scores, so that most rows have ties at the border.
SCORES = st.integers(1, 23).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(-2, 2), min_size=length, max_size=length), min_size=1, max_size=3
    )
)
MASKS = st.integers(1, 13).flatmap(
    lambda length: st.lists(
        st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=5
    )
)


@given(SCORES, st.data())
def test_top_k_breaks_ties_towards_the_start_and_keeps_the_order(
    scores: list[list[int]], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(scores[0])))
    found = top_k_positions(torch.tensor(scores, dtype=torch.float32), k)
    for row, positions in zip(scores, found.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        assert positions == sorted(best)


@pytest.mark.parametrize("length", [1, 63, 1000])
def test_equal_scores_select_the_first_positions(length: int) -> None:
    k = max(1, length // 8)
    found = top_k_positions(torch.zeros(2, length), k)
    assert found.tolist() == 2 * [list(range(k))]


@given(MASKS)
def test_mask_positions_lists_what_is_true_before_its_padding(mask: list[list[bool]]) -> None:
    positions, real = mask_positions(torch.tensor(mask))
    width = max(1, max(sum(row) for row in mask))
    assert positions.shape == real.shape == (len(mask), width)
    for row, listed, valid in zip(mask, positions.tolist(), real.tolist(), strict=True):
        expected = [i for i, chosen in enumerate(row) if chosen]
        assert listed[: len(expected)] == expected
        assert valid == [True] * len(expected) + [False] * (width - len(expected))
        # `add_at` rests on it.
        assert len(set(listed)) == width


@given(MASKS)
def test_membership_undoes_mask_positions(mask: list[list[bool]]) -> None:
    given_mask = torch.tensor(mask)
    count = int(given_mask[0].sum())
    if count:
        positions, _ = mask_positions(given_mask[:1])
        assert torch.equal(membership(positions, len(mask[0])), given_mask[:1])


def test_gather_and_add_match_loops_forward_and_backward() -> None:
    batch, length, taken, width = 3, 11, 5, 7
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(batch, length, generator=generator)
    positions = top_k_positions(scores, taken)
    x = torch.randn(batch, length, width, dtype=torch.float64, generator=generator)
    moved = torch.randn(batch, taken, width, dtype=torch.float64, generator=generator)

    def gathered(x: Tensor) -> Tensor:
        rows = [[x[b, positions[b, c]] for c in range(taken)] for b in range(batch)]
        return torch.stack([torch.stack(row) for row in rows])

    def added(x: Tensor, update: Tensor) -> Tensor:
        rows = [list(sequence) for sequence in x]
        for b in range(batch):
            for c in range(taken):
                i = int(positions[b, c])
                rows[b][i] = rows[b][i] + update[b, c]
        return torch.stack([torch.stack(row) for row in rows])

    for fast, slow, arguments in (
        (lambda x: gather_tokens(x, positions), gathered, (x,)),
        (lambda x, u: add_at(x, positions, u), added, (x, moved)),
    ):
        leaves = [argument.clone().requires_grad_() for argument in arguments]
        results = [fast(*leaves), slow(*leaves)]
        torch.testing.assert_close(*results)
        weight = torch.randn(results[0].shape, dtype=torch.float64, generator=generator)
        gradients = [torch.autograd.grad(result, leaves, weight) for result in results]
        torch.testing.assert_close(*gradients)


def test_add_at_leaves_its_argument_and_takes_a_narrower_update() -> None:
    x = torch.zeros(1, 3, 2)
    positions = torch.tensor([[2]])
    result = add_at(x, positions, torch.ones(1, 1, 2, dtype=torch.bfloat16))
    assert result.dtype == torch.float32
    assert result.tolist() == [[[0, 0], [0, 0], [1, 1]]]
    assert not x.any()


def test_routed_update_reference_by_hand() -> None:
    x = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    selected = torch.tensor([[True, False, True], [False, False, False]])
    gates = torch.tensor([[10.0, 20.0, -1.0], [1.0, 1.0, 1.0]])

    def total_and_position(tokens: Tensor, positions: Tensor) -> Tensor:
        return tokens.sum() + positions[:, None].float()

    result = routed_update_reference(x, selected, gates, total_and_position)
    # 1 + 10 * (1 + 3 + 0) and 3 - 1 * (1 + 3 + 2).
    assert result.squeeze(-1).tolist() == [[41.0, 2.0, -3.0], [4.0, 5.0, 6.0]]


@pytest.mark.parametrize(("window", "most"), [(1, 1), (5, 2), (5, 5), (7, 1), (40, 3)])
def test_a_cap_keeps_the_first_wanted_tokens_of_each_window(window: int, most: int) -> None:
    wanted = torch.rand(3, 23, generator=torch.Generator().manual_seed(window)) < 0.6
    expected = torch.zeros_like(wanted)
    for row in range(3):
        for t in range(23):
            begin = t // window * window
            before = int(expected[row, begin:t].sum())
            expected[row, t] = bool(wanted[row, t]) and before < most
    kept, _ = cap_selection(wanted, window, most)
    assert torch.equal(kept, expected)
    assert torch.equal(kept, wanted) == (most >= window or window == 1)
    # In parts of any length it is the same.
    for length in (1, 4, 6):
        before, parts = None, []
        for begin in range(0, 23, length):
            kept, counts = cap_selection(
                wanted[:, begin : begin + length],
                window,
                most,
                start=torch.full((3,), begin),
                before=before,
            )
            before = counts[:, -1]
            parts.append(kept)
        assert torch.equal(torch.cat(parts, dim=1), expected)


def test_rows_under_a_cap_may_be_at_positions_of_their_own() -> None:
    wanted = torch.tensor([[True, True, True, True]]).expand(3, -1)
    start, before = torch.tensor([3, 4, 8]), torch.tensor([1, 2, 7])
    kept, counts = cap_selection(wanted, 4, 2, start=start, before=before)
    # Positions 3 to 6, where one token was wanted in the window before; 4 to 7; 8 to 11.
    assert kept.tolist() == [[True, True, True, False]] + 2 * [[True, True, False, False]]
    assert counts.tolist() == [[2, 1, 2, 3]] + 2 * [[1, 2, 3, 4]]
