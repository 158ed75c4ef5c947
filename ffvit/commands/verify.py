"""Betons against their manifests: every byte, and every image decoded."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("betons", nargs="+", type=Path, metavar="BETON", help="beton to verify")


def run(options: argparse.Namespace) -> None:
    """Verify all of them; one that fails ends the command with status 2."""
    from ffvit.data.verify import verify_betons  # noqa: PLC0415

    verify_betons(options.betons)
