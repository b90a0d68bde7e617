"""Several processes that train one run together, started by torchrun; torch.distributed does the work.

Each process holds all networks and a part of every batch. Gradients are averaged in one all-reduce, so that all make
the same step: on K processes the losses are those of one, up to the rounding of sums. No wrapper around the networks:
a discriminator that is called twice before one backward, or differentiated twice, trips those.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from edgegan.errors import ArgumentError, RunError
from edgegan.trainer.checkpoint import digest_of

PATIENCE = timedelta(
    hours=2
)  # the others wait that long while one decodes a data set or measures; a dead one is seen at once


class PeerLostError(RunError):
    """Another process of the run ended, so that the common work cannot go on."""


class Group:
    """The processes of a run; of one process this class, whose work is none."""

    rank, world, local_rank = 0, 1, 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def greatest(self, number: int) -> int:
        """The greatest of all processes' numbers, 0 or more: the same answer in each of them."""
        return number

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each float tensor by its mean over the processes."""

    def check_same(self, nets: nn.Module) -> None:
        """Raise RunError unless every weight and buffer has the same bits in all processes."""


class TorchrunGroup(Group):
    """The processes that torchrun started, joined: gloo between processors, NCCL between GPUs."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.local_rank = local_rank()

    def greatest(self, number: int) -> int:
        """See Group. On the CPU, whatever the nets are on, so that a GPU need not be waited for."""
        shared = torch.tensor([number])
        with lost_peers():
            dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """See Group; one all-reduce for all of them."""
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with lost_peers():
            dist.all_reduce(flat)
        flat /= self.world
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    @torch.no_grad()
    def check_same(self, nets: nn.Module) -> None:
        """See Group."""
        state = nets.state_dict()
        # 60 bits of each one's digest, as a number that MIN and MAX compare.
        mine = torch.tensor([int(digest_of(value)[:15], 16) for value in state.values()])
        low, high = mine.clone(), mine.clone()
        with lost_peers():
            dist.all_reduce(low, dist.ReduceOp.MIN)
            dist.all_reduce(high, dist.ReduceOp.MAX)
        for name, same in zip(state, (low == high).tolist(), strict=True):
            if not same:
                raise RunError(f"the processes have drifted apart: {name} differs; go on from the newest checkpoint")


@contextmanager
def lost_peers() -> Iterator[None]:
    """What torch raises in a collective whose other end is gone, as PeerLostError."""
    try:
        yield
    except RuntimeError as error:  # gloo's own; dist.DistBackendError is one too
        raise PeerLostError("another process of this run ended, and so this one does") from error


def join(device: str) -> Group:
    """The group that torchrun put this process into, a group of one otherwise; it is left by `leave`.

    device: "cpu" or "cuda". Raises RunError if the others cannot be reached.
    """
    if not under_torchrun():
        return Group()
    try:
        store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
        # torchrun keeps one store over its restarts, in which the addresses of those that died would be found again.
        store = dist.PrefixStore(f"start-{_starts()}", store)
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"torchrun's processes cannot reach each other: {reason}") from error
    return TorchrunGroup()


def leave(status: int) -> NoReturn:
    """End this process at once: to take its group down can wait for ever for one that died, or abort.

    What it wrote must be closed by now.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def under_torchrun() -> bool:
    """Whether torchrun started this process with others beside it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if under_torchrun() else 0


def restarted() -> bool:
    """Whether torchrun started these processes anew after some of them died."""
    return _starts() > 0


def _starts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def part_of(batch: int, world: int) -> int:
    """How many of a batch's images each of `world` processes takes. Raises ArgumentError if they do not divide it."""
    if batch % world:
        raise ArgumentError(f"batch is {batch}, which {world} processes cannot share; pass a multiple of {world}")
    return batch // world
