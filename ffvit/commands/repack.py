"""Beton -> beton with restart markers in its JPEGs."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("old", type=Path, metavar="OLD.beton", help="beton to read")
    parser.add_argument("new", type=Path, metavar="NEW.beton", help="beton to write")
    parser.add_argument(
        "--restart_interval", type=int, default=4, help="MCUs between restart markers [4]"
    )


def run(options: argparse.Namespace) -> None:
    """Write the new beton."""
    from ffvit.data.repack import repack_beton  # noqa: PLC0415

    repack_beton(options.old, options.new, options.restart_interval)
