"""Write ImageNet, or any labelled images, to the two betons that train_imagenet.py reads.

python write_imagenet.py --data_dir=FOLDER       class folders, archives, Parquet, ...; or set
IMAGENET_DIR python write_imagenet.py --help                  all options
"""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

from ffvit.config import WriteSection, load_write_config
from ffvit.errors import one_line_errors


def main() -> None:
    """Open the sources, write a beton of each split, and say what to do next."""
    section = load_write_config(sys.argv[1:])
    section = dataclasses.replace(
        section, data_dir=section.data_dir or os.environ.get("IMAGENET_DIR", "")
    )
    betons = write_splits(section)
    train, val = (
        betons.get(split, Path(section.out_dir, f"{split}.beton")) for split in ("train", "val")
    )
    say(
        "Train on them:",
        "  python train_imagenet.py --config ff_configs/base.yaml"
        f" --data.train_path={train} --data.val_path={val}",
    )


def write_splits(section: WriteSection) -> dict[str, Path]:
    """Write each split and print what became of it; returns the betons."""
    # Here, so that --help and a misspelt option need not wait for these.
    from ffvit.data.sources import open_sources  # noqa: PLC0415
    from ffvit.data.writer import check_options, write_beton  # noqa: PLC0415

    check_options(section)
    betons = {}
    for split, source in open_sources(section).items():
        say(f"{split}: {source.description}")
        path = Path(section.out_dir) / f"{split}.beton"
        begin = time.monotonic()
        manifest = write_beton(source, path, section, split)
        seconds = time.monotonic() - begin
        kept = (
            f", {manifest.num_originals:,} files kept as they are" if manifest.num_originals else ""
        )
        say(
            f"{split}: wrote {manifest.num_samples:,} images of {len(manifest.label_names):,} "
            f"classes, {manifest.beton_bytes / 1e6:,.1f} MB{kept}, "
            f"{manifest.num_samples / seconds:,.0f} images/s: {path}"
        )
        betons[split] = path
    return betons


def say(*lines: str) -> None:
    """Print to standard output."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # A batch system's SIGTERM takes the same way out as Ctrl-C: no half-written file stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with one_line_errors():
        try:
            main()
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
