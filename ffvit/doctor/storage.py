"""Probes of a beton: whether it is whole, fits into memory, and how fast its storage is read.

The speed is that of random reads past the page cache (O_DIRECT), as training reads a beton that
memory does not hold. How much of the file lies in the page cache now tells mincore(2), which loads
no page; a read with RWF_NOWAIT does, as newer kernels read ahead then.
"""

import ctypes
import importlib
import mmap
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ffvit.cpus import available_cpus
from ffvit.doctor import ERROR, OK, WARNING, Finding, in_bytes
from ffvit.doctor.machine import memory_limit

# What one request for an image's pages brings from a disk: Linux's usual read-ahead.
_READ_BYTES = 128 << 10
_READ_LIMIT_S = 1.0
_NUM_ASKED, _ASK_LIMIT_S = 2000, 0.5
# Decoding 224 px takes a core 0.5 ms an image: docs/benchmarks.md.
_READS_PER_CORE = 2000
# Longer first epochs are worth a sequential read before.
_PATIENCE_S = 600
_NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "9p", "afs")


def beton(path: str) -> Iterator[Finding]:
    """Open a beton, with all checks but those of verify, and compare it with the memory."""
    module = importlib.import_module("ffvit.data.beton")
    errors = importlib.import_module("ffvit.errors")
    try:
        info = module.open_beton(path)
    except errors.BetonError as error:
        yield Finding(ERROR, "beton", str(error), "python write_imagenet.py, or name another file")
        return
    size = Path(path).stat().st_size
    text = f"{path}: {info.num_samples:,} images of {info.num_classes:,} classes, {in_bytes(size)}"
    yield Finding(OK, "beton", f"{text}; every byte: python -m ffvit verify {path}")
    free, total = memory_limit()
    room = f"{in_bytes(free)} of {in_bytes(total)} can hold it"
    if size > free:
        text = f"{path}: larger than memory ({room}): each epoch reads it anew, in random order"
        yield Finding(WARNING, "beton", text, "--data.order=blocks, or a smaller --max_side")
    else:
        yield Finding(OK, "beton", f"{path}: fits into memory ({room})")


def read_speed(path: str) -> Iterator[Finding]:
    """Measure how fast a beton is read at random places, for a second at most."""
    if not Path(path).is_file():
        mend = "check the path, or make it: python write_imagenet.py"
        yield Finding(ERROR, "storage", f"{path}: there is no such file", mend)
        return
    size = Path(path).stat().st_size
    cached = cached_share(path)
    kind = file_system(path)
    if kind in ("tmpfs", "ramfs"):
        yield Finding(OK, "storage", f"{path}: lies in memory ({kind})")
        return
    reads_per_s, is_direct = random_reads(path, size, available_cpus())
    rate = reads_per_s * _READ_BYTES
    text = f"{path} on {kind}: {reads_per_s:,.0f} random reads/s of 128 KiB ({in_bytes(rate)}/s) "
    text += f"by {available_cpus()} threads, "
    text += "past the page cache" if is_direct else "through the page cache, so not the disk's own"
    if cached is None:
        text += "; it does not tell how much of it is cached"
    else:
        text += f"; {100 * cached:.0f} % of it is in the page cache now"
    yield _judge(path, text, size, cached or 0.0, reads_per_s, is_direct, kind)


def _judge(
    path: str,
    text: str,
    size: int,
    cached: float,
    reads_per_s: float,
    is_direct: bool,
    kind: str,
) -> Finding:
    free, _ = memory_limit()
    first_epoch_s = (1 - cached) * size / (reads_per_s * _READ_BYTES)
    if size > free and is_direct and reads_per_s < _READS_PER_CORE * available_cpus():
        text += "; slower than the cores decode"
        mend = "--data.order=blocks"
        return Finding(
            WARNING, "storage", text, mend + _or_local(kind) + ", or betons that fit into memory"
        )
    if size <= free and is_direct and first_epoch_s > _PATIENCE_S:
        text += f"; the first epoch waits {first_epoch_s / 60:,.0f} minutes for it"
        return Finding(WARNING, "storage", text, f"cat {path} > /dev/null{_or_local(kind)}")
    return Finding(OK, "storage", text)


def _or_local(kind: str) -> str:
    return ", or copy it to a local disk" if kind in _NETWORK or kind.startswith("fuse") else ""


def cached_share(path: str) -> float | None:
    """Estimate how much of a file is in the page cache, 0 to 1.

    Returns:
        The share of up to 2,000 random pages that are; None for a file that is empty, or of which
        Linux does not tell as it is somebody else's.
    """
    status = Path(path).stat()
    size = status.st_size
    is_own = status.st_uid == os.geteuid() or os.access(path, os.W_OK)
    if size == 0 or not is_own:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    descriptor = os.open(path, os.O_RDONLY)
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    os.close(descriptor)
    if address == ctypes.c_void_p(-1).value:
        return None
    places = random.Random(0)
    is_cached = ctypes.c_ubyte()
    deadline = time.monotonic() + _ASK_LIMIT_S
    asked = found = 0
    while asked < _NUM_ASKED and time.monotonic() < deadline:
        page = places.randrange(size) // mmap.PAGESIZE * mmap.PAGESIZE
        if libc.mincore(address + page, 1, ctypes.byref(is_cached)):
            break
        asked += 1
        found += is_cached.value & 1
    libc.munmap(address, size)
    return found / asked if asked else None


def random_reads(path: str, size: int, num_threads: int) -> tuple[float, bool]:
    """Read parts of 128 KiB at random places for a second.

    Returns:
        Reads per second; and whether they came past the page cache. tmpfs and some others cannot.
    """
    is_direct = True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        os.preadv(descriptor, [mmap.mmap(-1, _READ_BYTES)], 0)
    except OSError:
        is_direct = False
        descriptor = os.open(path, os.O_RDONLY)
    num_places = max(1, size // _READ_BYTES)
    counts = [0] * num_threads
    errors: list[OSError] = []
    begin = time.monotonic()

    def read(thread: int) -> None:
        places = random.Random(thread)
        buffer = mmap.mmap(-1, _READ_BYTES)  # aligned to pages, as O_DIRECT wants
        try:
            while time.monotonic() - begin < _READ_LIMIT_S:
                os.preadv(descriptor, [buffer], places.randrange(num_places) * _READ_BYTES)
                counts[thread] += 1
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(index,)) for index in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - begin
    os.close(descriptor)
    if errors:
        raise errors[0]
    return sum(counts) / took_s, is_direct


def file_system(path: str, root: str = "/") -> str:
    """Name the kind of file system that a file lies on."""
    real = os.path.realpath(path)
    best, kind = "", "unknown"
    for line in (Path(root) / "proc/self/mounts").read_text().splitlines():
        _, folder, name, *_ = line.split()
        # Blanks are written as octal escapes.
        folder = folder.encode().decode("unicode_escape").rstrip("/")
        if (real + "/").startswith(folder + "/") and len(folder) >= len(best):
            best, kind = folder, name
    return kind
