"""Write ImageNet, or any labelled images, into the two betons that train_imagenet.py reads.

python write_imagenet.py --data_dir=PATH    class folders, archives, Parquet, ...; or IMAGENET_DIR
python write_imagenet.py --help             all options
torchrun --nproc_per_node=4 write_imagenet.py ...    several processes, or machines: a shard each
"""

import dataclasses
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from ffvit.config import load_write_config
from ffvit.cpus import available_cpus
from ffvit.errors import UserError, one_line_errors
from ffvit.options import WriteSection

# As torchrun sets them: each process writes its share of every split.
RANK = int(os.environ.get("RANK", "0"))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))


def main() -> None:
    """Find the images, write a beton of each split, and say what to do next."""
    section = load_write_config(sys.argv[1:])
    data_dir = section.data_dir or os.environ.get("IMAGENET_DIR", "")
    write_splits(dataclasses.replace(section, data_dir=data_dir))
    if RANK == 0:
        when = "next" if WORLD_SIZE == 1 else f"when all {WORLD_SIZE} processes are done"
        say(f"{when}: {next_command(section)}")


def write_splits(section: WriteSection) -> dict[str, Path]:
    """Write each split of the source, and print what became of it; return the betons' paths."""
    # Here, so that --help and a misspelt option need not wait for these.
    from ffvit.data.sources import open_sources  # noqa: PLC0415
    from ffvit.data.writer import check_options, take_share, write_beton  # noqa: PLC0415

    check_options(section)
    betons = {}
    for split, images in open_sources(section).items():
        say(f"{split}: {images.description}")
        source, options, name = images, section, split
        if WORLD_SIZE > 1:
            source, options = take_share(images, section, RANK, WORLD_SIZE)
            options = dataclasses.replace(options, num_workers=section.num_workers or cpu_share())
            name = f"{split}-{RANK:05}-of-{WORLD_SIZE:05}"
        betons[split] = path = Path(section.out_dir) / f"{name}.beton"
        begin = time.monotonic()
        try:
            manifest = write_beton(source, path, options, split)
        except UserError as error:
            error.is_local = WORLD_SIZE > 1  # of this process's images or disk
            raise
        images_per_s = manifest.num_samples / (time.monotonic() - begin)
        originals = f", {manifest.num_originals:,} of them the source's own files"
        say(
            f"{name}: wrote {manifest.num_samples:,} images"
            f"{originals if manifest.num_originals else ''} of {len(manifest.label_names):,} "
            f"classes, {manifest.beton_bytes / 1e6:,.1f} MB, {images_per_s:,.0f} images/s: {path}"
        )
        if manifest.skipped:
            say(
                f"{name}: left out {len(manifest.skipped):,} images that cannot be read; "
                f'{path}.json lists them and why under "skipped"'
            )
    return betons


def next_command(section: WriteSection) -> str:
    """Return the command that trains on the betons: of a recipe that looks for them there."""
    command = "python train_imagenet.py --config ff_configs"
    shards = "" if WORLD_SIZE == 1 else f"-*-of-{WORLD_SIZE:05}"
    beton = f"{Path(section.out_dir).as_posix()}/train{shards}.beton\n"
    for recipe in sorted((Path(__file__).parent / "ff_configs").glob("*.yaml")):
        if f"train_path: {beton}" in recipe.read_text(encoding="utf-8"):
            return f"{command}/{recipe.name}"
    command += "/base.yaml"
    paths = (f"{split}_path={section.out_dir}/{split}{shards}.beton" for split in ("train", "val"))
    return " ".join((command, *(shlex.quote(f"--data.{path}") for path in paths)))


def cpu_share() -> int:
    """Count the encoding processes of each of this machine's processes."""
    return max(1, available_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def say(line: str) -> None:
    """Print a line to standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # A batch system's SIGTERM takes the same way out as Ctrl-C, so that no half-written file stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with one_line_errors():
        try:
            main()
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
