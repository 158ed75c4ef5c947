"""What is inside a beton, as text; or one of its images."""

import argparse
import sys
from pathlib import Path

from ffvit.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("beton", type=Path, metavar="BETON", help="beton to look into")
    parser.add_argument("--all_classes", action="store_true", help="list every class")
    parser.add_argument("--sample", type=int, metavar="N", help="save image N, counted from 0")
    parser.add_argument("--out", type=Path, help="file for it: .jpg (as stored) or .png")


def run(options: argparse.Namespace) -> None:
    """Describe the beton, or save the image.

    Raises:
        UserError: The beton cannot be read, or one of --sample and --out is missing.
    """
    if (options.sample is None) != (options.out is None):
        raise ConfigError("expected --sample=N and --out=FILE together, got only one of them.")
    from ffvit.data.inspect import describe_beton, save_sample  # noqa: PLC0415

    if options.sample is None:
        text = describe_beton(options.beton, options.all_classes)
    else:
        text = save_sample(options.beton, options.sample, options.out)
    sys.stdout.write(f"{text}\n")
