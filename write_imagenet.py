"""Write ImageNet, or any labelled images, into the two betons that train_imagenet.py reads.

python write_imagenet.py --data_dir=PATH    class folders, archives, Parquet, ...; or IMAGENET_DIR
python write_imagenet.py --help             all options
"""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

from ffvit.config import load_write_config
from ffvit.errors import one_line_errors
from ffvit.options import WriteSection


def main() -> None:
    """Find the images, write a beton of each split, and say what to do next."""
    section = load_write_config(sys.argv[1:])
    data_dir = section.data_dir or os.environ.get("IMAGENET_DIR", "")
    write_splits(dataclasses.replace(section, data_dir=data_dir))
    say(f"next: {next_command(section)}")


def write_splits(section: WriteSection) -> dict[str, Path]:
    """Write each split of the source, and print what became of it; return the betons' paths."""
    # Here, so that --help and a misspelt option need not wait for these.
    from ffvit.data.sources import open_sources  # noqa: PLC0415
    from ffvit.data.writer import check_options, write_beton  # noqa: PLC0415

    check_options(section)
    betons = {}
    for split, source in open_sources(section).items():
        say(f"{split}: {source.description}")
        betons[split] = path = Path(section.out_dir) / f"{split}.beton"
        begin = time.monotonic()
        manifest = write_beton(source, path, section, split)
        images_per_s = manifest.num_samples / (time.monotonic() - begin)
        originals = f", {manifest.num_originals:,} of them the source's own files"
        say(
            f"{split}: wrote {manifest.num_samples:,} images"
            f"{originals if manifest.num_originals else ''} of {len(manifest.label_names):,} "
            f"classes, {manifest.beton_bytes / 1e6:,.1f} MB, {images_per_s:,.0f} images/s: {path}"
        )
        if manifest.skipped:
            say(
                f"{split}: left out {len(manifest.skipped):,} images that cannot be read; "
                f'{path}.json lists them and why under "skipped"'
            )
    return betons


def next_command(section: WriteSection) -> str:
    """Return the command that trains on the betons: of a recipe that looks for them there."""
    command = "python train_imagenet.py --config ff_configs"
    beton = f"{Path(section.out_dir).as_posix()}/train.beton\n"
    for recipe in sorted((Path(__file__).parent / "ff_configs").glob("*.yaml")):
        if f"train_path: {beton}" in recipe.read_text(encoding="utf-8"):
            return f"{command}/{recipe.name}"
    command += "/base_16_epochs.yaml"
    paths = (f"--data.{split}_path={section.out_dir}/{split}.beton" for split in ("train", "val"))
    return " ".join((command, *paths))


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
