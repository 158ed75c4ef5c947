"""What limits this process: how many CPU cores it may use, and the control groups it is in."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(root: str | os.PathLike[str] = "/") -> int:
    """Count the cores that this process may use; at least 1.

    The cores it is bound to (taskset, SLURM, `docker --cpuset-cpus`), or fewer where a control
    group grants less time (`docker --cpus`, Kubernetes' limits); a part of a core counts as one.

    Args:
        root: Where /proc and /sys are looked for.
    """
    num_bound = len(os.sched_getaffinity(0))
    quotas = (quota for group in control_groups(Path(root), "cpu") for quota in _quota(group))
    return max(1, min([num_bound, *map(math.ceil, quotas)]))


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Give the folders of the control groups whose limits hold for this process.

    Args:
        root: Where /proc and /sys are looked for.
        controller: Such as "cpu" or "memory".
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # a system without control groups
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        folder = root / "sys/fs/cgroup"
        if controllers:  # version 1: a hierarchy for each controller
            if controller not in controllers.split(","):
                continue
            folder /= controller
        # Within a container the path may be the host's, of which the last part alone is mounted.
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            yield folder.joinpath(*parts[:depth])


def _quota(folder: Path) -> list[float]:
    """Read one control group's quota; nothing if it has none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):  # no such file, or "max"
        return []
