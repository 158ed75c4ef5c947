"""Probes of what this process may use: cores, memory, shared memory, disk, limits."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from ffvit.cpus import available_cpus, control_groups
from ffvit.doctor import ERROR, OK, WARNING, Finding, in_bytes
from ffvit.doctor.gpus import num_devices

_GIB = 1 << 30
# A rule of thumb: one core decodes some 2,000 crops of 224 pixels a second (docs/benchmarks.md).
_CORES_PER_GPU = 4
# Docker gives 64 MiB, of which NCCL alone takes more between a few GPUs.
_MIN_SHARED_BYTES = 1 * _GIB
_MIN_DISK_BYTES, _MIN_FREE_FILES = 10 * _GIB, 1000
_MIN_OPEN_FILES = 1024
_MIN_MEMORY_BYTES = 4 * _GIB


def cores(root: str = "/") -> Iterator[Finding]:
    """Compare the machine's cores with those that this process may use."""
    present, bound = os.cpu_count() or 1, len(os.sched_getaffinity(0))
    usable, num_gpus = available_cpus(root), num_devices(root)
    text = f"{usable} of {present}"
    mend = f"use a machine with {_CORES_PER_GPU} cores or more per GPU"
    if bound < present:
        text += f"; this process is bound to {bound}"
        is_slurm = "SLURM_JOB_ID" in os.environ
        wanted = _CORES_PER_GPU * max(1, num_gpus)
        mend = f"srun --cpus-per-task={wanted}" if is_slurm else f"taskset -cp 0-{present - 1} $$"
    if usable < bound:
        text += f"; its control group's quota is {usable}"
        mend = "docker run --cpus=N, or the CPU limit among Kubernetes' resources"
    if usable < _CORES_PER_GPU * max(1, num_gpus) and (usable < present or num_gpus):
        text += f"; few for {num_gpus} GPUs" if num_gpus else "; few to decode images with"
        yield Finding(WARNING, "cores", text, mend)
    else:
        yield Finding(OK, "cores", text)


def memory_limit(root: str = "/") -> tuple[int, int]:
    """Find out how many bytes of memory files may fill, and of how many.

    Returns:
        What is free or holds files that may be dropped; and all there is: of the machine, or of the
        tightest control group, whose files count against its limit.
    """
    total = free = 0
    for line in (Path(root) / "proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            total = int(value.split()[0]) << 10
        elif name == "MemAvailable":
            free = int(value.split()[0]) << 10
    for folder in control_groups(Path(root), "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        if limit is None or limit >= total:
            continue
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        total, free = limit, min(free, limit - used + _file_bytes(folder))
    return free, total


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _file_bytes(folder: Path) -> int:
    """Read how much of a control group's memory holds files."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    counts = dict(line.split() for line in lines)
    return int(counts.get("file", counts.get("total_cache", 0)))


def memory(root: str = "/") -> Iterator[Finding]:
    """Look at the memory that is left; storage.py compares it with a beton."""
    free, total = memory_limit(root)
    text = f"{in_bytes(free)} of {in_bytes(total)} free for processes and files"
    if free < _MIN_MEMORY_BYTES:
        mend = "ps aux --sort=-rss | head (shows what holds it), or ask for more"
        yield Finding(WARNING, "memory", text, mend)
    else:
        yield Finding(OK, "memory", text)


def shared_memory(path: str = "/dev/shm", root: str = "/") -> Iterator[Finding]:
    """Look at the shared memory, through which NCCL's processes exchange."""
    status = os.statvfs(path)
    size = status.f_blocks * status.f_frsize
    free = status.f_bavail * status.f_frsize
    text = f"{in_bytes(free)} of {in_bytes(size)} free"
    if num_devices(root) > 1 and free < _MIN_SHARED_BYTES:
        text += "; too little for NCCL between several GPUs"
        mend = "docker run --shm-size=8g, or mount -o remount,size=8g /dev/shm"
        yield Finding(ERROR, "/dev/shm", text, mend)
    else:
        yield Finding(OK, "/dev/shm", text)


def disk(folder: str = ".") -> Iterator[Finding]:
    """Look at the room for betons and runs in the current folder."""
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    text = f"{in_bytes(free)} free in this folder (betons of ImageNet take 74 GB)"
    mend = "df -h .; --out_dir and --run.folder name another disk"
    if not os.access(folder, os.W_OK):
        yield Finding(WARNING, "disk", f"{text}; it may not be written to", mend)
    elif free < _MIN_DISK_BYTES or (status.f_files and status.f_favail < _MIN_FREE_FILES):
        text += f", {status.f_favail:,} files" if status.f_favail < _MIN_FREE_FILES else ""
        yield Finding(WARNING, "disk", text, mend)
    else:
        yield Finding(OK, "disk", text)


def limits() -> Iterator[Finding]:
    """Look at the limits that a shell or a batch system sets for its processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} open files"
    if soft < _MIN_OPEN_FILES:
        wanted = _MIN_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, 4096)
        yield Finding(WARNING, "limits", text, f"ulimit -n {wanted}")
    else:
        yield Finding(OK, "limits", text)
    for kind, flag, name, level in (
        (resource.RLIMIT_AS, "-v", "address space, into which betons are mapped", ERROR),
        (resource.RLIMIT_FSIZE, "-f", "the size of a file, such as a beton", WARNING),
    ):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            is_tight = soft < 64 * _GIB
            text = f"{in_bytes(soft)} of {name}"
            mend = f"ulimit {flag} unlimited"
            yield Finding(level if is_tight else WARNING, "limits", text, mend)
    has_infiniband = Path("/dev/infiniband").exists()
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if has_infiniband and soft != resource.RLIM_INFINITY:
        text = f"{in_bytes(soft)} may be locked; NCCL over InfiniBand needs more"
        mend = "ulimit -l unlimited (limits.conf, by an administrator)"
        yield Finding(WARNING, "limits", text, mend)
