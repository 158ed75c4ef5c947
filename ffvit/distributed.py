"""Which process this is, and what it shares with the others: torch.distributed through torchrun."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ffvit.cpus import available_cpus
from ffvit.errors import ConfigError


@dataclass(frozen=True)
class Ranks:
    """This process among all of a run.

    Attributes:
        rank: Index of this process, 0 .. world_size-1.
        local_rank: Index on this machine.
        world_size: Number of processes.
        local_world_size: Number of processes on this machine.
        device: Where this process computes.
    """

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    device: torch.device

    @property
    def is_primary(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    @property
    def num_gpus(self) -> int:
        """Count the GPUs of the run; 0 on CPUs."""
        return self.world_size if self.device.type == "cuda" else 0

    def cpu_share(self) -> int:
        """Count the CPU cores this process may use, its machine's divided by its processes."""
        return max(1, available_cpus() // self.local_world_size)

    def micro_batch_size(self, global_batch_size: int, accumulation_steps: int) -> int:
        """Divide the images of an update over processes and micro-batches.

        Raises:
            ConfigError: They do not divide evenly.
        """
        parts = self.world_size * accumulation_steps
        if accumulation_steps < 1 or global_batch_size < parts or global_batch_size % parts:
            nearest = max(1, global_batch_size // max(1, parts)) * max(1, parts)
            raise ConfigError(
                f"training.global_batch_size={global_batch_size} does not divide into "
                f"{self.world_size} processes x training.accumulation_steps={accumulation_steps}; "
                f"use for example {nearest}."
            )
        return global_batch_size // parts

    def check_agreement(self, name: str, value: int) -> None:
        """Stop all processes unless each has the same value, before they wait for each other.

        Raises:
            ConfigError: They differ.
        """
        if self.world_size > 1:
            values = torch.tensor([value, -value], device=self.device)
            dist.all_reduce(values, dist.ReduceOp.MAX)
            high, low = int(values[0]), -int(values[1])
            if low != high:
                raise ConfigError(
                    f"{name}: expected the same in all processes, got {low} to {high}; give all "
                    "machines the same files, such as a run folder that all of them see."
                )

    def share_buffers(self, model: torch.nn.Module) -> None:
        """Copy rank 0's buffers (running statistics of batch norms) to all processes."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add up a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def wait_for_all(self) -> None:
        """Return when every process has come here."""
        if self.world_size > 1:
            dist.barrier()


@contextlib.contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started; alone without torchrun.

    NCCL on GPUs, gloo on CPUs. Torch gets this process's share of the cores.
    """
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        if local_world_size > torch.cuda.device_count():
            raise ConfigError(
                f"--nproc_per_node={local_world_size} is more than this machine's "
                f"{torch.cuda.device_count()} GPUs; use {torch.cuda.device_count()}."
            )
        device = torch.device("cuda", local_rank)
        # Before anything allocates: streams and contexts made earlier would all sit on GPU 0.
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    ranks = Ranks(rank, local_rank, world_size, local_world_size, device)
    torch.set_num_threads(ranks.cpu_share())
    if world_size > 1:
        if device.type == "cuda":
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
    yield ranks
    # Not after an exception: the others may be waiting in a collective, and torchrun ends them.
    if world_size > 1:
        dist.destroy_process_group()
