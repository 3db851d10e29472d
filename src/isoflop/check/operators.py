"""Every operator against its reference in float64, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.bench.machine import DTYPES
from isoflop.check.comparing import (
    TOLERANCE,
    Check,
    Found,
    Place,
    apart,
    values_and_slopes,
)
from isoflop.ops import (
    add_at,
    attention_step,
    block_attention,
    block_attention_reference,
    block_attention_step,
    block_means,
    causal_attention,
    causal_attention_reference,
    chunked_cross_entropy,
    gather_tokens,
    rotary_tables,
    rotate,
    routed_update_reference,
    top_k_positions,
)

LENGTH = 107
"""Tokens of a sequence, no multiple of a block of keys."""
BY_BLOCK: dict[str, Any] = {"block_size": 16, "top_k": 3}
ATTENDED = ((2, 4, LENGTH, 32), (2, 2, LENGTH, 32), (2, 2, LENGTH, 32))
"""Shapes of queries, keys and values."""
HINT = "do not trust what is trained here; report it with the output of `isoflop check --json`"


def _drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _held(
    ours: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: list[Tensor],
    place: Place,
) -> Found:
    """Compare values and slopes of ours, in the place's type, with those of the reference."""
    given = [x.to(place.device, DTYPES[place.precision]) for x in inputs]
    # The reference starts from the same rounded numbers.
    exact = [x.double().cpu() for x in given]
    probe = torch.randn(
        reference(*exact).shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    found = values_and_slopes(ours, given, probe)
    return Found(
        apart(found, values_and_slopes(reference, exact, probe)), TOLERANCE[place.precision]
    )


def _attention(place: Place) -> Found:
    return _held(causal_attention, causal_attention_reference, _drawn(*ATTENDED), place)


def _block_attention(place: Place) -> Found:
    ours = partial(block_attention, **BY_BLOCK)
    return _held(ours, partial(block_attention_reference, **BY_BLOCK), _drawn(*ATTENDED), place)


def _decoding(place: Place) -> Found:
    q, k, v = (x.to(place.device, DTYPES[place.precision]) for x in _drawn(*ATTENDED))
    exact = [x.double().cpu() for x in (q, k, v)]
    last, means = q[:, :, -1:], block_means(k, BY_BLOCK["block_size"])
    found = [attention_step(last, k, v), block_attention_step(last, k, v, means, **BY_BLOCK)]
    expected = [
        causal_attention_reference(*exact)[:, :, -1:],
        block_attention_reference(*exact, **BY_BLOCK)[:, :, -1:],
    ]
    return Found(apart(found, expected), TOLERANCE[place.precision])


def _routing(place: Place) -> Found:
    x, scores, matrix = _drawn((3, LENGTH, 32), (3, LENGTH), (32, 32))
    positions = top_k_positions(scores, LENGTH // 4)
    selected = torch.zeros(3, LENGTH, dtype=torch.bool).scatter(1, positions, True)

    def ours(x: Tensor, gates: Tensor, matrix: Tensor) -> Tensor:
        at = positions.to(x.device)
        update = (gather_tokens(x, at) @ matrix).tanh()
        return add_at(x, at, gates.gather(1, at)[..., None] * update)

    def reference(x: Tensor, gates: Tensor, matrix: Tensor) -> Tensor:
        return routed_update_reference(x, selected, gates, lambda rows, _: (rows @ matrix).tanh())

    return _held(ours, reference, [x, scores, matrix / 6], place)


def _rotary(place: Place) -> Found:
    (x,) = _drawn((2, LENGTH, 4, 32))

    def ours(x: Tensor) -> Tensor:
        cosines, sines = (table.to(x.device) for table in rotary_tables(LENGTH, 32, 10_000.0))
        return rotate(x, cosines, sines)

    def reference(x: Tensor) -> Tensor:
        speeds = 10_000.0 ** (-torch.arange(0, 32, 2, dtype=torch.float64) / 32)
        angles = torch.arange(LENGTH, dtype=torch.float64)[:, None] * speeds
        turned = torch.polar(torch.ones_like(angles), angles)[None, :, None]
        one, two = x.chunk(2, dim=-1)
        mixed = torch.complex(one, two) * turned
        return torch.cat([mixed.real, mixed.imag], dim=-1)

    return _held(ours, reference, [x], place)


def _cross_entropy(place: Place) -> Found:
    x, table = _drawn((LENGTH, 32), (500, 32))
    targets = torch.randint(500, (LENGTH,), generator=torch.Generator().manual_seed(2))

    def ours(x: Tensor, table: Tensor) -> Tensor:
        return chunked_cross_entropy(x, table, targets.to(x.device), logits=500 * 64)[0]

    def reference(x: Tensor, table: Tensor) -> Tensor:
        return F.cross_entropy(x @ table.T, targets)

    return _held(ours, reference, [x, table], place)


_FORWARD_AND_BACKWARD = "forward and backward with the definition in float64"
CHECKS = (
    Check("attention", _FORWARD_AND_BACKWARD, HINT, _attention),
    Check("block attention", _FORWARD_AND_BACKWARD, HINT, _block_attention),
    Check("attention of the last token", "with the definition in float64", HINT, _decoding),
    Check("routed update", _FORWARD_AND_BACKWARD, HINT, _routing),
    Check("rotary positions", _FORWARD_AND_BACKWARD, HINT, _rotary),
    Check("loss in chunks of logits", _FORWARD_AND_BACKWARD, HINT, _cross_entropy),
)
