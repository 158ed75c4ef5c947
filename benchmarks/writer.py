"""Writing betons: stock ffcv's writer against ours, on the same JPEGs, in interleaved rounds.

python -m benchmarks.writer [IMAGES]    IMAGES: a .tar of JPEGs in class folders [../shared/data]

Every write is a process of its own, so that one that hangs can be stopped. Stock gets images that
Pillow decoded, as ffcv-imagenet's ImageFolder hands them over. Repeating the images by index makes
the write long enough to measure. The beton goes to --folder, so that a disk can be told from the
writer: a folder in memory shows the writer alone. Two numbers of images give the whole write's rate
and the steady state's, which leaves out the start, the estimate of the size, and the end. Ours
waits for the disk (fsync), opens and hashes its file; stock does not.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
from PIL import Image

from benchmarks.machine import describe_machine

# Ours: "jpg" encodes every image anew, "passthrough" those over MAX_SIDE, "passthrough, all" none.
SUBJECTS = ("stock", "jpg", "passthrough", "passthrough, all")
NUM_WORKERS = 2
MAX_SIDE = 500
JPEG_QUALITY = 90
# How often the images are written in a short and in a long write.
REPEATS = (2, 8)
TIMEOUT_S = 300
RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet_sample.tar"


class DecodedImages:
    """What stock ffcv's writer is given: decoded images with labels, in the order of the paths."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with self.paths[index].open("rb") as file:
            return Image.open(file).convert("RGB"), index % 1000


def write_stock(paths: Sequence[Path], beton: Path) -> None:
    """Write with stock ffcv alone."""
    from ffcv.fields import IntField, RGBImageField  # noqa: PLC0415 - only one process needs it
    from ffcv.writer import DatasetWriter  # noqa: PLC0415

    field = RGBImageField(write_mode="jpg", max_resolution=MAX_SIDE, jpeg_quality=JPEG_QUALITY)
    fields = {"image": field, "label": IntField()}
    writer = DatasetWriter(str(beton), fields, num_workers=NUM_WORKERS)
    writer.from_indexed_dataset(DecodedImages(paths))


def write_ours(paths: Sequence[Path], beton: Path, subject: str) -> None:
    """Write with ours, every option at its default but mode, largest side and workers."""
    from ffvit.data.sources import Source  # noqa: PLC0415
    from ffvit.data.sources.base import FileStore  # noqa: PLC0415
    from ffvit.data.writer import write_beton  # noqa: PLC0415
    from ffvit.options import WriteSection  # noqa: PLC0415

    source = Source(
        store=FileStore(Path("/"), [str(path) for path in paths]),
        keys=np.arange(len(paths)),
        labels=np.arange(len(paths)) % 1000,
        label_names=tuple(str(label) for label in range(1000)),
        description="repeated images",
    )
    mode, _, is_all = subject.partition(", ")
    section = WriteSection(
        mode=mode,
        max_side=0 if is_all else MAX_SIDE,
        jpeg_quality=JPEG_QUALITY,
        num_workers=NUM_WORKERS,
    )
    write_beton(source, beton, section)


def write_once(subject: str, folder: Path, beton: Path, repeats: int) -> dict[str, float]:
    """Write a beton in this process and its workers.

    Returns:
        num_images; seconds; cpu_s, the processor time of all processes; and beton_bytes. Imports
        are left out.
    """
    import ffvit.data.writer  # noqa: F401, PLC0415 - imports ffcv and compiles, for every subject

    paths = sorted(folder.rglob("*.JPEG")) * repeats
    begin, cpu_begin = time.perf_counter(), _cpu_s()
    if subject == "stock":
        write_stock(paths, beton)
    else:
        write_ours(paths, beton, subject)
    seconds = time.perf_counter() - begin
    for process in multiprocessing.active_children():
        process.join()  # stock leaves them; their time counts from then on
    return {
        "num_images": len(paths),
        "seconds": seconds,
        "cpu_s": _cpu_s() - cpu_begin,
        "beton_bytes": beton.stat().st_size,
    }


def measure(
    rounds: int,
    images: Path = IMAGES,
    repeats: tuple[int, int] = REPEATS,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Write with each subject in turn, `rounds` times.

    Args:
        rounds: Of all subjects; they take turns, so that a machine's drift meets all.
        images: A .tar of JPEGs in class folders.
        repeats: How often the images are written in the short and the long write.
        folder: Where betons are written; None: where temporary files go.

    Returns:
        For each subject the rates of every round, `images_per_s` of the long write,
        `steady_images_per_s` between the short and the long one, and `images_per_cpu_s`; for ours
        the `ratios` of each to stock's in the same round.
    """
    rates: dict[str, dict[str, list[float]]] = {subject: {} for subject in SUBJECTS}
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(images) as tar:
            tar.extractall(scratch, filter="data")
        for number in range(rounds):
            for subject in SUBJECTS:
                beton = (folder or Path(scratch)) / "measured.beton"
                short, long = (_write_in_process(subject, Path(scratch), beton, n) for n in repeats)
                steady = (long["num_images"] - short["num_images"]) / (
                    long["seconds"] - short["seconds"]
                )
                for name, rate in (
                    ("images_per_s", long["num_images"] / long["seconds"]),
                    ("steady_images_per_s", steady),
                    ("images_per_cpu_s", long["num_images"] / long["cpu_s"]),
                    ("bytes_per_image", long["beton_bytes"] / long["num_images"]),
                ):
                    rates[subject].setdefault(name, []).append(rate)
                sys.stderr.write(f"round {number + 1}: {subject}: {_last(rates[subject])}\n")
    ratios = {
        subject: {
            name: [
                ours / stock
                for ours, stock in zip(rates[subject][name], rates["stock"][name], strict=True)
            ]
            for name in ("images_per_s", "steady_images_per_s", "images_per_cpu_s")
        }
        for subject in SUBJECTS[1:]
    }
    return {"num_workers": NUM_WORKERS, "repeats": repeats, "rates": rates, "ratios": ratios}


def table(result: dict[str, Any]) -> str:
    """Show medians and ranges of all rounds."""
    lines = ["| writer | images/s | steady images/s | images per CPU second | against stock |"]
    lines.append("|---|---|---|---|---|")
    for subject, rates in result["rates"].items():
        cells = [
            f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"
            for name, values in rates.items()
            if name != "bytes_per_image"
        ]
        ratios = result["ratios"].get(subject)
        cells.append(
            " / ".join(f"{statistics.median(values):.2f}" for values in ratios.values())
            if ratios
            else "1"
        )
        lines.append(f"| {subject} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Measure, print a table, and write the result beside the others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.writer", description=__doc__)
    parser.add_argument(
        "images", type=Path, nargs="?", default=IMAGES, help=".tar of JPEGs in class folders"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where betons are written")
    parser.add_argument("--machine", default=f"{multiprocessing.cpu_count()}cores")
    parser.add_argument("--one", choices=SUBJECTS, help="for this program's own processes")
    parser.add_argument("--beton", type=Path)
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args(argv)
    if options.one:
        once = write_once(options.one, options.images, options.beton, options.repeats)
        sys.stdout.write(json.dumps(once) + "\n")
        return
    result = {
        "subject": f"writing betons with {NUM_WORKERS} workers, stock ffcv's writer against ours",
        "command": f"python -m benchmarks.writer {options.images.name} --rounds={options.rounds}",
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "versions": {name: metadata.version(name) for name in ("ffcv", "ffvit", "numpy", "pillow")}
        | {"pillow_libjpeg_turbo": PIL.features.version("libjpeg_turbo")},
        **measure(options.rounds, options.images, folder=options.folder),
    }
    path = RESULTS / f"writer_{options.machine}_{time.strftime('%Y%m')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(f"{table(result)}\n{path}\n")


def _write_in_process(subject: str, images: Path, beton: Path, repeats: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.writer", str(images), f"--one={subject}"]
    command += [f"--beton={beton}", f"--repeats={repeats}"]
    finished = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    beton.unlink()
    beton.with_name(f"{beton.name}.json").unlink(missing_ok=True)
    return dict(json.loads(finished.stdout.splitlines()[-1]))


def _last(rates: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items())


def _cpu_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main(sys.argv[1:])
