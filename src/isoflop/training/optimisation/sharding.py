"""Blocks of which each rank holds a part (FSDP2, arXiv 2304.11277), for runs too large for one.

Weights, gradients and moments of blocks are split by rows over the ranks; a block's weights come
together while it computes. Embedding, head and last norm stay whole on each rank. What a step
computes is the same. Where nothing is sharded, all of this returns what it is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def shard(model: nn.Module, blocks: Sequence[nn.Module], device: str, ranks: int) -> None:
    """Split the parameters of blocks over all ranks, which have joined and call this alike.

    Args:
        model: that has them, initialised.
        blocks: of it, in order.
        device: `cpu` or `cuda`.
        ranks: how many there are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # What a block gives is never changed in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device, (ranks,))
    for block in blocks:
        # Losses are times their share of the step, so that gradients are sums.
        split = fully_shard(block, mesh=mesh)
        split.set_gradient_divide_factor(1.0)
        split.set_force_sum_reduction_for_comms(True)
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    # The whole model is wrapped too, so that a block's weights are fetched while another computes.
    outside = {p for p in model.parameters() if id(p) not in inside}
    fully_shard(model, mesh=mesh, ignored_params=outside)
    register_fsdp_forward_method(model, "stream")


def sums_up(model: nn.Module, now: bool) -> None:
    """Say whether the next backward pass of a sharded model adds up gradients over the ranks."""
    cast("FSDPModule", model).set_requires_gradient_sync(now)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this rank holds a part of a tensor."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this rank holds."""
    return cast("DTensor", tensor).to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor put together; all ranks call this alike."""
    return cast("DTensor", tensor).full_tensor() if is_sharded(tensor) else tensor


def part_of(like: Tensor, tensor: Tensor) -> Tensor:
    """Return the part of a whole tensor that this rank holds of another of its shape."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    split = cast("DTensor", like)
    shape, offset = compute_local_shape_and_global_offset(
        split.shape, split.device_mesh, split.placements
    )
    return tensor[offset[0] : offset[0] + shape[0]]


def split_as(like: Tensor, tensor: Tensor) -> Tensor:
    """Return a whole tensor split as another of its shape is."""
    return _joined(like, part_of(like, tensor).to(like.device)) if is_sharded(like) else tensor


def together(like: Tensor, part: Tensor) -> Tensor:
    """Return the whole tensor of which each rank has a part, as of another of its shape."""
    return whole(_joined(like, part)) if is_sharded(like) else part


def _joined(like: Tensor, part: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    split = cast("DTensor", like)
    return DTensor.from_local(
        part.contiguous(),
        split.device_mesh,
        split.placements,
        run_check=False,
        shape=split.shape,
        stride=split.stride(),
    )


def clip_split(
    parameters: Iterable[nn.Parameter], limit: float, add_up: Callable[[list[Tensor]], None]
) -> Tensor:
    """Clip the gradient of parameters, some split, and return its norm before that.

    Args:
        parameters: whose gradients are complete.
        limit: on the norm over all of them and all ranks.
        add_up: replaces tensors by their sums over the ranks.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    zero = torch.zeros(1, device=gradients[0].device)
    inside = _squares([local(one) for one in gradients if is_sharded(one)], zero)
    add_up([inside])
    norm = (inside + _squares([one for one in gradients if not is_sharded(one)], zero)).sqrt()[0]
    torch._foreach_mul_([local(one) for one in gradients], (limit / (norm + 1e-6)).clamp(max=1))
    return norm


def _squares(tensors: list[Tensor], zero: Tensor) -> Tensor:
    return sum((one.square().sum() for one in tensors), zero)
