"""How much memory this process takes."""

from pathlib import Path
from typing import Any


def anonymous_bytes() -> int:
    """Read how much memory of this process belongs to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("expected a line RssAnon in /proc/self/status; Linux 4.5 or newer has it")


def used_gib(device: Any) -> float:
    """Return the most that tensors have taken of a GPU, or the memory that a CPU's process takes.

    Mapped betons do not count: the system takes their pages back whenever it needs them.

    Args:
        device: A torch.device.
    """
    import torch  # noqa: PLC0415 - benchmarks measure processes before they import it

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return anonymous_bytes() / 2**30
