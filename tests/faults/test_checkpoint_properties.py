"""Checkpoints of any tensors come back bit by bit; a changed byte is never loaded as another state.

A quick and always equal draw by default; a long random one in the slow tests.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import _TYPES

from isoflop import checkpoint
from isoflop.checkpoint import Checkpoint

QUICK = settings(
    derandomize=True,
    max_examples=15,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LONG = settings(QUICK, derandomize=False, max_examples=1500)

DTYPES = list(_TYPES.values())
"""All that the format knows."""

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
nested = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits of any type and shape, zero-dimensional and empty ones too, seen in any order."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(256, (count,), generator=generator).to(torch.uint8)
    tensor = (raw % 2).bool() if dtype == torch.bool else raw.view(dtype)
    tensor = tensor.reshape(shape)
    match draw(st.sampled_from(["plain", "transposed", "strided", "conjugated"])):
        case "transposed" if len(shape) > 1:
            return tensor.transpose(0, -1)
        case "strided" if shape and shape[0] > 1:
            return tensor[::2]
        case "conjugated" if dtype.is_complex:
            return tensor.conj()
    return tensor


states = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map(".".join).filter(lambda n: n != "__metadata__"),
    tensors(),
    max_size=5,
)
values = st.dictionaries(names, nested, max_size=4)


def bits(tensor: torch.Tensor) -> bytes:
    plain = tensor.resolve_conj().clone(memory_format=torch.contiguous_format).reshape(-1)
    return bytes(plain.view(torch.uint8).tolist()) if tensor.numel() else b""


def hold_equal(
    found: Checkpoint | None, state: dict[str, torch.Tensor], saved: dict[str, Any]
) -> None:
    assert found is not None
    assert found.values == saved
    assert found.tensors.keys() == state.keys()
    for name, tensor in state.items():
        back = found.tensors[name]
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert bits(back) == bits(tensor)


def hold(disk: Path, state: dict[str, torch.Tensor], saved: dict[str, Any], data: Any) -> None:
    """A state comes back; with bytes changed that are drawn it comes back or is refused."""
    with tempfile.TemporaryDirectory(dir=disk) as place:
        folder = Path(place)
        checkpoint.save(folder, 7, state, saved)
        hold_equal(checkpoint.latest(folder), state, saved)
        files = sorted((folder / "step-00000007").iterdir())
        # Several bytes of one checkpoint, one after the other, since saving is what takes time.
        for _ in range(12 if data else 0):
            path = data.draw(st.sampled_from(files))
            good = path.read_bytes()
            bad = bytearray(good)
            bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
            path.write_bytes(bad)
            with suppress(ValueError):
                hold_equal(checkpoint.latest(folder), state, saved)
            path.write_bytes(good)


@pytest.mark.parametrize(
    "drawn", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"]
)
def test_any_state_comes_back_and_a_changed_byte_is_refused_or_changes_nothing(
    disk: Path, drawn: settings
) -> None:
    @drawn
    @given(state=states, saved=values, data=st.data())
    def check(state: dict[str, torch.Tensor], saved: dict[str, Any], data: Any) -> None:
        hold(disk, state, saved, data)

    check()
