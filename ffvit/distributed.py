"""Which process this is, and what it shares with the others: torch.distributed through torchrun."""

import contextlib
import dataclasses
import datetime as dt
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from ffvit.cpus import available_cpus
from ffvit.errors import ConfigError, RankError, check_option


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process among all of a run.

    Attributes:
        rank: Index of this process, 0 .. world_size-1.
        local_rank: Index on this machine.
        world_size: Number of processes.
        local_world_size: Number of processes on this machine.
        device: Where this process computes.
        host_group: For what the processes agree on without waiting for their GPUs: gloo. None for
            the group of all, on CPUs.
    """

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    device: torch.device
    host_group: Any = None

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
        high, low = self.max(value), -self.max(-value)
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

    def max(self, value: int) -> int:
        """Find the largest value of all processes."""
        if self.world_size == 1:
            return value
        values = torch.tensor([value])
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.host_group)
        return int(values)

    def total(self, value: int) -> int:
        """Add up a number over all processes."""
        if self.world_size == 1:
            return value
        values = torch.tensor([value])
        dist.all_reduce(values, group=self.host_group)
        return int(values)

    def wait_for_all(self) -> None:
        """Return when every process has come here; GPUs may still be at work."""
        if self.world_size > 1:
            dist.barrier(group=self.host_group)


class Vote:
    """Lets all processes decide the same at the same time, without waiting for each other.

    The values of one call are exchanged while the processes go on, and are known in the next.
    """

    def __init__(self, ranks: Ranks) -> None:
        """Join; all processes must make the same calls."""
        self._ranks = ranks
        self._under_way: tuple[Any, torch.Tensor] | None = None

    def cast(self, value: int) -> int:
        """Hand in a value; return the largest that any process handed in at the call before.

        A process that is alone gets its own value at once.
        """
        if self._ranks.world_size == 1:
            return value
        previous = self.finish()
        values = torch.tensor([value])
        work = dist.all_reduce(
            values, dist.ReduceOp.MAX, group=self._ranks.host_group, async_op=True
        )
        self._under_way = (work, values)
        return previous

    def finish(self) -> int:
        """Wait for what is under way, and return its result."""
        if self._under_way is None:
            return 0
        work, values = self._under_way
        work.wait()
        self._under_way = None
        return int(values)


@contextlib.contextmanager
def join_ranks(timeout_s: float) -> Iterator[Ranks]:
    """Join the processes that torchrun started; alone without torchrun.

    NCCL on GPUs, gloo on CPUs. Torch gets this process's share of the cores.

    Args:
        timeout_s: How long a process waits for the others, in any exchange.

    Raises:
        ConfigError: More processes than GPUs, or a timeout out of its range.
        RankError: Inside: another process is gone, or did not answer in time.
    """
    check_option("run.timeout_s", timeout_s, "a number of seconds above 0", timeout_s > 0)
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
    if world_size == 1:
        yield ranks
        return
    timeout = dt.timedelta(seconds=timeout_s)
    try:
        store = _store(rank, world_size, timeout)
        place: dict[str, Any] = {"store": store, "rank": rank, "world_size": world_size}
        if device.type == "cuda":
            dist.init_process_group("nccl", device_id=device, timeout=timeout, **place)
            host_group = dist.new_group(backend="gloo", timeout=timeout)
            ranks = dataclasses.replace(ranks, host_group=host_group)
        else:
            dist.init_process_group("gloo", timeout=timeout, **place)
        yield ranks
    except SystemExit:  # all processes leave together
        dist.destroy_process_group()
        raise
    except RuntimeError as error:
        if not _is_about_another_rank(error):
            raise
        reason = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        raise RankError(
            f"process {rank} of {world_size} lost touch with another one, or waited for "
            f"run.timeout_s={timeout_s:g} seconds ({reason}); look for the others' first error, "
            "then give the same command again: it goes on from the latest checkpoint.",
            is_local=True,
        ) from error
    # Not after an exception: the others may be waiting in a collective, and torchrun ends them.
    dist.destroy_process_group()


def _store(rank: int, world_size: int, timeout: dt.timedelta) -> Store:
    """Open the store through which processes find each other, apart for each start by torchrun.

    torchrun 2.14 keeps one store over its restarts, in which the new processes would find the
    addresses of the dead ones. With several machines its count of restarts differs by machine.
    """
    store: Store
    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        return store
    return PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT')}", store)


def _is_about_another_rank(error: RuntimeError) -> bool:
    """Tell a failed exchange from other errors. Gloo raises plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
