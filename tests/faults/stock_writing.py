"""Write betons with stock ffcv while something fails; `unshare -m python stock_writing.py FOLDER`.

All cases run at once, each in a process of its own that starts with an old beton in its folder.
Prints one line of JSON: for each case its exit status (null: it still ran when time was up),
whether the old beton was still there, how many samples ffcv found in what lay in its place (null:
it refused), and how many processes had outlived the writer a second after its end.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from confined_write import mount_tmpfs
from ffcv.fields import IntField, RGBImageField
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter
from PIL import Image

PATIENCE_S = 8
NUM_IMAGES = 40
NUM_SECOND = 30  # of a second writer of the same file


def do_nothing() -> None:
    pass


class Images:
    """Images of which one may do something else."""

    def __init__(
        self,
        fail: Callable[[], None] = do_nothing,
        delay_s: float = 0.0,
        side: int = 100,
        num_images: int = NUM_IMAGES,
    ) -> None:
        self.fail = fail
        self.delay_s = delay_s
        self.side = side
        self.num_images = num_images

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        time.sleep(self.delay_s)
        if index == NUM_IMAGES // 2:
            self.fail()
        return np.full((self.side, self.side, 3), index % 256, dtype=np.uint8), index


def write_to(path: str, images: Images) -> None:
    fields = {"image": RGBImageField(), "label": IntField()}
    writer = DatasetWriter(path, fields, page_size=1 << 21, num_workers=2)
    writer.from_indexed_dataset(images, chunksize=5)


def write(folder: Path, images: Images) -> None:
    write_to(str(folder / "a.beton"), images)


def kill_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_error() -> None:
    raise ZeroDivisionError


def remove_source() -> None:
    Image.open("/nowhere/image.jpg")


def write_with_quota(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    write(folder, Images())


def write_while_another_does(folder: Path) -> None:
    if os.fork() == 0:
        time.sleep(0.5)
        write(folder, Images(num_images=NUM_SECOND))
        os._exit(0)
    write(folder, Images(delay_s=0.1))


def write_with_small_shared_memory(folder: Path) -> None:
    ctypes.CDLL(None).unshare(0x20000)  # CLONE_NEWNS: the other cases keep theirs
    mount_tmpfs(Path("/dev/shm"), "size=256k")
    write(folder, Images(side=3, num_images=20_000))  # with records of 480 kB


# Name: what to do in its folder, and the signal to send to the writer after a second.
CASES: dict[str, tuple[Callable[[Path], None], int]] = {
    "worker killed": (lambda folder: write(folder, Images(kill_worker)), 0),
    "worker raises": (lambda folder: write(folder, Images(raise_error)), 0),
    "source removed": (lambda folder: write(folder, Images(remove_source)), 0),
    "disk full": (lambda folder: write(folder, Images()), 0),
    "quota": (write_with_quota, 0),
    "two writers": (write_while_another_does, 0),
    "small shared memory": (write_with_small_shared_memory, 0),
    "Ctrl-C": (lambda folder: write(folder, Images(delay_s=0.2)), signal.SIGINT),
    "SIGTERM": (lambda folder: write(folder, Images(delay_s=0.2)), signal.SIGTERM),
    "SIGKILL": (lambda folder: write(folder, Images(delay_s=0.2)), signal.SIGKILL),
}
OLD_BETON = b"a good beton"


def start(name: str, folder: Path) -> int:
    """Start a case in a session of its own; returns its process."""
    (folder / "a.beton").write_bytes(OLD_BETON)
    if name == "disk full":
        mount_tmpfs(folder, "size=1m")
        (folder / "a.beton").write_bytes(OLD_BETON)
    if (process := os.fork()) == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = 1
        try:
            CASES[name][0](folder)
            status = 0
        finally:
            os._exit(status)
    return process


def survivors(session: int) -> list[int]:
    """List the processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended just now
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def count_samples(path: Path) -> int | None:
    """Open a beton with ffcv; None if it refuses."""
    try:
        return int(Reader(str(path)).num_samples)
    except Exception:  # noqa: BLE001 - whatever a reader says to rubbish
        return None


def main() -> None:
    root = Path(sys.argv[1])
    folders = {name: root / name for name in CASES}
    for folder in folders.values():
        folder.mkdir()
    processes = {name: start(name, folder) for name, folder in folders.items()}
    time.sleep(2)
    for name, (_, signal_number) in CASES.items():
        if signal_number:
            send = os.killpg if signal_number == signal.SIGINT else os.kill  # as a terminal does
            send(processes[name], signal_number)
    statuses: dict[str, int | None] = dict.fromkeys(CASES)
    outlived = dict.fromkeys(CASES, 0)
    ended_at: dict[str, float] = {}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for name, process in processes.items():
            if name not in ended_at and (ended := os.waitpid(process, os.WNOHANG))[0]:
                statuses[name] = os.waitstatus_to_exitcode(ended[1])
                ended_at[name] = time.monotonic()
            elif name in ended_at and time.monotonic() - ended_at[name] < 1:
                outlived[name] = len(survivors(process))
        time.sleep(0.1)
    reports = {}
    for name, folder in folders.items():
        for process in survivors(processes[name]):
            os.kill(process, signal.SIGKILL)
        path = folder / "a.beton"
        reports[name] = {
            "status": statuses[name],
            "old_is_there": path.read_bytes() == OLD_BETON,
            "num_samples": count_samples(path),
            "outlived": outlived[name],
        }
    sys.stdout.write(json.dumps(reports) + "\n")


if __name__ == "__main__":
    main()
