"""The CUDA path's logic on a CPU: its operators are replaced by written-out ones of like shapes."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from isoflop.ops import block_attention, block_attention_reference, blocks
from isoflop.ops.blocks import attention, kernels, operator, parts
from isoflop.ops.blocks.kernels import CudaKernel


def runs(q: Tensor, ends: Tensor, key_ends: Tensor) -> Any:
    for i in range(len(ends) - 1):
        yield slice(int(ends[i]), int(ends[i + 1])), slice(int(key_ends[i]), int(key_ends[i + 1]))


def scores_of(q: Tensor, k: Tensor, causal: bool, scale: float) -> Tensor:
    """Scores (h, rows, keys) of one run."""
    scores = torch.einsum("qhd,khd->hqk", q, k.expand(-1, q.shape[1], -1)) * scale
    future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf) if causal else scores


def varlen_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ends: Tensor,
    key_ends: Tensor,
    longest: int,
    keys: int,
    causal: bool,
    scale: float,
    window: list[int],
    grouped: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `torch.ops.torch_attn._varlen_attn` is documented to return: out, lse (h, R), state."""
    assert ends.dtype == key_ends.dtype == torch.int32
    assert longest == int(ends.diff().max())
    assert keys == int(key_ends.diff().max())
    assert window == [-1, 0 if causal else -1]
    assert grouped
    assert all(x.is_contiguous() for x in (q, k, v))
    out, lse = torch.empty_like(q), q.new_empty(q.shape[1], q.shape[0])
    for rows, columns in runs(q, ends, key_ends):
        scores = scores_of(q[rows], k[columns], causal, scale)
        lse[:, rows] = scores.logsumexp(-1)
        values = v[columns].expand(-1, q.shape[1], -1)
        out[rows] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
    return out, lse, torch.zeros(2, dtype=torch.uint64)


def varlen_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    ends: Tensor,
    key_ends: Tensor,
    longest: int,
    keys: int,
    causal: bool,
    state: Tensor,
    scale: float,
    window: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """FlashAttention's backward (arXiv 2307.08691, algorithm 2) from the given out and lse."""
    assert all(x.is_contiguous() for x in (grad, q, k, v, out, lse))
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    for rows, columns in runs(q, ends, key_ends):
        weights = (scores_of(q[rows], k[columns], causal, scale) - lse[:, rows, None]).exp()
        keys_, values = (x[columns].expand(-1, q.shape[1], -1) for x in (k, v))
        dweights = torch.einsum("qhd,khd->hqk", grad[rows], values)
        delta = (grad[rows] * out[rows]).sum(-1).T[..., None]
        dscores = weights * (dweights - delta) * scale
        dq[rows] = torch.einsum("hqk,khd->qhd", dscores, keys_)
        dk[columns] += torch.einsum("hqk,qhd->kd", dscores, q[rows])[:, None]
        dv[columns] += torch.einsum("hqk,qhd->kd", weights, grad[rows])[:, None]
    return dq, dk, dv


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_cuda_path(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = CudaKernel()
    monkeypatch.setattr(kernel, "_forward", varlen_forward)
    monkeypatch.setattr(kernel, "_backward", varlen_backward)
    monkeypatch.setattr(parts, "_kernel", lambda q: kernel)
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 6, 40, 10), *2 * [(2, groups, 40, 10)]]
    leaves = [
        torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes
    ]
    documents = torch.tensor([[0] * 40, [0] * 11 + [1] * 26 + [-1] * 3])
    grad = torch.randn(shapes[0], generator=generator, dtype=torch.float64)
    for given in (None, documents):
        options: dict[str, Any] = {"block_size": 7, "top_k": 3, "documents": given}
        expected = block_attention_reference(*leaves, **options)
        result = block_attention(*leaves, **options)
        torch.testing.assert_close(result, expected)
        for found, true in zip(
            torch.autograd.grad(result, leaves, grad),
            torch.autograd.grad(expected, leaves, grad),
            strict=True,
        ):
            torch.testing.assert_close(found, true)


def test_the_replaced_operators_have_the_arguments_of_torch() -> None:
    kernel = CudaKernel()
    forward = [a.name for a in kernel._forward.default._schema.arguments]
    if "scale" not in forward:
        pytest.skip("this torch has no scale here: on CUDA block attention needs Triton with it")
    assert forward[:11] == [
        *("query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"),
        *("is_causal", "scale", "window_size", "enable_gqa"),
    ]
    backward = [a.name for a in kernel._backward.default._schema.arguments]
    assert backward == [
        *("grad_out", "query", "key", "value", "out", "lse", "cu_seq_q", "cu_seq_k"),
        *("max_q", "max_k", "is_causal", "rng_state", "scale", "window_size"),
    ]


def test_flash_moba_gets_packed_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_moba_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        ends: Tensor,
        key_ends: Tensor,
        longest: int,
        keys: int,
        block_size: int,
        top_k: int,
        causal: bool,
    ) -> Tensor:
        assert causal
        assert longest == keys == 40
        assert ends.tolist() == key_ends.tolist() == [0, 40, 80]
        sequences = [
            block_attention_reference(
                *(x[a:b].transpose(0, 1)[None] for x in (q, k, v)),
                block_size=block_size,
                top_k=top_k,
            )[0].transpose(0, 1)
            for a, b in ((0, 40), (40, 80))
        ]
        return torch.cat(sequences)

    package = types.ModuleType("flash_moba")
    package.flash_moba_varlen_func = flash_moba_varlen_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_moba", package)
    monkeypatch.setattr(attention, "flash_moba_can", lambda q: True)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 40, 10, generator=generator, dtype=torch.float64)
        for heads in (6, 2, 2)
    )
    options: dict[str, Any] = {"block_size": 7, "top_k": 3, "scale": 0.4}
    torch.testing.assert_close(
        block_attention(q, k, v, **options), block_attention_reference(q, k, v, **options)
    )


def test_a_cpu_tensor_takes_the_cpu_kernel() -> None:
    assert isinstance(parts._kernel(torch.zeros(1)), kernels.CpuKernel)
    assert not attention.flash_moba_can(torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16))


def test_what_a_cuda_tensor_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cuda: Any = types.SimpleNamespace(is_cuda=True)
    kernels_in_triton = types.ModuleType("isoflop.ops.blocks.triton")
    monkeypatch.setitem(sys.modules, kernels_in_triton.__name__, kernels_in_triton)
    monkeypatch.setattr(blocks, "triton", kernels_in_triton, raising=False)
    monkeypatch.setattr(operator, "find_spec", lambda name: name)
    assert operator.path_for(on_cuda) is kernels_in_triton
    assert operator.path_for(torch.zeros(1)) is parts
    monkeypatch.setattr(operator, "find_spec", lambda name: None)
    assert operator.path_for(on_cuda) is parts
    assert isinstance(parts._kernel(on_cuda), CudaKernel)
