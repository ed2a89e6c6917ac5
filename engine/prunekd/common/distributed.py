"""The processes that work together: one per device, as torchrun starts them, or a process group of the user's own."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class World:
    """This process among `size`: its rank and device."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True for the process that writes files and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def agree(self, flag: bool) -> bool:
        """True on every process if `flag` is true on any (a collective call)."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item())

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """A tensor of the same shape from every process, in order of rank (a collective call), on the CPU."""
        if self.size == 1:
            return [tensor.cpu()]
        mine = tensor.to(self.device)
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(gathered, mine)
        return [part.cpu() for part in gathered]

    def gather_rows(self, values: np.ndarray) -> list[np.ndarray]:
        """Every process's array (k, ...), whatever its k, in order of rank (a collective call)."""
        if self.size == 1:
            return [values]
        counts = [int(count) for count in self.gather(torch.tensor(len(values)))]
        padded = np.zeros((max(counts), *values.shape[1:]), dtype=values.dtype)
        padded[: len(values)] = values
        parts = self.gather(torch.from_numpy(padded))
        return [part.numpy()[:count] for part, count in zip(parts, counts, strict=True)]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give every process the main one's buffers (batch statistics, which each took from its own samples)."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """DistributedDataParallel in a world of several processes, the model itself in a world of one."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device.index] if self.device.type == "cuda" else None)


def rank_and_size() -> tuple[int, int]:
    """This process's rank and the world size according to torch.distributed; (0, 1) without it.

    Raises:
        ValueError: a launcher started several processes, but they have not formed a group yet.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        raise ValueError(
            f"WORLD_SIZE is {started}, but torch.distributed is not initialized, so every process would see every "
            "sample; call torch.distributed.init_process_group first, or give rank and world_size"
        )
    return 0, 1


@contextmanager
def open_world(device: str | torch.device = "auto") -> Iterator[World]:
    """Join the processes that work together: a process group that exists already, or the one torchrun describes.

    A process group of torch.distributed that is initialized already is used as it is and left open. Otherwise the
    processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK) form a group that is closed again at the end. Without
    either, this process is a world of one.

    Args:
        device: `auto` takes this process's GPU if there is one, and the CPU for a process group without NCCL; `cpu`
            and `cuda` insist; a torch.device is taken as it is.

    Raises:
        ValueError: CUDA asked for and not there, or a device that the process group cannot communicate on.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), _device_of_group(device))
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if size == 1:
        yield World(0, 1, chosen)
        return
    rank = int(os.environ.get("RANK", "0"))
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", store=_own_store(), rank=rank, world_size=size)
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device that `device` means for this process, and make a GPU the current one.

    Args:
        device: `auto` (a GPU if there is one), `cpu`, `cuda` (the GPU of LOCAL_RANK, else the current one), or a
            torch.device.

    Raises:
        ValueError: another name, or CUDA where torch sees no GPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = torch.device("meta")
    if wanted.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {str(device)!r}; it must be auto, cpu, cuda, or a torch.device of these kinds")
    if wanted.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no GPU; use --device cpu, or see `prunekd doctor`")
    local_rank = os.environ.get("LOCAL_RANK")
    if wanted.index is None:
        wanted = torch.device("cuda", torch.cuda.current_device() if local_rank is None else int(local_rank))
    torch.cuda.set_device(wanted)
    return wanted


def _device_of_group(device: str | torch.device) -> torch.device:
    """The device for an initialized process group, which must be able to communicate on it."""
    backends = dist.get_backend_config()  # such as "cpu:gloo,cuda:nccl"
    if device == "auto" and "nccl" not in backends:
        return torch.device("cpu")
    chosen = choose_device(device)
    if chosen.type == "cuda" and "nccl" not in backends:
        raise ValueError(
            f"device is {chosen}, but the initialized process group has the backend {backends}; initialize it with "
            "nccl, or use device cpu"
        )
    if chosen.type == "cpu" and "gloo" not in backends and "mpi" not in backends:
        raise ValueError(
            f"device is cpu, but the initialized process group has the backend {backends}; initialize it with "
            "cpu:gloo,cuda:nccl, or use device cuda"
        )
    return chosen


_openings = itertools.count()  # groups opened by this process; every process of a job opens the same ones in order


def _own_store() -> dist.Store:
    """The store in which processes find each other, apart from what earlier groups and attempts left in it.

    torchrun keeps one store for all attempts of a job, so that restarted processes may look for each other under
    addresses of dead ones. On one host the number of restarts tells attempts apart; hosts count theirs differently, and
    there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun open a new store for each attempt.
    """
    store, _, _ = next(rendezvous("env://"))
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    one_host = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    group = f"group{next(_openings)}"
    return dist.PrefixStore(f"restart{restarts}/{group}" if one_host else group, store)
