"""Processes that train one run together: which rows of a batch are whose, and what all agree on.

Each holds the whole state, unless blocks are sharded (`training.optimisation.sharding`). Gradients
and all that a step measures are added up once a step; from equal sums every rank makes the same
update. Rank 0
leads: it alone claims the run's folder and writes to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from isoflop.hardware.ranks import Place, place
from isoflop.training.optimisation.sharding import is_sharded

RANK_TIMEOUT = 600.0
"""Seconds that a rank waits for the others: longer than a checkpoint takes to save."""
ELEMENTS_AT_A_TIME = 2**24
"""Of tensors that are added up together, which bounds the memory that takes."""

Value = TypeVar("Value")


class RankLost(ConnectionError):
    """Another rank ended or did not answer in time."""


@dataclass(frozen=True)
class Ranks:
    """All ranks of a run, and which of them this process is."""

    rank: int = 0
    world: int = 1
    """How many there are."""
    timeout_seconds: float = RANK_TIMEOUT
    store: Store | None = None
    """What ranks tell each other words through; None where there is one."""
    sharded: bool = False
    """Whether each holds a part of the blocks (`training.optimisation.sharding`)."""

    @property
    def leads(self) -> bool:
        """Whether this one writes to the run's folder."""
        return self.rank == 0

    def rows(self, sequences: int) -> slice:
        """Return which of the sequences of a step are this rank's; shares differ by one at most.

        Raises:
            ValueError: there are fewer sequences than ranks.
        """
        if sequences < self.world:
            raise ValueError(
                f"{self.world} ranks share {sequences} sequences of a step; expected at most as "
                "many ranks as sequences"
            )
        first, last = (sequences * end // self.world for end in (self.rank, self.rank + 1))
        return slice(first, last)

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, bitwise the same on all of them."""
        for bucket in _buckets(tensors) if self.world > 1 else ():
            together = torch.cat([one.reshape(-1) for one in bucket])
            self._reach(partial(dist.all_reduce, together))
            parts = torch.split(together, [one.numel() for one in bucket])
            for one, found in zip(bucket, parts, strict=True):
                one.copy_(found.view_as(one))

    def agree(self, *wishes: bool) -> list[bool]:
        """Return of each wish whether any rank has it."""
        if self.world == 1:
            return list(wishes)
        found = torch.tensor(wishes, dtype=torch.int32)
        self._reach(partial(dist.all_reduce, found, dist.ReduceOp.MAX))
        return [bool(one) for one in found.tolist()]

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the rank that leads, but for what is split over ranks."""
        for one in tensors if self.world > 1 else ():
            if not is_sharded(one):
                self._reach(partial(dist.broadcast, one, 0))

    def check_alike(self, tensors: Sequence[Tensor], step: int) -> None:
        """Compare float32 tensors that all hold, bit by bit, and the number of steps.

        Raises:
            RuntimeError: they are not the same on all ranks.
        """
        if self.world == 1:
            return
        held = [one.detach() for one in tensors if not is_sharded(one)]
        bits = [one.view(torch.int32).sum(dtype=torch.int64) for one in held]
        found = torch.stack([torch.tensor(step), torch.stack(bits).sum().cpu()])
        both = torch.cat([found, -found])
        self._reach(partial(dist.all_reduce, both, dist.ReduceOp.MAX))
        if not torch.equal(both[:2], -both[2:]):
            raise RuntimeError(
                f"ranks have different weights or steps at step {step}; expected machines of one "
                "type, and one folder for all of them"
            )

    def tell(self, words: str) -> None:
        """Say something to the other ranks, once."""
        if self.store is not None:
            self._reach(partial(self.store.set, "told", words))

    def hear(self) -> str:
        """Return what the rank that leads says; waits as long as that one lives."""
        assert self.store is not None, "who is alone hears nobody"
        while not self._reach(self._has_been_told):
            pass
        told: bytes = self._reach(partial(self.store.get, "told"))
        return told.decode()

    def _has_been_told(self) -> bool:
        assert self.store is not None
        try:
            self.store.wait(["told"], timedelta(seconds=10))
        except dist.DistStoreError:
            return False
        return True

    def _reach(self, call: Callable[[], Value]) -> Value:
        try:
            return call()
        except RuntimeError as error:
            raise RankLost(
                f"rank {self.rank} of {self.world} lost another, which ended or did not answer "
                f"within {self.timeout_seconds:g} seconds (--rank-timeout)"
            ) from error


ALONE = Ranks()


@contextmanager
def joined(device: str, timeout_seconds: float = RANK_TIMEOUT) -> Iterator[Ranks]:
    """Join the processes that were started with this one, by `isoflop --ranks`, torchrun or srun.

    Args:
        device: `cpu` or `cuda`, of which each rank of a machine takes one.
        timeout_seconds: that a rank waits for the others before it gives up.
    """
    here = place()
    if here is None:
        yield ALONE
        return
    ranks = _join(here, device, timeout_seconds)
    yield ranks
    # Not after an error: a group that lost a rank cannot be taken down in order.
    dist.destroy_process_group()


def _join(here: Place, device: str, timeout_seconds: float) -> Ranks:
    waits = timedelta(seconds=timeout_seconds)
    if device == "cuda":
        torch.cuda.set_device(here.local % torch.cuda.device_count())
    os.environ |= {
        "RANK": str(here.rank),
        "WORLD_SIZE": str(here.world),
        "MASTER_ADDR": here.address,
        "MASTER_PORT": str(here.port),
    }
    try:
        store, rank, world = next(rendezvous("env://", timeout=waits))
        # Ranks that an agent started again must not read what those before them left in its store.
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=world,
            timeout=waits,
        )
    except RuntimeError as error:
        raise RankLost(
            f"rank {here.rank} of {here.world} found no others at {here.address}:{here.port} "
            f"within {timeout_seconds:g} seconds: {error}"
        ) from error
    return Ranks(rank, world, timeout_seconds, store)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors, some at a time."""
    bucket: list[Tensor] = []
    held = 0
    for one in tensors:
        if bucket and held + one.numel() > ELEMENTS_AT_A_TIME:
            yield bucket
            bucket, held = [], 0
        bucket.append(one)
        held += one.numel()
    if bucket:
        yield bucket
