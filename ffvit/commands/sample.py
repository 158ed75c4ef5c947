"""The built-in sample images."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images [0]")


def run(options: argparse.Namespace) -> None:
    """Write the images as class folders."""
    from ffvit.data.sample import write_sample  # noqa: PLC0415

    write_sample(options.folder, seed=options.seed)
