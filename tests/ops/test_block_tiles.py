"""Tiles hold every pair of query and block once, side by side with their kind."""

from __future__ import annotations

import pytest
import torch

from isoflop.ops.blocks.tiles import UNBOUNDED, tile


@pytest.mark.parametrize(("cut", "multiple"), [(8, 4), (8, 8), (16, 1), (UNBOUNDED, 1)])
def test_every_pair_has_one_row(cut: int, multiple: int) -> None:
    units, queries, selected, blocks = 2, 53, 3, 7
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(units, queries, blocks, generator=generator).argsort(-1)[..., :selected]
    chosen[torch.rand(chosen.shape, generator=generator) < 0.3] = -1
    chosen[chosen == 5] = -1
    tiles = tile(chosen, blocks, cut=cut, multiple=multiple)

    lengths, block = tiles.lengths.tolist(), tiles.block.tolist()
    assert lengths == sorted(lengths, reverse=True)
    assert all(n > 0 and n % multiple == 0 for n in lengths)
    assert tiles.rows == sum(lengths) == len(tiles.query)
    empty = set(tiles.empty.tolist())
    held = []
    row = 0
    for length, number in zip(lengths, block, strict=True):
        for at in range(row, row + length):
            if at not in empty:
                held.append((int(tiles.query[at]), number))
        row += length
    expected = [
        (unit * queries + query, unit * blocks + int(number))
        for unit in range(units)
        for query in range(queries)
        for number in chosen[unit, query]
        if number >= 0
    ]
    assert sorted(held) == sorted(expected)
    assert len(empty) == tiles.rows - len(expected)
    # Tiles of a list are alike, and of at least `cut` rows where there are several.
    for number in set(block):
        count = sum(1 for _, there in expected if there == number)
        own = {n for n, there in zip(lengths, block, strict=True) if there == number}
        assert block.count(number) == max(1, count // cut)
        assert len(own) == 1
        assert count <= block.count(number) * own.pop() < count + block.count(number) * multiple

    row_block = torch.tensor(block).repeat_interleave(tiles.lengths)
    for query in range(units * queries):
        for choice in range(selected):
            at = int(tiles.slot[query, choice])
            wanted = int(chosen.view(-1, selected)[query, choice])
            if wanted < 0:
                assert at == tiles.rows
            else:
                assert int(tiles.query[at]) == query
                assert int(row_block[at]) == query // queries * blocks + wanted


@pytest.mark.parametrize("selected", [0, 2])
def test_nothing_selected(selected: int) -> None:
    tiles = tile(torch.full((1, 5, selected), -1), 3, cut=8, multiple=4)
    assert tiles.rows == 0
    assert len(tiles.block) == 0
    assert tiles.slot.shape == (5, selected)
