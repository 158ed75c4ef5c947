"""Write betons where disk and shared memory are tiny; `unshare -m python confined_write.py FOLDER`.

Prints one line of JSON: what became of each case.
"""

import ctypes
import dataclasses
import json
import os
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from memory_source import make_source

from ffvit.data import writer
from ffvit.errors import UserError
from ffvit.options import WriteSection

# 23 images of 9 kB.
RAW = WriteSection(mode="raw", num_workers=2)


def mount_tmpfs(folder: Path, options: str, flags: int = 0) -> None:
    """Mount a tmpfs that ends with this process's mount namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options.encode()) != 0:
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")


def checksums(folder: Path) -> dict[str, int]:
    return {path.name: zlib.crc32(path.read_bytes()) for path in folder.iterdir()}


def attempt(path: Path, section: WriteSection, start_method: str = "fork") -> str:
    """Write a beton; returns its error."""
    try:
        writer.write_beton(make_source(), path, section, "", start_method)
    except UserError as error:
        return str(error)
    return ""


def main() -> None:
    folder = Path(sys.argv[1])
    disk, reports = folder / "disk", {}
    disk.mkdir()
    writer.write_beton(make_source(), folder / "expected.beton", RAW)
    mount_tmpfs(disk, "size=400k")
    writer.write_beton(make_source(7), disk / "a.beton", RAW)
    # The old one of 66 kB, and what fits: 15 pages of 4 kB too few for the new one.
    (disk / "ballast").write_bytes(bytes((400 - 76 - 8 - 150) << 10))
    before = checksums(disk)
    before.pop("ballast")
    # As if another process filled the disk after the look at its room; and that costs a start of
    # workers, which take seconds where they are no forks.
    writer._announce = lambda *_: 0
    error = attempt(disk / "a.beton", RAW)
    left = checksums(disk)
    left.pop("ballast")
    reports["full disk"] = {"error": error, "before": before, "left": left}

    resumed = WriteSection(mode="raw", num_workers=2, resume=True)
    first = attempt(disk / "a.beton", resumed)
    kept = "a.beton.partial" in checksums(disk)
    (disk / "ballast").unlink()
    error = attempt(disk / "a.beton", resumed)
    expected = (folder / "expected.beton").read_bytes()
    reports["full disk, resumed on a larger one"] = {
        "error": error,
        "equal": bool(first) and kept and (disk / "a.beton").read_bytes() == expected,
    }

    mount_tmpfs(Path("/dev/shm"), "size=16k")
    for start_method in ("fork", "spawn", "forkserver"):
        path = folder / f"{start_method}.beton"
        # One worker, as each that is no fork imports everything anew.
        error = attempt(path, dataclasses.replace(RAW, num_workers=1), start_method)
        reports[f"small shared memory, {start_method}"] = {
            "error": error,
            "equal": not error and path.read_bytes() == expected,
            "shm": [path.name for path in Path("/dev/shm").iterdir()],
        }
    sys.stdout.write(json.dumps(reports) + "\n")


if __name__ == "__main__":
    main()
